"""Simulated time and a simulated pool for schedules; store, bundle, jobs and runs are real ones."""

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
from workers.schedules.new_run import Pinned, pin
from workers.schedules.runs import Chore, Run, dates_of, read_run
from workers.schedules.schedule import Schedule
from workers.schedules.service import Hands, Outcome, Seen
from workers.schedules.store import Kept, change_kept
from workers.schedules.ticker import Ticker
from workers.settings import Settings

NIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SOURCE = "sha256:" + "5" * 64


class SimulatedClock(Clock):
    """Goes where it is told to."""

    def __init__(self, now: datetime = NIGHT) -> None:
        self.time, self.wrong = now, ""

    def now(self) -> datetime:
        return self.time

    def complaint(self, root: Store) -> str:
        return self.wrong

    def go(self, **span: float) -> None:
        self.time += timedelta(**span)


class Inline(Executor):
    """Long work is done at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Killed(BaseException):
    """The process was killed here."""


class SimulatedPool(Hands):
    """Builds each job in ``takes`` of the clock's time, unless Redis is ``away``."""

    def __init__(self, store: Store, clock: Clock, takes: timedelta = timedelta(minutes=10)) -> None:
        self._root, self.clock, self.takes, self.away = store, clock, takes, False
        self.settings = Settings(root=store.url)
        self.begun: dict[str, datetime] = {}
        self.specs: dict[str, JobSpec] = {}
        self.stopped: set[str] = set()
        self.submissions: list[str] = []
        self.latest: list[datetime] = []
        self.done: list[tuple[str, datetime, Chore]] = []
        self.verdict: Callable[[Run], Outcome] = lambda run: Outcome(True, "")
        self.lock = threading.Lock()

    @property
    def root(self) -> Store:
        return self._root

    def pin(self, schedule: Schedule, date: datetime) -> Pinned:
        return pin(schedule, date, self._root, self.settings)

    def look(self, spec: JobSpec) -> Seen:
        begun = self.begun.get(spec.job_id)
        if begun is None:
            return Seen("unknown")
        if spec.job_id in self.stopped:
            return Seen("cancelled", "", begun.timestamp())
        done = self.clock.now() >= begun + self.takes
        return Seen("committed" if done else "open", "", begun.timestamp())

    def submit(self, spec: JobSpec) -> None:
        if self.away:
            raise BrokerUnavailable("redis", "a Redis that answers", "none")
        with self.lock:
            self.submissions.append(spec.job_id)
            self.stopped.discard(spec.job_id)
            self.specs[spec.job_id] = spec
            self.begun.setdefault(spec.job_id, self.clock.now())

    def stop(self, job: str) -> None:
        self.stopped.add(job)

    def progress(self, job: str) -> Progress | None:
        if self.away:
            return None
        share = (self.clock.now() - self.begun[job]) / self.takes
        return Progress(int(1000 * min(1.0, share)), 1000)

    def judge(self, run: Run) -> Outcome:
        return self.verdict(run)

    def promote(self, run: Run) -> Outcome:
        with self.lock:
            if self.latest and run.date < self.latest[-1]:
                return Outcome(False, "readers get a build of a later date")
            if not self.latest or run.date > self.latest[-1]:
                self.latest.append(run.date)
        return Outcome(True, "")

    def do(self, run: Run, chore: Chore) -> None:
        with self.lock:
            self.done.append((run.schedule, run.date, chore))


class Scene:
    """A store root with a bundle in it, a clock, a simulated pool, and tickers on them."""

    def __init__(self, home: Path, store: Store | None = None, now: datetime = NIGHT) -> None:
        self.root = store or open_store(f"memory://scene-{uuid.uuid4().hex}/root")
        self.digest = push(open_store(str(tiny_bundle(home / f"tiny-{uuid.uuid4().hex}"))), self.root)
        self.clock = SimulatedClock(now)
        self.pool = SimulatedPool(self.root, self.clock)

    def ticker(self, hands: Hands | None = None, who: str = "") -> Ticker:
        return Ticker(hands or self.pool, self.clock, Inline(), who=who)

    def declare(self, **fields: Any) -> Kept:
        """A schedule that counts from now on."""
        job = {"count": 3, "destination": f"{self.root.url}/out"} | fields.pop("job", {})
        whole = job if "channel" in job else {"bundle": self.digest} | job
        given = {"name": "nightly", "cron": "30 3 * * *", "job": whole, "gates": None} | fields
        kept = Kept(schedule=Schedule(**given), source=SOURCE, since=self.clock.now(), added=self.clock.now())
        change_kept(self.root, kept.schedule.name, lambda _: kept)
        return kept

    def runs(self, name: str = "nightly") -> list[Run]:
        found = [read_run(self.root, name, date) for date in dates_of(self.root, name)]
        return [run for run in found if run is not None]

    def states(self, name: str = "nightly") -> dict[str, str]:
        return {f"{run.date:%m-%d %H:%M}": run.state for run in self.runs(name)}

    def live_through(self, *, until: datetime, step: timedelta) -> None:
        """One ticker, a pass every ``step``."""
        ticker = self.ticker()
        while self.clock.time < until:
            ticker.once()
            self.clock.time += step

    def nights(self, first: int, last: int) -> None:
        """Ticks around the nightly date of these days of January."""
        ticker = self.ticker()
        for day in range(first, last + 1):
            for minute in (29, 31, 45, 58):
                self.clock.time = datetime(2026, 1, day, 3, minute, tzinfo=UTC)
                ticker.once()

    def settle(self) -> None:
        """Other tickers go on until nothing is under way."""
        for _ in range(10):
            self.ticker().once()
            self.clock.go(minutes=6)
