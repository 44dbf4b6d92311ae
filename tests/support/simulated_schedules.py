"""Simulated time and a simulated service for tests of schedules; store, bundle, jobs and runs are real."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from generator.errors import BrokerUnavailable
from generator.models.bundle import push
from generator.spec.recipe import JobSpec
from generator.store import Store, open_store
from tests.support.bundles import tiny_bundle
from workers.schedules.clock import Clock
from workers.schedules.deadlines import Progress
from workers.schedules.new_run import ResolvedJob, resolve_job
from workers.schedules.runs import Chore, Run, read_run, run_dates
from workers.schedules.schedule import Schedule
from workers.schedules.service import JobState, Outcome, Service
from workers.schedules.store import StoredSchedule, update_stored
from workers.schedules.ticker import Ticker
from workers.settings import Settings

START = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = "sha256:" + "5" * 64


class SimulatedClock(Clock):
    """A clock that is set by the test."""

    def __init__(self, now: datetime = START) -> None:
        self.time, self.skew = now, ""

    def now(self) -> datetime:
        return self.time

    def skew_warning(self, root: Store) -> str:
        return self.skew

    def advance(self, **span: float) -> None:
        self.time += timedelta(**span)


class InlineExecutor(Executor):
    """An executor that runs each function at once in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Killed(BaseException):
    """Stands for a SIGKILL of the process."""


class SimulatedService(Service):
    """A service that builds each job in ``build_time`` of the clock; it is unavailable while ``redis_away``."""

    def __init__(self, store: Store, clock: Clock, build_time: timedelta = timedelta(minutes=10)) -> None:
        self._root, self.clock, self.build_time, self.redis_away = store, clock, build_time, False
        self.settings = Settings(root=store.url)
        self.submitted_at: dict[str, datetime] = {}
        self.specs: dict[str, JobSpec] = {}
        self.cancelled: set[str] = set()
        self.submissions: list[str] = []
        self.latest: list[datetime] = []
        self.done_chores: list[tuple[str, datetime, Chore]] = []
        self.verdict: Callable[[Run], Outcome] = lambda run: Outcome(True, "")
        self.lock = threading.Lock()

    @property
    def root(self) -> Store:
        return self._root

    def resolve_job(self, schedule: Schedule, date: datetime) -> ResolvedJob:
        return resolve_job(schedule, date, self._root, self.settings)

    def job_state(self, spec: JobSpec) -> JobState:
        begun = self.submitted_at.get(spec.job_id)
        if begun is None:
            return JobState("unknown")
        if spec.job_id in self.cancelled:
            return JobState("cancelled", "", begun.timestamp())
        done = self.clock.now() >= begun + self.build_time
        return JobState("committed" if done else "open", "", begun.timestamp())

    def submit(self, spec: JobSpec) -> None:
        if self.redis_away:
            raise BrokerUnavailable("redis", "a Redis that answers", "none")
        with self.lock:
            self.submissions.append(spec.job_id)
            self.cancelled.discard(spec.job_id)
            self.specs[spec.job_id] = spec
            self.submitted_at.setdefault(spec.job_id, self.clock.now())

    def cancel(self, job: str) -> None:
        self.cancelled.add(job)

    def progress(self, job: str) -> Progress | None:
        if self.redis_away:
            return None
        share = (self.clock.now() - self.submitted_at[job]) / self.build_time
        return Progress(int(1000 * min(1.0, share)), 1000)

    def check_gates(self, run: Run) -> Outcome:
        return self.verdict(run)

    def promote(self, run: Run) -> Outcome:
        with self.lock:
            if self.latest and run.date < self.latest[-1]:
                return Outcome(False, "readers get a build of a later date")
            if not self.latest or run.date > self.latest[-1]:
                self.latest.append(run.date)
        return Outcome(True, "")

    def do_chore(self, run: Run, chore: Chore) -> None:
        with self.lock:
            self.done_chores.append((run.schedule, run.date, chore))


class ScheduleSimulation:
    """A store root with a bundle, a clock, a simulated service, and tickers on them."""

    def __init__(self, home: Path, store: Store | None = None, now: datetime = START) -> None:
        self.root = store or open_store(f"memory://scene-{uuid.uuid4().hex}/root")
        self.digest = push(open_store(str(tiny_bundle(home / f"tiny-{uuid.uuid4().hex}"))), self.root)
        self.clock = SimulatedClock(now)
        self.pool = SimulatedService(self.root, self.clock)

    def ticker(self, service: Service | None = None, who: str = "") -> Ticker:
        return Ticker(service or self.pool, self.clock, InlineExecutor(), holder=who)

    def declare(self, **fields: Any) -> StoredSchedule:
        """Store a schedule that is declared now; ``fields`` override its defaults."""
        job = {"count": 3, "destination": f"{self.root.url}/out"} | fields.pop("job", {})
        job = job if "channel" in job else {"bundle": self.digest} | job
        schedule = Schedule(**{"name": "nightly", "cron": "30 3 * * *", "job": job, "gates": None} | fields)
        stored = StoredSchedule(schedule=schedule, source=SOURCE, since=self.clock.now(), added=self.clock.now())
        update_stored(self.root, schedule.name, lambda _: stored)
        return stored

    def runs(self, name: str = "nightly") -> list[Run]:
        found = [read_run(self.root, name, date) for date in run_dates(self.root, name)]
        return [run for run in found if run is not None]

    def states(self, name: str = "nightly") -> dict[str, str]:
        return {f"{run.date:%m-%d %H:%M}": run.state for run in self.runs(name)}

    def tick_until(self, *, until: datetime, step: timedelta) -> None:
        """Run one ticker, with a tick every ``step``."""
        ticker = self.ticker()
        while self.clock.time < until:
            ticker.tick()
            self.clock.time += step

    def tick_nights(self, first: int, last: int) -> None:
        """Tick around the nightly date (03:30) of these days of January."""
        ticker = self.ticker()
        for day in range(first, last + 1):
            for minute in (29, 31, 45, 58):
                self.clock.time = datetime(2026, 1, day, 3, minute, tzinfo=UTC)
                ticker.tick()

    def finish_runs(self) -> None:
        """Tick with new tickers, six minutes apart, until all runs have ended."""
        for _ in range(10):
            self.ticker().tick()
            self.clock.advance(minutes=6)
