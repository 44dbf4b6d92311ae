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
from generator.production.pipeline.run_record import MAX_RUN_RECORD_BYTES, RunRecord
from generator.store.base import Store

_READERS = 16  # at once


class RunRecords(NamedTuple):
    """Runs of a build: what was read, ``looked`` at so many, of ``found``; or of ``more`` than that."""

    records: tuple[RunRecord, ...]
    looked_at: int
    found: int
    truncated: bool

    @property
    def is_partial(self) -> bool:
        """Whether there are others that were not looked at."""
        return self.truncated or self.looked_at < self.found


def read_run_records(build: Store, *, most: int, listed: int) -> RunRecords:
    """Runs of the build whose prefix ``build`` is seen from: ``most`` of the first ``listed`` of them.

    Where there are more than ``most``, they are taken evenly: keys are random, but begin with who made the shard. The
    first and the last one written are among them. Raises ``StoreError``.
    """
    infos = [(info.key, info.modified) for info in islice(build.list("runs/"), listed + 1)]
    more, infos = len(infos) > listed, infos[:listed]
    keys = _choose_keys(infos, most)
    with ThreadPoolExecutor(_READERS) as pool:
        read = tuple(run for run in pool.map(lambda key: _read_record(build, key), keys) if run is not None)
    return RunRecords(read, len(keys), len(infos), more)


def _choose_keys(infos: Sequence[tuple[str, datetime]], most: int) -> list[str]:
    if len(infos) <= most:
        return [key for key, _ in infos]
    inner = max(1, most - 2)
    evenly = [infos[place * len(infos) // inner][0] for place in range(inner)]
    ends = [choose(infos, key=lambda info: info[1])[0] for choose in (min, max)]
    return list(dict.fromkeys(evenly + ends))


def _read_record(build: Store, key: str) -> RunRecord | None:
    try:
        return RunRecord.model_validate_json(build.get(key, MAX_RUN_RECORD_BYTES))
    except StoreUnavailable:
        raise
    except (StoreError, IntegrityError, ValidationError):
        return None
