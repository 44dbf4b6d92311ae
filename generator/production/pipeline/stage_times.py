"""Stage times of a shard: wall-clock and processor seconds by stage. Never part of a commit."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, final, get_args

Stage = Literal["latents", "decode", "screen", "encode", "write", "upload", "wait"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@final
class StageTimes:
    """Sums the time of each stage over any number of threads.

    ``processor`` counts the calling threads only, not the threads that a stage starts itself (BLAS, OpenMP).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock, self._processor = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to ``stage``."""
        clock, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - clock, time.thread_time() - processor)

    def add(self, stage: Stage, clock: float, processor: float = 0.0) -> None:
        """Add ``clock`` and ``processor`` seconds to ``stage``."""
        with self._lock:
            self._clock[stage] += clock
            self._processor[stage] += processor

    @property
    def clock(self) -> dict[Stage, float]:
        """Wall-clock seconds by stage, summed over threads."""
        with self._lock:
            return dict(self._clock)

    @property
    def processor(self) -> dict[Stage, float]:
        """Processor seconds by stage."""
        with self._lock:
            return dict(self._processor)
