"""What lies in ``runs/`` of a build, read. Imports no torch.

Wall-clock facts are hints: they may be lacking, or be anybody's; what does not parse is passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from pydantic import ValidationError

from generator.errors import IntegrityError, StoreError, StoreUnavailable
from generator.production.pipeline.run_record import MAX_RUN_BYTES, Run
from generator.store.base import Store

_READERS = 16  # at once


class Runs(NamedTuple):
    """Runs of a build: what was read, ``looked`` at so many, of ``found``; or of ``more`` than that."""

    read: tuple[Run, ...]
    looked: int
    found: int
    more: bool

    @property
    def sampled(self) -> bool:
        """Whether there are others that were not looked at."""
        return self.more or self.looked < self.found


def read_runs(build: Store, *, most: int, listed: int) -> Runs:
    """Runs of the build whose prefix ``build`` is seen from: ``most`` of the first ``listed`` of them.

    Where there are more than ``most``, they are taken evenly: keys are random, but begin with who made the shard. The
    first and the last one written are among them. Raises ``StoreError``.
    """
    infos = [(info.key, info.modified) for info in islice(build.list("runs/"), listed + 1)]
    more, infos = len(infos) > listed, infos[:listed]
    keys = _chosen(infos, most)
    with ThreadPoolExecutor(_READERS) as pool:
        read = tuple(run for run in pool.map(lambda key: _read(build, key), keys) if run is not None)
    return Runs(read, len(keys), len(infos), more)


def _chosen(infos: Sequence[tuple[str, datetime]], most: int) -> list[str]:
    if len(infos) <= most:
        return [key for key, _ in infos]
    inner = max(1, most - 2)
    evenly = [infos[place * len(infos) // inner][0] for place in range(inner)]
    ends = [choose(infos, key=lambda info: info[1])[0] for choose in (min, max)]
    return list(dict.fromkeys(evenly + ends))


def _read(build: Store, key: str) -> Run | None:
    try:
        return Run.model_validate_json(build.get(key, MAX_RUN_BYTES))
    except StoreUnavailable:
        raise
    except (StoreError, IntegrityError, ValidationError):
        return None
