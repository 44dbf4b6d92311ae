"""The display of `latentmill up`: unfinished jobs, the next dates of schedules, the runs of the last day.

A background thread reads store and ledger, so that slow ones do not delay Ctrl-C. In a terminal, tables are updated in
place; elsewhere, for example in a log, each change is a line.
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

_REFRESH_SECONDS = 3.0  # seconds between two updates
_MAX_ROWS = 12  # rows of a table
_DAY = timedelta(days=1)
_COLOURS = {"promoted": "green", "kept": "green", "refused": "yellow", "skipped": "yellow", "failed": "red"}


@dataclass(frozen=True)
class DashboardState:
    """The displayed state: unfinished jobs, the next date of each schedule, the runs of the last day by date."""

    jobs: tuple[JobStatus, ...] = ()
    upcoming: tuple[tuple[datetime, str, str], ...] = ()  # date, its local text, schedule name
    runs: tuple[Run, ...] = ()
    trouble: str = ""


def read_state(client: Client, pool: Pool, now: datetime, before: DashboardState) -> DashboardState:
    """The current state. Runs of older dates, which were started by hand, are taken from ``before`` until they end.

    Raises ``OutsideError`` if Redis or the store is unavailable.
    """
    open_jobs = [marker.job for marker in read_markers(pool.root) if marker.intent in ("open", "paused")]
    jobs = tuple(status for job in open_jobs[:_MAX_ROWS] if not (status := client.status(job)).ended)
    upcoming, runs = list[tuple[datetime, str, str]](), list[Run]()
    for name in schedule_names(pool.root):
        stored = read_stored(pool.root, name)
        if stored is None:
            continue
        schedule = stored.schedule
        dates = [] if stored.paused else schedule.upcoming(now, 1)
        upcoming += [(date, local_text(date, schedule.timezone), name) for date in dates]
        runs += runs_since(pool.root, name, now - _DAY, now)
    runs += _followed_runs(pool, before, {(run.schedule, run.date) for run in runs}, now - _DAY)
    return DashboardState(jobs, tuple(sorted(upcoming)), tuple(sorted(runs, key=lambda run: run.date)))


def _followed_runs(
    pool: Pool, before: DashboardState, seen: set[tuple[str, datetime]], since: datetime
) -> Iterator[Run]:
    """The other runs of ``before`` in their current state, without those that ended earlier than ``since``."""
    for each in before.runs:
        if (each.schedule, each.date) not in seen:
            run = each if each.has_ended else read_run(pool.root, each.schedule, each.date)
            if run is not None and (run.ended is None or run.ended >= since):
                yield run


@final
class Dashboard:
    """A context manager that reads the state every few seconds; ``show`` displays the last one."""

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
        """Stop updating; the last display stays on the screen."""
        self._stopped.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def show(self) -> None:
        """Display the newest state, if it has changed."""
        state = self._state
        if state == self._shown:
            return
        if self._live is not None:
            self._live.update(render(state), refresh=True)
        elif not self._console.is_terminal:
            for line in change_lines(self._shown, state):
                click.echo(line)
        self._shown = state

    def _run(self) -> None:
        client, pool = Client(self._settings), Pool(self._settings)
        while True:
            try:
                self._state = read_state(client, pool, datetime.now(UTC), self._state)
            except LatentmillError as error:
                last = self._state
                self._state = DashboardState(last.jobs, last.upcoming, last.runs, str(error))
            if self._stopped.wait(_REFRESH_SECONDS):
                return


def render(state: DashboardState) -> Group:
    """The state as three tables."""
    running = _table("running", "job", "state", "images", "tenant")
    for job in state.jobs:
        running.add_row(job.job, job.state, f"{job.samples_done:,}/{job.samples:,}", job.tenant)
    upcoming = _table("next", "date", "schedule")
    for _, text, name in state.upcoming[:_MAX_ROWS]:
        upcoming.add_row(text, name)
    last = _table("last day", "date", "schedule", "state", "why")
    for run in reversed(state.runs[-_MAX_ROWS:]):  # newest first: a low terminal cuts the end off
        colour = _COLOURS.get(run.state, "")
        last.add_row(local_text(run.date, run.zone), run.schedule, Text(run.state, style=colour), _reason_text(run))
    tables = [
        each if each.row_count else Text(f"{each.title}: nothing", style="dim") for each in (running, upcoming, last)
    ]
    return Group(*tables, *([Text(state.trouble, style="red")] if state.trouble else []))


def change_lines(before: DashboardState, now: DashboardState) -> Iterator[str]:
    """A line for each run and job whose state has changed, and for an error that appeared or went away."""
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
        yield now.trouble or "no error any more"


def _reason_text(run: Run) -> str:
    parts = (run.reason, run.note if not run.has_ended else "", f"at risk: {run.at_risk}" if run.at_risk else "")
    return "; ".join(part for part in parts if part)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "date")
    return table
