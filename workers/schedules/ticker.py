"""The ticker: looks which dates have come, makes their runs, takes every unfinished run further. Any number may run.

It keeps nothing but caches. What it decides is written conditionally, date by date, so that tickers that disagree, die,
or come back after years have at most one run for each date between them.
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

GRACE = timedelta(minutes=5)  # a date is on time for so long
_POLL_SECONDS = 0.2  # seconds; how soon a ticker hears that it is to stop, or that work aside is done
_STALE_AFTER = timedelta(days=2)  # a mark without a run is of one who died before he made it


@final
class Ticker:
    """One of the tickers of a store root."""

    def __init__(
        self,
        hands: Service,
        clock: Clock,
        aside: Executor,
        *,
        every: float = 5.0,
        folder: ScheduleFolder | None = None,
        who: str = "",
    ) -> None:
        self._service, self._clock, self._interval, self._folder = hands, clock, every, folder
        who = who or f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lifecycle = RunLifecycle(hands, clock, aside, who, max(HOLD_TIME, timedelta(seconds=4 * every)))
        self._grace = max(GRACE, timedelta(seconds=3 * every))
        self._schedules: dict[str, tuple[str, StoredSchedule]] = {}  # by name: etag and content
        self._cursors: dict[str, tuple[str, datetime | None]] = {}
        self._recheck_from: dict[str, datetime] = {}
        self._last_tick = time.monotonic()
        self._reported: dict[str, str] = {}  # the last trouble of each schedule, not to repeat it every few seconds

    def run(self, stopped: threading.Event) -> None:
        """Tick until ``stopped``."""
        while True:
            self._last_tick = time.monotonic()
            try:
                self.tick()
                self._report("", "")
            except LatentmillError as away:
                self._report("", str(away))
            except Exception:
                log.exception("unexpected; trying again")
            while not stopped.wait(_POLL_SECONDS):
                if self._lifecycle.background_done.is_set() or self.seconds_since_tick() > self._interval:
                    break
            else:
                return

    def seconds_since_tick(self) -> float:
        """Seconds since the last pass began."""
        return time.monotonic() - self._last_tick

    def tick(self) -> None:
        """One pass. Raises ``StoreError`` when the store is away."""
        self._lifecycle.background_done.clear()
        if self._folder is not None:
            self._folder.sync(self._service.root, self._clock.now())
        self._refresh()
        live, decided = self._live_runs(), False
        for name, (_, kept) in self._schedules.items():
            with self._isolated(name):
                decided |= self._decide(kept, [run for run in live.get(name, ()) if run.origin == "schedule"])
        for name, runs in (self._live_runs() if decided else live).items():
            earlier: list[Run] = []
            for run in runs:
                with self._isolated(f"{name}/{run.date:%Y-%m-%dT%H:%MZ}"):
                    run = self._lifecycle.advance(run.marker, earlier) or run
                earlier += [] if run.has_ended else [run]

    def _refresh(self) -> None:
        """Read again what has changed."""
        root, schedules = self._service.root, {}
        for name, etag in names_and_etags(root, DECLARED):
            known = self._schedules.get(name)
            if known is not None and known[0] == etag:
                schedules[name] = known
                continue
            with self._isolated(name):
                if (kept := read_stored(root, name)) is not None:
                    schedules[name] = (etag, kept)
        self._schedules = schedules
        etags = dict(names_and_etags(root, CURSORS))
        for name in schedules:
            etag, (seen, _) = etags.get(name, ""), self._cursors.get(name, ("?", None))
            if etag != seen:
                self._cursors[name] = (etag, read_cursor(root, name))

    def _live_runs(self) -> dict[str, list[Run]]:
        """Runs that something is left to do for, by schedule, ascending by date."""
        found: dict[str, list[Run]] = defaultdict(list)
        for mark, marked in live_markers(self._service.root):
            with self._isolated(f"{mark.schedule}/{mark.date:%Y-%m-%dT%H:%MZ}"):
                run = read_run(self._service.root, mark.schedule, mark.date)
                if run is not None and run.take == mark.take:
                    found[mark.schedule].append(run)
                else:
                    self._remove_if_stale(mark, run, marked)
        return found

    def _remove_if_stale(self, mark: RunMarker, run: Run | None, marked: datetime) -> None:
        if (run is not None and run.take > mark.take) or self._clock.now() - marked > _STALE_AFTER:
            remove_marker(self._service.root, mark)

    def _decide(self, kept: StoredSchedule, live: list[Run]) -> bool:
        """Decide about the dates that have come; whether there were any."""
        name, now = kept.schedule.name, self._clock.now()
        _, seen = self._cursors[name]
        doubted = self._needs_recheck(name, seen, now)
        through = seen if seen is None or not doubted else min(seen, now - self._grace)
        going = [run.date for run in live if not run.has_ended]
        decisions, decided = decide_dates(kept, through, now, going, self._grace)
        back = seen is not None and seen > now + self._grace
        if not decisions and not back:
            return False
        if complaint := self._clock.skew_warning(self._service.root):
            self._report("clock", f"{complaint}; nothing is begun until they agree")
            return False
        self._report("clock", "")
        for decision in decisions:
            self._write_run(kept, decision, now)
        if back:
            move_cursor(self._service.root, name, seen, now)
        elif decided is not None and (seen is None or decided > seen):
            move_cursor(self._service.root, name, seen, decided)
        return bool(decisions)

    def _needs_recheck(self, name: str, seen: datetime | None, now: datetime) -> bool:
        """Whether a clock ahead of ours has decided about dates that come only now: they are looked at again."""
        if seen is not None and seen > now:
            self._recheck_from[name] = min(seen, now + self._grace)
        if name in self._recheck_from and now > self._recheck_from[name] + self._grace:
            del self._recheck_from[name]
        return name in self._recheck_from

    def _write_run(self, kept: StoredSchedule, decision: Decision, now: datetime) -> None:
        """Write the run of a date, unless it has one. One that was skipped by a wrong clock is taken up on its time."""
        root, schedule = self._service.root, kept.schedule
        there = read_run(root, schedule.name, decision.date)
        if there is not None and not (decision.on_time and there.state == "skipped" and there.why == "missed"):
            return
        if not decision.should_run:
            skipped = new_run(schedule, decision.date, now, "schedule", "").with_state("skipped", now)
            update = {"why": decision.why, "reason": decision.reason, "until": decision.until, "chores": ()}
            create_run(root, skipped.model_copy(update=update))
            log.warning("%s: %s skipped: %s", schedule.name, decision.date.isoformat(), decision.reason)
            return
        run = prepare_run(self._service, kept, decision.date, now)
        if there is None:
            create_run(root, run)
        else:
            restart_run(root, there, run.model_copy(update={"take": there.take + 1}))

    @contextmanager
    def _isolated(self, what: str) -> Iterator[None]:
        """Trouble with one schedule does not keep the others waiting."""
        try:
            yield
        except LatentmillError as trouble:
            self._report(what, str(trouble))
        except Exception as bug:
            if self._reported.get(what) != repr(bug):
                log.exception("%s: unexpected; trying again", what)
            self._reported[what] = repr(bug)
        else:
            self._reported.pop(what, None)

    def _report(self, what: str, trouble: str) -> None:
        if trouble and self._reported.get(what) != trouble:
            log.error("%s", f"{what}: {trouble}" if what else trouble)
        self._reported[what] = trouble


def prepare_run(
    hands: Service, kept: StoredSchedule, date: datetime, now: datetime, origin: Origin = "schedule"
) -> Run:
    """The run of a date with its job pinned; failed already, with the reason, where there can be none.

    Raises ``OutsideError`` where that cannot be told now.
    """
    try:
        pinned = hands.resolve_job(kept.schedule, date)
    except OutsideError:
        raise
    except LatentmillError as final:
        return new_run(kept.schedule, date, now, origin, str(final))
    return new_run(kept.schedule, date, now, origin, pinned, hands.job_state(pinned.spec).submitted)
