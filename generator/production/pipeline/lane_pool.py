"""The lane pool: a fixed number of threads (lanes) that make the batches of one shard after the other.

One thread takes a batch through all stages, from its noise to its tar members, so there are no queues between stages,
and every thread is busy as long as there are batches. On a GPU, one thread waits for the device while others draw and
encode. At most two shards are open at a time, and two batches per lane are in flight, so memory does not grow with the
job. Shards come out in the order they went in; a slow consumer slows the lanes down.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np

from generator.production.pipeline.assembly import ShardAssembly
from generator.production.pipeline.batches import Batch

_MAX_OPEN_SHARDS = 2  # lanes start the next shard when the last batches of one are too few for all of them
_BATCHES_PER_LANE = 2  # one in progress, one waiting


@dataclass(frozen=True, eq=False)
class _PendingBatch:
    assembly: ShardAssembly
    slots_B: np.ndarray
    batch: Future[Batch]


@final
class LanePool:
    """``count`` threads that make batches with ``make``; each thread first calls ``enter``."""

    def __init__(self, make: Callable[..., Batch], count: int, enter: Callable[[], None]) -> None:
        self._make, self.count, self._enter = make, count, enter
        self._lock, self._busy_seconds = threading.Lock(), 0.0

    def snapshot(self) -> tuple[float, float]:
        """The time now, as ``time.perf_counter`` counts, and the busy seconds of all lanes so far."""
        with self._lock:
            return time.perf_counter(), self._busy_seconds

    def idle_since(self, start: tuple[float, float]) -> float:
        """Idle seconds of all lanes since the snapshot ``start``, accurate to one batch."""
        (clock, busy), (then, before) = self.snapshot(), start
        return max(0.0, self.count * (clock - then) - (busy - before))

    def run(self, assemblies: Iterator[ShardAssembly], on_accepted: Callable[[int], None]) -> Generator[ShardAssembly]:
        """Yields each of ``assemblies`` when complete, in order. After each batch, ``on_accepted`` is called with the
        number of images that it added.

        An error of a batch or of ``on_accepted`` stops the pool: no new batch is started, running ones are awaited.
        """
        pending, open_shards = deque[_PendingBatch](), deque[ShardAssembly]()
        with ThreadPoolExecutor(self.count, thread_name_prefix="lane", initializer=self._enter) as pool:
            try:
                while self._submit_batches(pool, assemblies, open_shards, pending):
                    oldest = pending.popleft()
                    before = oldest.assembly.slots.accepted
                    oldest.assembly.add_batch(oldest.slots_B, oldest.batch.result())
                    on_accepted(oldest.assembly.slots.accepted - before)
                    while open_shards and open_shards[0].is_complete:
                        yield open_shards.popleft()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit_batches(
        self,
        pool: ThreadPoolExecutor,
        assemblies: Iterator[ShardAssembly],
        open_shards: deque[ShardAssembly],
        pending: deque[_PendingBatch],
    ) -> bool:
        """Start as many batches as fit. Returns whether any batch is in flight."""
        limit = _BATCHES_PER_LANE * self.count
        while len(pending) < limit and (found := _next_batch(assemblies, open_shards)) is not None:
            assembly, slots_B = found
            make_batch = assembly.prepare_batch(self._make, slots_B)
            pending.append(_PendingBatch(assembly, slots_B, pool.submit(self._run_timed, make_batch)))
        return bool(pending)

    def _run_timed(self, make_batch: Callable[[], Batch]) -> Batch:
        clock = time.perf_counter()
        try:
            return make_batch()
        finally:
            with self._lock:
                self._busy_seconds += time.perf_counter() - clock


def _next_batch(
    assemblies: Iterator[ShardAssembly], open_shards: deque[ShardAssembly]
) -> tuple[ShardAssembly, np.ndarray] | None:
    """The next batch of the first open shard that has one; if none has, another shard is opened."""
    for assembly in open_shards:
        if len(slots_B := assembly.next_slots()):
            return assembly, slots_B
    if len(open_shards) < _MAX_OPEN_SHARDS and (fresh := next(assemblies, None)) is not None:
        open_shards.append(fresh)
        return fresh, fresh.next_slots()
    return None
