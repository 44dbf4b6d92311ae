"""The state machine of a run: one conditional write per transition, so that any ticker can continue it.

created ─► submitted ─► committed ─► judged ─► promoted
   │           │            │           └────► kept       its gates hold, ``latest`` did not move
   │           │            └────────────────► refused    its gates do not hold
   └───────────┴─────────────────────────────► failed, cancelled, replaced

Gates and chores may take minutes: they run in a background thread, and the ticker holds the run meanwhile.
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

HOLD_TIME = timedelta(minutes=1)  # of one hold; it is renewed, or expires after a crash
_RETRY_AFTER, _RETRY_AFTER_BUG = timedelta(minutes=1), timedelta(minutes=5)  # before a failed task is retried

Change = Callable[[Run], Run | None]


@final
class RunLifecycle:
    """Advances runs. ``holder``: name of this ticker; ``executor`` runs the background work.

    ``hold_time``: duration of one hold; ``advance`` must be called again within half of it.
    """

    def __init__(
        self, service: Service, clock: Clock, executor: Executor, holder: str, hold_time: timedelta = HOLD_TIME
    ) -> None:
        self._service, self._clock, self._executor = service, clock, executor
        self._holder, self._hold_time = holder, hold_time
        self._max_hold = max(hold_time, _RETRY_AFTER, _RETRY_AFTER_BUG)
        self._busy: dict[RunMarker, Future[None]] = {}
        self.background_done = threading.Event()  # set when background work has ended

    def advance(self, marker: RunMarker, earlier: Sequence[Run]) -> Run | None:
        """Advance a run as far as possible now; returns the result.

        ``earlier``: unfinished runs of its schedule with earlier dates. Raises
        ``StoreError``; any other error is recorded in the run.
        """
        run = read_run(self._service.root, marker.schedule, marker.date)
        if run is None or run.take != marker.take:
            if run is not None and run.take > marker.take:
                remove_marker(self._service.root, marker)
            return None
        while (advanced := self._step(run, earlier)) is not None and advanced != run:
            run = advanced
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
        except (OutsideError, SettingsError) as error:
            return self._note_waiting(run, str(error)[:MAX_TEXT])
        except LatentmillError as error:
            return self._end(run, "failed", str(error))

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
        blocking = next((each for each in earlier if _must_wait_for(each, run)), None)
        if blocking is not None:
            return self._note_waiting(run, f"the run of {blocking.date:%Y-%m-%d %H:%M} UTC has not ended")
        job = self._service.job_state(run.spec)
        if job.state == "committed":
            return self._set_state(run, "committed")
        if job.state == "unknown" or job.submitted == run.before:
            self._service.submit(run.spec)
        advanced = self._set_state(run, "submitted")
        if advanced is not None and advanced.state == "replaced":  # by a later run, meanwhile
            self._service.cancel(run.spec.job_id)
        return advanced

    def _poll_job(self, run: Run) -> Run | None:
        assert run.spec is not None
        job = self._service.job_state(run.spec)
        if job.state == "committed":
            return self._set_state(run, "committed")
        if job.state == "unknown":  # its marker was lost: submit it again
            self._service.submit(run.spec)
        elif job.state in ("cancelled", "failed"):
            return self._end(run, job.state, job.error or f"the job was {job.state}")
        return self._note_waiting(run, "the job is paused" if job.state == "paused" else "")

    def _note_waiting(self, run: Run, note: str) -> Run | None:
        """Record what the run waits for, and whether its deadline is at risk."""
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
        """End ``older`` in favour of ``run``; ``False`` if it cannot be replaced."""
        assert older.spec is not None
        assert run.spec is not None
        if older.state not in ("created", "submitted") or older.origin != "schedule":
            return False
        if older.spec.job_id != run.spec.job_id and self._service.job_state(older.spec).state in ("open", "paused"):
            self._service.cancel(older.spec.job_id)
        ended = self._end(older, "replaced", f"the run of {run.date:%Y-%m-%d %H:%M} UTC replaced it")
        return ended is not None and ended.has_ended

    def _check_gates(self, run: Run) -> Change:
        outcome = self._service.check_gates(run)
        if outcome.ok:
            return lambda now: now.with_state("judged", self._clock.now())
        return self._end_change("refused", outcome.reason)

    def _promote(self, run: Run) -> Run | None:
        if not run.promote:
            return self._end(run, "kept", "the schedule has promote: false")
        outcome = self._service.promote(run)
        return self._end(run, "promoted" if outcome.ok else "kept", outcome.reason)

    def _do_chore(self, run: Run) -> Change:
        chore = run.chores[0]
        try:
            self._service.do_chore(run, chore)
        except (OutsideError, SettingsError):
            raise
        except LatentmillError as error:
            log.error("%s: %s: %s", _run_label(run), chore, error)
        left: dict[str, object] = {"held_by": "", "held_until": None}
        return lambda now: now.model_copy(update=left | {"chores": tuple(each for each in now.chores if each != chore)})

    def _start_background(self, run: Run, work: Callable[[Run], Change]) -> Run | None:
        """Hold the run and start ``work`` in the background, unless another ticker holds it."""
        update: dict[str, object] = {"held_by": self._holder, "held_until": self._clock.now() + self._hold_time}

        def hold(now: Run) -> Run | None:
            needed = bool(now.chores) or work != self._do_chore
            return now.model_copy(update=update) if needed and not self._is_held(now) else None

        held_run = self._change(run, hold)
        if held_run is None or (held_run.held_by, held_run.held_until) != tuple(update.values()):
            return None
        self._busy[run.marker] = future = self._executor.submit(self._run_background, held_run, work)
        future.add_done_callback(lambda _: self.background_done.set())
        return read_run(self._service.root, run.schedule, run.date) if future.done() else None

    def _run_background(self, run: Run, work: Callable[[Run], Change]) -> None:
        try:
            change = work(run)
        except (OutsideError, SettingsError) as error:
            log.warning("%s: %s", _run_label(run), error)
            change = _retry_later(str(error), self._clock.now() + _RETRY_AFTER)
        except LatentmillError as error:
            change = self._end_change("failed", str(error))
        except Exception as error:
            log.exception("%s: unexpected error", _run_label(run))
            change = _retry_later(f"{type(error).__name__}: {error}", self._clock.now() + _RETRY_AFTER_BUG)
        try:
            self._change(run, change, state=work == self._check_gates)
        except LatentmillError as error:  # the outcome is lost; the hold expires and the work is done again
            log.warning("%s: %s", _run_label(run), error)

    def _is_busy(self, run: Run) -> bool:
        """Whether this ticker is working on the run; if so, its hold is renewed when necessary."""
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
        """Whether a ticker holds the run. A hold longer than possible is from a wrong clock, and ignored."""
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
        """Change the run if its ``take`` and (with ``state``) its state are still the same; returns the result."""

        def changed(now: Run) -> Run | None:
            same = now.take == run.take and (now.state == run.state or not state)
            return change(now) if same else None

        return update_run(self._service.root, run.schedule, run.date, changed)


def _must_wait_for(earlier: Run, run: Run) -> bool:
    """Whether ``run`` waits for ``earlier``: both are of the schedule, or both of a backfill."""
    if run.overlap == "replace" and run.origin == "schedule":
        return False
    return earlier.origin == run.origin != "hand"


def _chores_after(state: str, run: Run) -> tuple[Chore, ...]:
    if state in ("promoted", "kept"):
        return ("retain", "succeeded") if run.retention is not None else ("succeeded",)
    return {"refused": ("refused",), "failed": ("failed",)}.get(state, ())  # type: ignore[return-value]


def _retry_later(note: str, until: datetime) -> Change:
    """A change that releases the hold and allows no retry before ``until``."""
    return lambda now: now.model_copy(update={"note": note[:MAX_TEXT], "held_by": "", "held_until": until})


def _run_label(run: Run) -> str:
    return f"{run.schedule} {run.date:%Y-%m-%dT%H:%MZ}"
