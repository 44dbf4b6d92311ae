"""The run record of one shard: the time it took, stored as ``runs/<lease>.json``. Imports no torch."""

from __future__ import annotations

import secrets
from functools import cache
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from generator.production.pipeline.stage_times import Stage
from generator.spec.recipe import MAX_SAMPLES, MAX_SHARDS

MAX_RUN_RECORD_BYTES = 64 * 1024

# Run records are untrusted: anybody who can write beside the build can write them. The bounds keep sums finite.
Seconds = Annotated[float, Field(ge=0.0, le=1e9)]
Size = Annotated[int, Field(ge=0, le=10**15)]


class RunRecord(BaseModel):
    """One shard, made and published under one lease.

    ``seconds``: wall-clock seconds by stage, summed over the ``lanes`` that work in parallel; stage ``wait`` is their
    idle time. ``processor_seconds``: processor time of the working threads. ``elapsed_seconds``: from the first batch
    to the receipt, which was written at ``ended``. ``bytes``: size of archive and table. ``peak_device_bytes``: device
    memory of one batch. ``process``: a random token that only tells the worker processes apart.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    shard: int = Field(ge=0, lt=MAX_SHARDS)
    samples: int = Field(ge=1, le=MAX_SAMPLES)
    refused: int = Field(ge=0, le=10**12)
    bytes: Size = 0
    ended: AwareDatetime | None = None
    elapsed_seconds: float = Field(gt=0.0, le=1e9)
    lanes: int = Field(default=1, ge=1, le=10_000)
    process: str = Field(default="", max_length=64)
    device: str = Field(default="", max_length=200)
    execution: str = Field(default="", max_length=40)
    peak_device_bytes: Size = 0
    seconds: dict[Stage, Seconds]
    processor_seconds: dict[Stage, Seconds] = Field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.samples / self.elapsed_seconds

    @property
    def device_seconds(self) -> float:
        """Seconds of decoding, summed over all lanes."""
        return self.seconds.get("decode", 0.0)

    def facts(self) -> dict[str, Any]:
        """The stored JSON: the fields, and two rates for human readers."""
        return self.model_dump(mode="json") | {
            "images_per_second": round(self.images_per_second, 2),
            "device_seconds_per_image": round(self.device_seconds / self.samples, 7),
        }


@cache
def process_token() -> str:
    """A random token for this process; it says nothing about the machine."""
    return secrets.token_hex(6)
