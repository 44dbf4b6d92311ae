"""Where the time of a shard goes: seconds by stage, of the clock and of the processor. Never part of a commit."""

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
    """Adds up what stages take, from any number of threads.

    ``processor`` counts the calling threads alone: what a stage computes in threads of its own (BLAS, OpenMP) is not
    among it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock, self._processor = dict.fromkeys(STAGES, 0.0), dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Measure a block as part of ``stage``."""
        clock, processor = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - clock, time.thread_time() - processor)

    def add(self, stage: Stage, clock: float, processor: float = 0.0) -> None:
        """``clock`` and ``processor`` are seconds."""
        with self._lock:
            self._clock[stage] += clock
            self._processor[stage] += processor

    @property
    def clock(self) -> dict[Stage, float]:
        """Seconds of the clock by stage; threads that work side by side each count."""
        with self._lock:
            return dict(self._clock)

    @property
    def processor(self) -> dict[Stage, float]:
        """Seconds of processor time by stage."""
        with self._lock:
            return dict(self._processor)
