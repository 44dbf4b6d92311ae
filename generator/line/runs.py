"""What the shards of a build took, from ``runs/``: where the time went, and how fast it was. Imports no torch.

Wall-clock facts are hints: they may be lacking, or be anybody's; what does not parse is passed over.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from generator.canonical import Frozen
from generator.errors import StoreError
from generator.line.timing import STAGES, Stage
from generator.store.base import Store

MAX_RUN_BYTES = 64 * 1024
_MOST, _READERS = 200, 16  # runs that are looked at, and at once


class Run(BaseModel):
    """``runs/<lease>.json``: one shard, made and published under one lease.

    ``seconds`` are of the clock, added up over ``lanes`` that work side by side; ``wait`` is when they stood idle.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    shard: int = Field(ge=0)
    samples: int = Field(ge=1)
    refused: int = Field(ge=0)
    elapsed_seconds: float = Field(gt=0.0)
    seconds: dict[Stage, float]


class Pace(Frozen):
    """``shards`` shards together: images a second of one worker process, seconds of decoding for an image that was
    accepted, and the share of the time that each stage took, in percent."""

    shards: int
    images_per_second: float
    device_seconds_per_image: float
    share: dict[Stage, float]


def pace(build: Store) -> Pace | None:
    """The pace of the build whose prefix ``build`` is seen from; of a large one that of some shards. ``None`` where
    nothing is known."""
    keys = [info.key for info in islice(build.list("runs/"), _MOST)]
    with ThreadPoolExecutor(_READERS) as pool:
        runs = [run for run in pool.map(lambda key: _read(build, key), keys) if run is not None]
    if not runs:
        return None
    samples, elapsed = sum(run.samples for run in runs), sum(run.elapsed_seconds for run in runs)
    seconds = {stage: sum(run.seconds.get(stage, 0.0) for run in runs) for stage in STAGES}
    whole = sum(seconds.values())
    return Pace(
        shards=len(runs),
        images_per_second=round(samples / elapsed, 1),
        device_seconds_per_image=round(seconds["decode"] / samples, 7),
        share={stage: round(100.0 * taken / whole, 1) if whole else 0.0 for stage, taken in seconds.items()},
    )


def _read(build: Store, key: str) -> Run | None:
    try:
        return Run.model_validate_json(build.get(key, MAX_RUN_BYTES))
    except (StoreError, ValidationError):
        return None
