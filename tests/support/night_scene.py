"""Nights on a small service: a schedule whose dates are run one by one, each with gates of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from generator.store import open_store
from tests.support.cli_sandbox import LENIENT_GATES
from tests.support.mill_server import SCHEDULE, MillServer
from tests.support.simulated_schedules import InlineExecutor
from workers.schedules.clock import SystemClock
from workers.schedules.manual_runs import start_run
from workers.schedules.runs import Run, read_run
from workers.schedules.service import PoolService
from workers.schedules.store import read_stored, update_stored
from workers.schedules.ticker import Ticker


@dataclass
class NightScene:
    """A schedule of tenant red. ``night`` carries out the run of one date, as a scheduler and a worker do."""

    mill: MillServer
    name: str
    cron: str = "0 4 * * *"
    zone: str = "UTC"
    job: dict[str, Any] = field(default_factory=dict)

    def declare(self, **gates: Any) -> None:
        """Store the schedule with these gates beside lenient ones."""
        job: dict[str, Any] = {**SCHEDULE["job"], "name": self.name, "shard_size": 30, "batch": 16, **self.job}
        body = {"cron": self.cron, "timezone": self.zone, "job": job, "gates": LENIENT_GATES | gates}
        path = f"/api/v1/schedules/{self.name}?replace=true"
        answer = self.mill.web.ask("PUT", path, self.mill.tokens["red-operator"], body)
        assert answer.status == 200, answer.body

    def count_from(self, since: datetime) -> None:
        """As if the schedule had been added then: after the last night, or a scheduler would catch up."""
        update_stored(self.root, self.name, lambda stored: stored and stored.model_copy(update={"since": since}))

    @property
    def root(self) -> Any:
        return open_store(self.mill.service.settings.root)

    def start(self, date: datetime) -> None:
        stored = read_stored(self.root, self.name)
        assert stored is not None
        start_run(PoolService(self.mill.service.settings), stored, date, datetime.now(UTC), "hand")

    def finish(self) -> None:
        """Carry out the runs that were started."""
        ticker = Ticker(PoolService(self.mill.service.settings), SystemClock(), InlineExecutor())
        ticker.tick()
        shards = -(-self.job.get("count", 30) // self.job.get("shard_size", 30))
        self.mill.service.serve(shards + 1)
        ticker.tick()

    def run(self, date: datetime) -> Run:
        found = read_run(self.root, self.name, date)
        assert found is not None
        return found

    def night(self, date: datetime) -> Run:
        self.start(date)
        self.finish()
        return self.run(date)


def last_dates(count: int, hour: int = 4, minute: int = 0) -> Sequence[datetime]:
    """The last ``count`` days before today at this time in UTC, ascending."""
    today = datetime.now(UTC).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return [today - timedelta(days=days) for days in range(count, 0, -1)]


def refused_night(mill: MillServer, name: str, dates: Sequence[datetime]) -> NightScene:
    """A schedule whose nights were promoted but for the last one, which the gate of images refused."""
    scene = NightScene(mill, name, zone="Europe/Berlin", cron="0 5 * * *")
    for number, date in enumerate(dates):
        scene.declare(images=20 if number < len(dates) - 1 else 5000)
        scene.night(date)
    assert scene.run(dates[-1]).state == "refused"
    return scene


@contextmanager
def scheduler(scene: NightScene) -> Iterator[None]:
    """A scheduler and a worker that carry out what is started meanwhile."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            scene.finish()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
