"""What `latentmill up` shows: what is running, what is next, what became of the last day's runs.

A thread of its own looks at store and ledger, so that a slow one never keeps Ctrl-C waiting. In a terminal the picture
stays in its place; elsewhere, in a log say, each change is a line.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from generator.errors import LatentmillError
from workers.client import Client
from workers.jobs.markers import read_markers
from workers.jobs.pool import Pool
from workers.jobs.status import JobStatus
from workers.schedules.history import local_text, runs_since
from workers.schedules.runs import Run, read_run
from workers.schedules.store import read_stored, schedule_names
from workers.settings import Settings

_REFRESH_SECONDS = 3.0  # seconds between two looks
_MAX_ROWS = 12  # rows of a table
_DAY = timedelta(days=1)
_COLOURS = {"promoted": "green", "kept": "green", "refused": "yellow", "skipped": "yellow", "failed": "red"}


@dataclass(frozen=True)
class DashboardState:
    """The service at one moment: unfinished jobs, the next date of each schedule, the last day's runs by date."""

    jobs: tuple[JobStatus, ...] = ()
    upcoming: tuple[tuple[datetime, str, str], ...] = ()  # when, local text, name
    runs: tuple[Run, ...] = ()
    trouble: str = ""


def read_state(client: Client, pool: Pool, now: datetime, before: DashboardState) -> DashboardState:
    """How things stand. Runs of older dates, begun by hand, are followed from ``before``, so that their end is seen.

    Raises ``OutsideError`` when Redis or the store is away.
    """
    open_jobs = [marker.job for marker in read_markers(pool.root) if marker.intent in ("open", "paused")]
    jobs = tuple(status for job in open_jobs[:_MAX_ROWS] if not (status := client.status(job)).ended)
    upcoming, runs = list[tuple[datetime, str, str]](), list[Run]()
    for name in schedule_names(pool.root):
        kept = read_stored(pool.root, name)
        if kept is None:
            continue
        schedule = kept.schedule
        dates = [] if kept.paused else schedule.upcoming(now, 1)
        upcoming += [(date, local_text(date, schedule.timezone), name) for date in dates]
        runs += runs_since(pool.root, name, now - _DAY, now)
    runs += _followed_runs(pool, before, {(run.schedule, run.date) for run in runs}, now - _DAY)
    return DashboardState(jobs, tuple(sorted(upcoming)), tuple(sorted(runs, key=lambda run: run.date)))


def _followed_runs(
    pool: Pool, before: DashboardState, seen: set[tuple[str, datetime]], since: datetime
) -> Iterator[Run]:
    """The other runs of ``before``, as they are now, but those that ended earlier than ``since``."""
    for each in before.runs:
        if (each.schedule, each.date) not in seen:
            run = each if each.has_ended else read_run(pool.root, each.schedule, each.date)
            if run is not None and (run.ended is None or run.ended >= since):
                yield run


@final
class Dashboard:
    """Looks every few seconds while the block runs; ``show`` puts on the screen what was seen last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state, self._shown = DashboardState(), DashboardState()
        self._stopped, self._console = threading.Event(), Console()
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __enter__(self) -> Dashboard:
        threading.Thread(target=self._run, name="watch", daemon=True).start()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the last picture where it is."""
        self._stopped.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self) -> None:
        """Put the newest picture on the screen, if it is another one."""
        picture = self._state
        if picture == self._shown:
            return
        if self._live is not None:
            self._live.update(render(picture), refresh=True)
        elif not self._console.is_terminal:
            for line in change_lines(self._shown, picture):
                click.echo(line)
        self._shown = picture

    def _run(self) -> None:
        client, pool = Client(self._settings), Pool(self._settings)
        while True:
            try:
                self._state = read_state(client, pool, datetime.now(UTC), self._state)
            except LatentmillError as away:
                last = self._state
                self._state = DashboardState(last.jobs, last.upcoming, last.runs, str(away))
            if self._stopped.wait(_REFRESH_SECONDS):
                return


def render(picture: DashboardState) -> Group:
    """The picture as three tables."""
    running = _table("running", "job", "state", "images", "tenant")
    for job in picture.jobs:
        running.add_row(job.job, job.state, f"{job.samples_done:,}/{job.samples:,}", job.tenant)
    upcoming = _table("next", "date", "schedule")
    for _, text, name in picture.upcoming[:_MAX_ROWS]:
        upcoming.add_row(text, name)
    last = _table("the last day", "date", "schedule", "state", "why")
    for run in reversed(picture.runs[-_MAX_ROWS:]):  # a low terminal cuts the oldest off
        colour = _COLOURS.get(run.state, "")
        last.add_row(local_text(run.date, run.zone), run.schedule, Text(run.state, style=colour), _reason_text(run))
    tables = [
        each if each.row_count else Text(f"{each.title}: nothing", style="dim") for each in (running, upcoming, last)
    ]
    return Group(*tables, *([Text(picture.trouble, style="red")] if picture.trouble else []))


def change_lines(before: DashboardState, now: DashboardState) -> Iterator[str]:
    """A line for each run and job that stands otherwise than before, and for trouble that came or went."""
    runs = {(run.schedule, run.date): (run.state, run.at_risk) for run in before.runs}
    for run in now.runs:
        if runs.get((run.schedule, run.date)) != (run.state, run.at_risk):
            why = _reason_text(run)
            yield f"{run.schedule} {local_text(run.date, run.zone)}: {run.state}{': ' if why else ''}{why}"
    jobs = {job.job: job.state for job in before.jobs}
    for job in now.jobs:
        if jobs.get(job.job) != job.state:
            yield f"job {job.job}: {job.state}, {job.samples_done:,} of {job.samples:,} images"
    known = {(name, date) for date, _, name in before.upcoming}
    for date, text, name in now.upcoming:
        if (name, date) not in known:
            yield f"{name}: next at {text}"
    if now.trouble != before.trouble:
        yield now.trouble or "all is well again"


def _reason_text(run: Run) -> str:
    parts = (run.reason, run.note if not run.has_ended else "", f"at risk: {run.at_risk}" if run.at_risk else "")
    return "; ".join(part for part in parts if part)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "date")
    return table
