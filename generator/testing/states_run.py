"""One run of the state machine: what its examples share, and the shortest failure found so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from generator.store import Store
from generator.testing.contents import content_of
from generator.testing.expectations import Violation
from generator.testing.killed_writer import KilledWriter, WriteJob

LARGE_BYTES = 4 * 2**20  # takes long enough to be killed during the write
SHRINK_SECONDS = 20.0
_GOLDEN_RATIO = 0.618034
_MEASURED_WRITES = 3
_QUICK_SECONDS = 0.2  # to start a writer, write and read


class StatesViolation(Violation):
    """A sequence of operations after which a store differs from its model; the shortest that was found."""

    def __init__(self, found: str, steps: tuple[str, ...]) -> None:
        self.found, self.steps = found, steps
        super().__init__("\n".join([found, *(f"  {number}. {step}" for number, step in enumerate(steps, 1))]))


class ShrunkEnough(BaseException):
    """Ends a run some time after its first failure. Not an ``Exception``, so that Hypothesis does not catch it."""


@dataclass
class StatesRun:
    """The state that all examples of one run share."""

    root: Store
    writer: KilledWriter | None  # None: other processes cannot reach the objects; answers are lost instead
    exact_children: bool = True  # False: children are not compared
    kill_window: float = 0.0  # seconds, a little more than a large write takes
    kills_an_example: int = 0  # at most
    shrink_seconds: float = SHRINK_SECONDS  # after the first failure
    counts: Counter[str] = field(default_factory=Counter)
    failure: StatesViolation | None = None
    _numbers: Iterator[int] = field(default_factory=count)
    _kills: Iterator[int] = field(default_factory=lambda: count(1))
    _first_failed: float = 0.0

    def measure(self) -> None:
        """Measure how long a large write takes in another process. Raises ``Violation``."""
        if self.writer is None:
            return
        store, seconds, began = self.next_store(), list[float](), time.monotonic()
        for number in range(_MEASURED_WRITES):
            outcome = self.writer.write(store, WriteJob("put", "measured", number, LARGE_BYTES))
            if outcome.failed:
                raise Violation(f"put in another process raised {outcome.failed}")
            if store.get("measured") != content_of(number, LARGE_BYTES):
                raise Violation("get gave other bytes than another process has put")
            seconds.append(outcome.seconds)
        store.delete("measured")
        self.kill_window = 1.2 * sorted(seconds)[_MEASURED_WRITES // 2]
        is_quick = (time.monotonic() - began) / _MEASURED_WRITES < _QUICK_SECONDS
        self.kills_an_example = 3 if is_quick else 1

    def next_store(self) -> Store:
        """An empty store for the next example."""
        return self.root.at(f"example-{next(self._numbers):05d}")

    def next_kill_moment(self) -> float:
        """Seconds after the start of a write; spread evenly over the window during a run."""
        return next(self._kills) * _GOLDEN_RATIO % 1.0 * self.kill_window

    @contextmanager
    def observe(self, steps: list[str]) -> Iterator[None]:
        """Record an error of the block as the failure of this run, unless a shorter one is known."""
        if self.failure is not None and time.monotonic() - self._first_failed > self.shrink_seconds:
            raise ShrunkEnough
        try:
            yield
        except Exception as failed:
            if self.failure is None:
                self._first_failed = time.monotonic()
            if self.failure is None or len(steps) <= len(self.failure.steps):
                found = str(failed) if isinstance(failed, Violation) else f"it raised {type(failed).__name__}: {failed}"
                self.failure = StatesViolation(found, tuple(steps))
            raise
