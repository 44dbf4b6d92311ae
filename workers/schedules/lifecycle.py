"""The life of a run, one conditional write a step; whoever dies between two steps is continued by any ticker.

created ─► submitted ─► committed ─► judged ─► promoted
   │           │            │           └────► kept       its gates hold, ``latest`` stands at a later date
   │           │            └────────────────► refused    its gates do not hold
   └───────────┴─────────────────────────────► failed, cancelled, replaced

Judging and what follows a state may take minutes: such work is done aside, by whoever holds the run for a while.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from datetime import datetime, timedelta
from typing import final

from generator.errors import LatentmillError, OutsideError, SettingsError
from workers.schedules.clock import Clock
from workers.schedules.deadlines import deadline_risk
from workers.schedules.runs import MAX_TEXT, Chore, Run, RunMarker, read_run, remove_marker, update_run
from workers.schedules.service import Service

log = logging.getLogger(__name__)

HOLD_TIME = timedelta(
    minutes=1
)  # for so long, at a time, a ticker holds a run that it works on: so late is it taken over
_RETRY_AFTER, _RETRY_AFTER_BUG = timedelta(minutes=1), timedelta(minutes=5)  # before somebody tries what failed again

Change = Callable[[Run], Run | None]


@final
class RunLifecycle:
    """Takes runs further. ``who`` names this ticker; ``aside`` is where long work is done.

    ``held``: a run is held for so long at a time, which ``advance`` has to come back within half of.
    """

    def __init__(self, hands: Service, clock: Clock, aside: Executor, who: str, held: timedelta = HOLD_TIME) -> None:
        self._service, self._clock, self._executor, self._holder, self._hold_time = hands, clock, aside, who, held
        self._max_hold = max(held, _RETRY_AFTER, _RETRY_AFTER_BUG)
        self._busy: dict[RunMarker, Future[None]] = {}
        self.background_done = threading.Event()  # work aside has ended

    def advance(self, mark: RunMarker, earlier: Sequence[Run]) -> Run | None:
        """Take a run as far as it goes now; how it is then. ``earlier``: unfinished runs of its schedule before it.

        Raises ``StoreError``; any other trouble is noted in the run.
        """
        run = read_run(self._service.root, mark.schedule, mark.date)
        if run is None or run.take != mark.take:
            if run is not None and run.take > mark.take:
                remove_marker(self._service.root, mark)
            return None
        while (further := self._step(run, earlier)) is not None and further != run:
            run = further
        return run

    def _step(self, run: Run, earlier: Sequence[Run]) -> Run | None:
        if run.is_done:
            remove_marker(self._service.root, run.marker)
            self._busy.pop(run.marker, None)
            return None
        if run.chores and not self._is_busy(run) and not self._is_held(run):
            done = self._start_background(run, self._do_chore)
            if done is not None or run.has_ended:
                return done
        if run.has_ended or self._is_busy(run):
            return None
        try:
            return self._next_state(run, earlier)
        except (OutsideError, SettingsError) as away:
            return self._note_waiting(run, str(away)[:MAX_TEXT])
        except LatentmillError as final:
            return self._end(run, "failed", str(final))

    def _next_state(self, run: Run, earlier: Sequence[Run]) -> Run | None:
        match run.state:
            case "created":
                return self._submit(run, earlier)
            case "submitted":
                return self._poll_job(run)
            case "committed":
                if run.gates is None:
                    return self._change(run, lambda now: now.with_state("judged", self._clock.now()))
                return self._start_background(run, self._check_gates)
            case "judged":
                return self._promote(run)
        raise AssertionError(run.state)

    def _submit(self, run: Run, earlier: Sequence[Run]) -> Run | None:
        assert run.spec is not None
        if run.overlap == "replace" and run.origin == "schedule":
            earlier = [each for each in earlier if not self._try_replace(each, run)]
        ahead = next((each for each in earlier if _must_wait_for(each, run)), None)
        if ahead is not None:
            return self._note_waiting(run, f"the run of {ahead.date:%Y-%m-%d %H:%M} UTC is going on")
        seen = self._service.job_state(run.spec)
        if seen.state == "committed":
            return self._set_state(run, "committed")
        if seen.state == "unknown" or seen.submitted == run.before:
            self._service.submit(run.spec)
        further = self._set_state(run, "submitted")
        if further is not None and further.state == "replaced":  # while we were at it
            self._service.cancel(run.spec.job_id)
        return further

    def _poll_job(self, run: Run) -> Run | None:
        assert run.spec is not None
        seen = self._service.job_state(run.spec)
        if seen.state == "committed":
            return self._set_state(run, "committed")
        if seen.state == "unknown":  # the store lost it; it is still wanted
            self._service.submit(run.spec)
        elif seen.state in ("cancelled", "failed"):
            return self._end(run, seen.state, seen.error or f"the job was {seen.state}")
        return self._note_waiting(run, "the job is paused" if seen.state == "paused" else "")

    def _note_waiting(self, run: Run, note: str) -> Run | None:
        """Nothing to do but to look at the clock, and to say what is waited for."""
        at_risk = "" if run.at_risk or run.deadline is None else self._deadline_risk(run)
        if not at_risk and note == run.note:
            return None
        if note:
            log.info("%s: waits: %s", _run_label(run), note)
        update: dict[str, object] = {"note": note}
        if at_risk:
            log.warning("%s: deadline at risk: %s", _run_label(run), at_risk)
            update |= {"at_risk": at_risk, "chores": (*run.chores, "at_risk")}
        return self._change(run, lambda now: now.model_copy(update=update))

    def _deadline_risk(self, run: Run) -> str:
        assert run.spec is not None
        progress = self._service.progress(run.spec.job_id) if run.state == "submitted" else None
        return deadline_risk(run, self._clock.now(), progress)

    def _try_replace(self, older: Run, run: Run) -> bool:
        """Whether ``older`` has made room."""
        assert older.spec is not None
        assert run.spec is not None
        if older.state not in ("created", "submitted") or older.origin != "schedule":
            return False
        if older.spec.job_id != run.spec.job_id and self._service.job_state(older.spec).state in ("open", "paused"):
            self._service.cancel(older.spec.job_id)
        ended = self._end(older, "replaced", f"the run of {run.date:%Y-%m-%d %H:%M} UTC took its place")
        return ended is not None and ended.has_ended

    def _check_gates(self, run: Run) -> Change:
        outcome = self._service.check_gates(run)
        if outcome.ok:
            return lambda now: now.with_state("judged", self._clock.now())
        return self._end_change("refused", outcome.reason)

    def _promote(self, run: Run) -> Run | None:
        if not run.promote:
            return self._end(run, "kept", "this schedule leaves promotion to people")
        outcome = self._service.promote(run)
        return self._end(run, "promoted" if outcome.ok else "kept", outcome.reason)

    def _do_chore(self, run: Run) -> Change:
        chore = run.chores[0]
        try:
            self._service.do_chore(run, chore)
        except (OutsideError, SettingsError):
            raise
        except LatentmillError as final:
            log.error("%s: %s: %s", _run_label(run), chore, final)
        left: dict[str, object] = {"held_by": "", "held_until": None}
        return lambda now: now.model_copy(update=left | {"chores": tuple(each for each in now.chores if each != chore)})

    def _start_background(self, run: Run, work: Callable[[Run], Change]) -> Run | None:
        """Hold the run and do ``work`` aside, unless somebody else holds it; its outcome is the next state."""
        held: dict[str, object] = {"held_by": self._holder, "held_until": self._clock.now() + self._hold_time}

        def hold(now: Run) -> Run | None:
            wanted = bool(now.chores) or work != self._do_chore
            return now.model_copy(update=held) if wanted and not self._is_held(now) else None

        mine = self._change(run, hold)
        if mine is None or (mine.held_by, mine.held_until) != tuple(held.values()):
            return None
        self._busy[run.marker] = future = self._executor.submit(self._run_background, mine, work)
        future.add_done_callback(lambda _: self.background_done.set())
        return read_run(self._service.root, run.schedule, run.date) if future.done() else None

    def _run_background(self, run: Run, work: Callable[[Run], Change]) -> None:
        try:
            change = work(run)
        except (OutsideError, SettingsError) as away:
            log.warning("%s: %s", _run_label(run), away)
            change = _retry_later(str(away), self._clock.now() + _RETRY_AFTER)
        except LatentmillError as final:
            change = self._end_change("failed", str(final))
        except Exception as bug:
            log.exception("%s: unexpected", _run_label(run))
            change = _retry_later(f"{type(bug).__name__}: {bug}", self._clock.now() + _RETRY_AFTER_BUG)
        try:
            self._change(run, change, state=work == self._check_gates)
        except LatentmillError as away:  # the outcome is lost, the hold runs out, and somebody does it again
            log.warning("%s: %s", _run_label(run), away)

    def _is_busy(self, run: Run) -> bool:
        """Whether we are at it ourselves; the run is held on then, as long as it takes."""
        future = self._busy.get(run.marker)
        if future is None:
            return False
        if future.done():
            del self._busy[run.marker]
            return False
        now = self._clock.now()
        if run.held_by == self._holder and run.held_until is not None and run.held_until - now < self._hold_time / 2:
            self._change(run, lambda each: each.model_copy(update={"held_until": now + self._hold_time}))
        return True

    def _is_held(self, run: Run) -> bool:
        """Whether somebody is at it; what is held for longer than anybody holds is of a broken clock."""
        now = self._clock.now()
        return run.held_until is not None and now < run.held_until <= now + self._max_hold

    def _set_state(self, run: Run, state: str) -> Run | None:
        log.info("%s: %s", _run_label(run), state)
        return self._change(run, lambda now: now.with_state(state, self._clock.now()))  # type: ignore[arg-type]

    def _end(self, run: Run, state: str, reason: str) -> Run | None:
        level = logging.INFO if state in ("promoted", "kept") else logging.WARNING
        log.log(level, "%s: %s%s", _run_label(run), state, f": {reason}" if reason else "")
        return self._change(run, self._end_change(state, reason))

    def _end_change(self, state: str, reason: str) -> Change:
        def ended(now: Run) -> Run:
            chores = (*now.chores, *_chores_after(state, now))
            return now.with_state(state, self._clock.now(), reason=reason[:MAX_TEXT], chores=chores)  # type: ignore[arg-type]

        return ended

    def _change(self, run: Run, change: Change, *, state: bool = True) -> Run | None:
        """Change the run if it is still the same taking-up, and in the ``state`` that we know; how it is then."""

        def changed(now: Run) -> Run | None:
            same = now.take == run.take and (now.state == run.state or not state)
            return change(now) if same else None

        return update_run(self._service.root, run.schedule, run.date, changed)


def _must_wait_for(earlier: Run, run: Run) -> bool:
    """Whether ``run`` waits for ``earlier``: both come by themselves, or both are of a backfill."""
    if run.overlap == "replace" and run.origin == "schedule":
        return False
    return earlier.origin == run.origin != "hand"


def _chores_after(state: str, run: Run) -> tuple[Chore, ...]:
    if state in ("promoted", "kept"):
        return ("retain", "succeeded") if run.retention is not None else ("succeeded",)
    return {"refused": ("refused",), "failed": ("failed",)}.get(state, ())  # type: ignore[return-value]


def _retry_later(note: str, until: datetime) -> Change:
    """Nobody tries again before ``until``."""
    return lambda now: now.model_copy(update={"note": note[:MAX_TEXT], "held_by": "", "held_until": until})


def _run_label(run: Run) -> str:
    return f"{run.schedule} {run.date:%Y-%m-%dT%H:%MZ}"
