"""Batches made side by side, on a fixed number of threads, for one shard after the other.

A batch is one piece of work from its noise to its tar members: so there is nothing to hand over between stages, and
every thread is busy as long as there are batches. On a device beside the CPU one thread waits for the device while
others draw and encode. At most two shards are open at a time and two batches a lane are under way, so memory does not
grow with the job; shards come out in the order they went in, as fast as they are taken.
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

_MAX_OPEN_SHARDS = 2  # shards: the lanes begin the next one where the last batches of one are too few for them
_BATCHES_PER_LANE = 2  # batches for each lane: one that is made, one that waits


@dataclass(frozen=True, eq=False)
class _PendingBatch:
    assembly: ShardAssembly
    places_B: np.ndarray
    batch: Future[Batch]


@final
class LanePool:
    """``count`` threads that make batches with ``make``, each after it has called ``enter``."""

    def __init__(self, make: Callable[..., Batch], count: int, enter: Callable[[], None]) -> None:
        self._make, self.count, self._enter = make, count, enter
        self._lock, self._busy_seconds = threading.Lock(), 0.0

    def snapshot(self) -> tuple[float, float]:
        """This moment, as ``time.perf_counter`` counts; and the seconds that lanes have worked so far, together."""
        with self._lock:
            return time.perf_counter(), self._busy_seconds

    def idle_since(self, moment: tuple[float, float]) -> float:
        """Seconds that lanes stood idle since then, together; to the length of a batch."""
        (clock, busy), (then, before) = self.snapshot(), moment
        return max(0.0, self.count * (clock - then) - (busy - before))

    def run(self, assemblies: Iterator[ShardAssembly], settled: Callable[[int], None]) -> Generator[ShardAssembly]:
        """Each of ``assemblies``, whole, in order. ``settled`` is told after each batch how many images it gave.

        Whatever is raised by a batch or by ``settled`` ends all of it: nothing is begun any more, and what is under
        way is waited for.
        """
        flying, open_ = deque[_PendingBatch](), deque[ShardAssembly]()
        with ThreadPoolExecutor(self.count, thread_name_prefix="lane", initializer=self._enter) as pool:
            try:
                while self._submit_batches(pool, assemblies, open_, flying):
                    flight = flying.popleft()
                    before = flight.assembly.slots.accepted
                    flight.assembly.add_batch(flight.places_B, flight.batch.result())
                    settled(flight.assembly.slots.accepted - before)
                    while open_ and open_[0].is_complete:
                        yield open_.popleft()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _submit_batches(
        self,
        pool: ThreadPoolExecutor,
        assemblies: Iterator[ShardAssembly],
        open_: deque[ShardAssembly],
        flying: deque[_PendingBatch],
    ) -> bool:
        """Begin as many batches as fit; whether any is under way."""
        while len(flying) < _BATCHES_PER_LANE * self.count and (found := _next_batch(assemblies, open_)) is not None:
            assembly, places_B = found
            work = assembly.prepare_batch(self._make, places_B)
            flying.append(_PendingBatch(assembly, places_B, pool.submit(self._run_timed, work)))
        return bool(flying)

    def _run_timed(self, work: Callable[[], Batch]) -> Batch:
        clock = time.perf_counter()
        try:
            return work()
        finally:
            with self._lock:
                self._busy_seconds += time.perf_counter() - clock


def _next_batch(
    assemblies: Iterator[ShardAssembly], open_: deque[ShardAssembly]
) -> tuple[ShardAssembly, np.ndarray] | None:
    """The next batch of the first open shard that has one; another shard is opened where none has."""
    for assembly in open_:
        if len(places_B := assembly.next_slots()):
            return assembly, places_B
    if len(open_) < _MAX_OPEN_SHARDS and (fresh := next(assemblies, None)) is not None:
        open_.append(fresh)
        return fresh, fresh.next_slots()
    return None
