"""What jobs cost and how fast they are: from their run records, and from how far they were a moment ago."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple, final

from generator.errors import LatentmillError
from generator.production.pipeline.run_costs import RunCosts, sum_costs
from generator.production.pipeline.run_records import read_run_records
from generator.store.base import Store

_READ, _LISTED = 300, 3000  # run records of a job
_HELD = 500  # jobs
_FRESH_SECONDS = 3.0  # after which a job that goes on is looked at again, but not sooner than ...
_SHARE = 0.05  # ... so that reading takes at most this share of the time
_ENDED_SECONDS = 300.0
_WINDOW_SECONDS, _MIN_SECONDS = 60.0, 5.0  # that a rate is measured over
_STEP_SECONDS = 1.0


class JobCosts(NamedTuple):
    """``sums``: of the run records that were read, ``None`` without any; ``is_partial``: not all of them were."""

    sums: RunCosts | None
    is_partial: bool


@final
class CostShelf:
    """The costs of the builds that were asked for lately. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._held: OrderedDict[str, tuple[float, bool, JobCosts]] = (
            OrderedDict()
        )  # until when, whether ended, and what

    def find(self, build: Store, *, ended: bool) -> JobCosts:
        """The costs of a build so far. Without any, if its run records cannot be read: they are only of interest."""
        begun = self._clock()
        with self._lock:
            until, was_ended, held = self._held.get(build.url, (0.0, ended, None))
        if held is not None and begun < until and was_ended == ended:  # the last shards come with the end
            return held
        try:
            read = read_run_records(build, most=_READ, listed=_LISTED)
            found = JobCosts(sum_costs(read.records), read.is_partial)
        except LatentmillError:
            found = held or JobCosts(None, is_partial=False)
        now = self._clock()
        fresh = _ENDED_SECONDS if ended else max(_FRESH_SECONDS, (now - begun) / _SHARE)
        with self._lock:
            self._held[build.url] = (now + fresh, ended, found)
            self._held.move_to_end(build.url)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
        return found


@final
class ProgressShelf:
    """How far jobs were when they were looked at in the last minute. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._held: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()

    def rate(self, job: str, done: int) -> float | None:
        """Images per second over the last minute or what is known of it, as ``done`` are made now; ``None`` if the job
        was not looked at before, and when it went back."""
        now = self._clock()
        with self._lock:
            seen = self._held.setdefault(job, deque())
            self._held.move_to_end(job)
            while len(self._held) > _HELD:
                self._held.popitem(last=False)
            if seen and done < seen[-1][1]:  # a lease was lost: its images are made again
                seen.clear()
            if not seen or now - seen[-1][0] >= _STEP_SECONDS:
                seen.append((now, done))
            while now - seen[0][0] > _WINDOW_SECONDS:
                seen.popleft()
            begun, before = seen[0]
        return (done - before) / (now - begun) if now - begun >= _MIN_SECONDS else None
