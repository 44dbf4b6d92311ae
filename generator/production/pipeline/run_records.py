"""Reads the run records below ``runs/`` of a build. Imports no torch.

Run records are hints: they may be missing or forged. Records that do not parse are skipped.
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

_READERS = 16  # parallel reads


class RunRecords(NamedTuple):
    """The run records of a build: the ``records`` that parsed, of ``looked_at`` objects read, of ``found`` listed.

    ``truncated``: there are more objects than were listed.
    """

    records: tuple[RunRecord, ...]
    looked_at: int
    found: int
    truncated: bool

    @property
    def is_partial(self) -> bool:
        """Whether there are run records that were not read."""
        return self.truncated or self.looked_at < self.found


def read_run_records(build: Store, *, most: int, listed: int) -> RunRecords:
    """The run records of the build at the store ``build``: at most ``most`` of ``listed`` ones.

    If there are more than ``most``, they are chosen evenly from the sorted keys: a key is random, but begins with the
    worker that made the shard. The first and the last one written are always included. Raises ``StoreError``.
    """
    infos = [(info.key, info.modified) for info in islice(build.list("runs/"), listed + 1)]
    truncated, infos = len(infos) > listed, sorted(infos[:listed])
    keys = _choose_keys(infos, most)
    with ThreadPoolExecutor(_READERS) as pool:
        read = tuple(run for run in pool.map(lambda key: _read_record(build, key), keys) if run is not None)
    return RunRecords(read, len(keys), len(infos), truncated)


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
