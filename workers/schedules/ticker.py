"""The ticker: creates the runs of due dates and advances every unfinished run. Any number of tickers may run.

It has no state but caches. Every decision is a conditional write per date, so there is at most one run a date even if
tickers disagree, crash or pause for years.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import final

from generator.errors import LatentmillError, OutsideError
from workers.schedules.clock import Clock
from workers.schedules.due_dates import Decision, decide_dates
from workers.schedules.folder import ScheduleFolder
from workers.schedules.lifecycle import HOLD_TIME, RunLifecycle
from workers.schedules.new_run import new_run
from workers.schedules.runs import (
    Origin,
    Run,
    RunMarker,
    create_run,
    live_markers,
    read_run,
    remove_marker,
    restart_run,
)
from workers.schedules.service import Service
from workers.schedules.store import (
    CURSORS,
    DECLARED,
    StoredSchedule,
    move_cursor,
    names_and_etags,
    read_cursor,
    read_stored,
)

log = logging.getLogger(__name__)

GRACE = timedelta(minutes=5)  # a date is on time for this long
_POLL_SECONDS = 0.2  # interval of checks for a stop request or finished background work
_STALE_AFTER = timedelta(days=2)  # a marker without a run this old was left by a crashed ticker


@final
class Ticker:
    """One of the tickers of a store root."""

    def __init__(
        self,
        service: Service,
        clock: Clock,
        executor: Executor,
        *,
        interval: float = 5.0,
        folder: ScheduleFolder | None = None,
        holder: str = "",
    ) -> None:
        self._service, self._clock, self._interval, self._folder = service, clock, interval, folder
        holder = holder or f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lifecycle = RunLifecycle(
            service, clock, executor, holder, max(HOLD_TIME, timedelta(seconds=4 * interval))
        )
        self._grace = max(GRACE, timedelta(seconds=3 * interval))
        self._schedules: dict[str, tuple[str, StoredSchedule]] = {}  # by name: etag and content
        self._cursors: dict[str, tuple[str, datetime | None]] = {}
        self._recheck_from: dict[str, datetime] = {}
        self._last_tick = time.monotonic()
        self._reported: dict[str, str] = {}  # the last error of each schedule, so that it is logged once

    def run(self, stopped: threading.Event) -> None:
        """Tick until ``stopped`` is set."""
        while True:
            self._last_tick = time.monotonic()
            try:
                self.tick()
                self._report("", "")
            except LatentmillError as error:
                self._report("", str(error))
            except Exception:
                log.exception("unexpected error; trying again")
            while not stopped.wait(_POLL_SECONDS):
                if self._lifecycle.background_done.is_set() or self.seconds_since_tick() > self._interval:
                    break
            else:
                return

    def seconds_since_tick(self) -> float:
        """Seconds since the last pass started."""
        return time.monotonic() - self._last_tick

    def tick(self) -> None:
        """One pass. Raises ``StoreError`` if the store is unavailable."""
        self._lifecycle.background_done.clear()
        if self._folder is not None:
            self._folder.sync(self._service.root, self._clock.now())
        self._refresh()
        live, decided = self._live_runs(), False
        for name, (_, stored) in self._schedules.items():
            with self._isolated(name):
                decided |= self._decide(stored, [run for run in live.get(name, ()) if run.origin == "schedule"])
        for name, runs in (self._live_runs() if decided else live).items():
            earlier: list[Run] = []
            for run in runs:
                with self._isolated(f"{name}/{run.date:%Y-%m-%dT%H:%MZ}"):
                    run = self._lifecycle.advance(run.marker, earlier) or run
                earlier += [] if run.has_ended else [run]

    def _refresh(self) -> None:
        """Read the schedules and cursors that have changed."""
        root, schedules = self._service.root, {}
        for name, etag in names_and_etags(root, DECLARED):
            known = self._schedules.get(name)
            if known is not None and known[0] == etag:
                schedules[name] = known
                continue
            with self._isolated(name):
                if (stored := read_stored(root, name)) is not None:
                    schedules[name] = (etag, stored)
        self._schedules = schedules
        etags = dict(names_and_etags(root, CURSORS))
        for name in schedules:
            etag, (cursor, _) = etags.get(name, ""), self._cursors.get(name, ("?", None))
            if etag != cursor:
                self._cursors[name] = (etag, read_cursor(root, name))

    def _live_runs(self) -> dict[str, list[Run]]:
        """Runs with work left, by schedule, ascending by date."""
        found: dict[str, list[Run]] = defaultdict(list)
        for marker, written in live_markers(self._service.root):
            with self._isolated(f"{marker.schedule}/{marker.date:%Y-%m-%dT%H:%MZ}"):
                run = read_run(self._service.root, marker.schedule, marker.date)
                if run is not None and run.take == marker.take:
                    found[marker.schedule].append(run)
                else:
                    self._remove_if_stale(marker, run, written)
        return found

    def _remove_if_stale(self, marker: RunMarker, run: Run | None, written: datetime) -> None:
        if (run is not None and run.take > marker.take) or self._clock.now() - written > _STALE_AFTER:
            remove_marker(self._service.root, marker)

    def _decide(self, stored: StoredSchedule, live: list[Run]) -> bool:
        """Decide about the dates that are due; returns whether there were any."""
        name, now = stored.schedule.name, self._clock.now()
        _, cursor = self._cursors[name]
        recheck = self._needs_recheck(name, cursor, now)
        through = cursor if cursor is None or not recheck else min(cursor, now - self._grace)
        active = [run.date for run in live if not run.has_ended]
        decisions, decided = decide_dates(stored, through, now, active, self._grace)
        is_ahead = cursor is not None and cursor > now + self._grace
        if not decisions and not is_ahead:
            return False
        if warning := self._clock.skew_warning(self._service.root):
            self._report("clock", f"{warning}; no run is started until they agree")
            return False
        self._report("clock", "")
        for decision in decisions:
            self._write_run(stored, decision, now)
        if is_ahead:
            move_cursor(self._service.root, name, cursor, now)
        elif decided is not None and (cursor is None or decided > cursor):
            move_cursor(self._service.root, name, cursor, decided)
        return bool(decisions)

    def _needs_recheck(self, name: str, cursor: datetime | None, now: datetime) -> bool:
        """Whether a ticker with a fast clock may have decided dates that are due only now; they are checked again."""
        if cursor is not None and cursor > now:
            self._recheck_from[name] = min(cursor, now + self._grace)
        if name in self._recheck_from and now > self._recheck_from[name] + self._grace:
            del self._recheck_from[name]
        return name in self._recheck_from

    def _write_run(self, stored: StoredSchedule, decision: Decision, now: datetime) -> None:
        """Write the run of a date, unless it has one. A date that a wrong clock skipped early is run when due."""
        root, schedule = self._service.root, stored.schedule
        existing = read_run(root, schedule.name, decision.date)
        if existing is not None and not (decision.on_time and existing.state == "skipped" and existing.why == "missed"):
            return
        if not decision.should_run:
            skipped = new_run(schedule, decision.date, now, "schedule", "").with_state("skipped", now)
            update = {"why": decision.why, "reason": decision.reason, "until": decision.until, "chores": ()}
            create_run(root, skipped.model_copy(update=update))
            log.warning("%s: %s skipped: %s", schedule.name, decision.date.isoformat(), decision.reason)
            return
        run = prepare_run(self._service, stored, decision.date, now)
        if existing is None:
            create_run(root, run)
        else:
            restart_run(root, existing, run)

    @contextmanager
    def _isolated(self, subject: str) -> Iterator[None]:
        """Report an error of one schedule, so that it does not stop the others."""
        try:
            yield
        except LatentmillError as error:
            self._report(subject, str(error))
        except Exception as error:
            if self._reported.get(subject) != repr(error):
                log.exception("%s: unexpected error; trying again", subject)
            self._reported[subject] = repr(error)
        else:
            self._reported.pop(subject, None)

    def _report(self, subject: str, message: str) -> None:
        if message and self._reported.get(subject) != message:
            log.error("%s", f"{subject}: {message}" if subject else message)
        self._reported[subject] = message


def prepare_run(
    service: Service, stored: StoredSchedule, date: datetime, now: datetime, origin: Origin = "schedule"
) -> Run:
    """The run of a date with its resolved job; a failed run, with the reason, if the job cannot be resolved.

    Raises ``OutsideError`` if the store is unavailable.
    """
    try:
        job = service.resolve_job(stored.schedule, date)
    except OutsideError:
        raise
    except LatentmillError as error:
        return new_run(stored.schedule, date, now, origin, str(error))
    return new_run(stored.schedule, date, now, origin, job, service.job_state(job.spec).submitted)
