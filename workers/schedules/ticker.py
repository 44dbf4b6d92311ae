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
from workers.schedules.due_dates import Decision, decide
from workers.schedules.folder import Folder
from workers.schedules.lifecycle import HELD, Steps
from workers.schedules.new_run import new_run
from workers.schedules.runs import Mark, Origin, Run, create_run, marks, read_run, take_up, unmark
from workers.schedules.service import Hands
from workers.schedules.store import CURSORS, DECLARED, Kept, listed, move_cursor, read_cursor, read_kept

log = logging.getLogger(__name__)

GRACE = timedelta(minutes=5)  # a date is on time for so long
_SLICE = 0.2  # seconds; how soon a ticker hears that it is to stop, or that work aside is done
_FORGOTTEN = timedelta(days=2)  # a mark without a run is of one who died before he made it


@final
class Ticker:
    """One of the tickers of a store root."""

    def __init__(
        self,
        hands: Hands,
        clock: Clock,
        aside: Executor,
        *,
        every: float = 5.0,
        folder: Folder | None = None,
        who: str = "",
    ) -> None:
        self._hands, self._clock, self._every, self._folder = hands, clock, every, folder
        who = who or f"{socket.gethostname()[:100]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._steps = Steps(hands, clock, aside, who, max(HELD, timedelta(seconds=4 * every)))
        self._grace = max(GRACE, timedelta(seconds=3 * every))
        self._schedules: dict[str, tuple[str, Kept]] = {}  # by name: etag and content
        self._cursors: dict[str, tuple[str, datetime | None]] = {}
        self._doubts: dict[str, datetime] = {}
        self._began = time.monotonic()
        self._said: dict[str, str] = {}  # the last trouble of each schedule, not to repeat it every few seconds

    def run(self, stopped: threading.Event) -> None:
        """Tick until ``stopped``."""
        while True:
            self._began = time.monotonic()
            try:
                self.once()
                self._say("", "")
            except LatentmillError as away:
                self._say("", str(away))
            except Exception:
                log.exception("unexpected; trying again")
            while not stopped.wait(_SLICE):
                if self._steps.news.is_set() or self.silent() > self._every:
                    break
            else:
                return

    def silent(self) -> float:
        """Seconds since the last pass began."""
        return time.monotonic() - self._began

    def once(self) -> None:
        """One pass. Raises ``StoreError`` when the store is away."""
        self._steps.news.clear()
        if self._folder is not None:
            self._folder.bring_in(self._hands.root, self._clock.now())
        self._refresh()
        live, decided = self._live(), False
        for name, (_, kept) in self._schedules.items():
            with self._apart(name):
                decided |= self._decide(kept, [run for run in live.get(name, ()) if run.origin == "schedule"])
        for name, runs in (self._live() if decided else live).items():
            earlier: list[Run] = []
            for run in runs:
                with self._apart(f"{name}/{run.date:%Y-%m-%dT%H:%MZ}"):
                    run = self._steps.advance(run.mark, earlier) or run
                earlier += [] if run.over else [run]

    def _refresh(self) -> None:
        """Read again what has changed."""
        root, schedules = self._hands.root, {}
        for name, etag in listed(root, DECLARED):
            known = self._schedules.get(name)
            if known is not None and known[0] == etag:
                schedules[name] = known
                continue
            with self._apart(name):
                if (kept := read_kept(root, name)) is not None:
                    schedules[name] = (etag, kept)
        self._schedules = schedules
        etags = dict(listed(root, CURSORS))
        for name in schedules:
            etag, (seen, _) = etags.get(name, ""), self._cursors.get(name, ("?", None))
            if etag != seen:
                self._cursors[name] = (etag, read_cursor(root, name))

    def _live(self) -> dict[str, list[Run]]:
        """Runs that something is left to do for, by schedule, ascending by date."""
        found: dict[str, list[Run]] = defaultdict(list)
        for mark, marked in marks(self._hands.root):
            with self._apart(f"{mark.schedule}/{mark.date:%Y-%m-%dT%H:%MZ}"):
                run = read_run(self._hands.root, mark.schedule, mark.date)
                if run is not None and run.take == mark.take:
                    found[mark.schedule].append(run)
                else:
                    self._is_stale(mark, run, marked)
        return found

    def _is_stale(self, mark: Mark, run: Run | None, marked: datetime) -> None:
        if (run is not None and run.take > mark.take) or self._clock.now() - marked > _FORGOTTEN:
            unmark(self._hands.root, mark)

    def _decide(self, kept: Kept, live: list[Run]) -> bool:
        """Decide about the dates that have come; whether there were any."""
        name, now = kept.schedule.name, self._clock.now()
        _, seen = self._cursors[name]
        doubted = self._is_doubted(name, seen, now)
        through = seen if seen is None or not doubted else min(seen, now - self._grace)
        going = [run.date for run in live if not run.over]
        decisions, decided = decide(kept, through, now, going, self._grace)
        back = seen is not None and seen > now + self._grace
        if not decisions and not back:
            return False
        if complaint := self._clock.complaint(self._hands.root):
            self._say("clock", f"{complaint}; nothing is begun until they agree")
            return False
        self._say("clock", "")
        for decision in decisions:
            self._settle(kept, decision, now)
        if back:
            move_cursor(self._hands.root, name, seen, now)
        elif decided is not None and (seen is None or decided > seen):
            move_cursor(self._hands.root, name, seen, decided)
        return bool(decisions)

    def _is_doubted(self, name: str, seen: datetime | None, now: datetime) -> bool:
        """Whether a clock ahead of ours has decided about dates that come only now: they are looked at again."""
        if seen is not None and seen > now:
            self._doubts[name] = min(seen, now + self._grace)
        if name in self._doubts and now > self._doubts[name] + self._grace:
            del self._doubts[name]
        return name in self._doubts

    def _settle(self, kept: Kept, decision: Decision, now: datetime) -> None:
        """Write the run of a date, unless it has one. One that was skipped by a wrong clock is taken up on its time."""
        root, schedule = self._hands.root, kept.schedule
        there = read_run(root, schedule.name, decision.date)
        if there is not None and not (decision.on_time and there.state == "skipped" and there.why == "missed"):
            return
        if not decision.runs:
            skipped = new_run(schedule, decision.date, now, "schedule", "").at("skipped", now)
            update = {"why": decision.why, "reason": decision.reason, "until": decision.until, "chores": ()}
            create_run(root, skipped.model_copy(update=update))
            log.warning("%s: %s skipped: %s", schedule.name, decision.date.isoformat(), decision.reason)
            return
        run = planned(self._hands, kept, decision.date, now)
        if there is None:
            create_run(root, run)
        else:
            take_up(root, there, run.model_copy(update={"take": there.take + 1}))

    @contextmanager
    def _apart(self, what: str) -> Iterator[None]:
        """Trouble with one schedule does not keep the others waiting."""
        try:
            yield
        except LatentmillError as trouble:
            self._say(what, str(trouble))
        except Exception as bug:
            if self._said.get(what) != repr(bug):
                log.exception("%s: unexpected; trying again", what)
            self._said[what] = repr(bug)
        else:
            self._said.pop(what, None)

    def _say(self, what: str, trouble: str) -> None:
        if trouble and self._said.get(what) != trouble:
            log.error("%s", f"{what}: {trouble}" if what else trouble)
        self._said[what] = trouble


def planned(hands: Hands, kept: Kept, date: datetime, now: datetime, origin: Origin = "schedule") -> Run:
    """The run of a date with its job pinned; failed already, with the reason, where there can be none.

    Raises ``OutsideError`` where that cannot be told now.
    """
    try:
        pinned = hands.pin(kept.schedule, date)
    except OutsideError:
        raise
    except LatentmillError as final:
        return new_run(kept.schedule, date, now, origin, str(final))
    return new_run(kept.schedule, date, now, origin, pinned, hands.look(pinned.spec).begun)
