"""Decisions about builds and schedules, for routes and pages alike: each one is written to the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

from generator.datasets.promotion import DatasetState, pin, promote, read_state, rollback, unpin
from generator.datasets.promotion.promote import PromotionResult
from generator.errors import SpecError
from generator.spec.canonical import canonical_json, digest_of
from generator.spec.recipe import JobSpec
from generator.store.base import Store
from workers.jobs.status import JobStatus
from workers.schedules.declare import declare
from workers.schedules.manual_runs import parse_date, start_run
from workers.schedules.runs import Run
from workers.schedules.service import PoolService
from workers.schedules.store import StoredSchedule, read_stored, update_stored
from workers.server.audited import Change, audited
from workers.server.builds import check_build_id
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.jobs import find_job
from workers.server.problems import Problem
from workers.server.schedule_bodies import narrow_schedule
from workers.server.schedules import find_schedule

Decision = Literal["pause", "resume", "cancel"]  # about a job
DECISIONS: tuple[Decision, ...] = get_args(Decision)
# What the audit log says of a promotion: only the first one changed what readers get.
_PROMOTED = {
    "moved": "done",
    "already": "no change",
    "older": "not promoted: older than what readers get",
    "withdrawn": "not promoted: rolled back before",
}


def submit(context: ServerContext, spec: JobSpec, change: Change) -> JobStatus:
    """Submit a job, or find the same one; ``change`` is told which. Raises ``InputError``, ``OutsideError``."""
    known = context.pool.marker(spec.job_id) is not None
    status = context.client.submit(spec)
    change.note(job=status.job, state=status.state)
    change.check(changed=not known and status.state != "committed")
    return status


def decide_job(
    context: ServerContext, caller: Caller, job: str, decision: Decision, *, new_environment: bool = False
) -> JobStatus:
    """Pause, resume or cancel a job of the tenant. Raises ``Problem`` (404), ``OutsideError``, ``BuildError``."""
    with audited(caller, f"{decision} job", job=job) as change:
        before = find_job(context, caller, job).state
        if decision == "resume":
            status = context.client.resume(job, tenant=caller.tenant, new_environment=new_environment)
        else:
            status = context.client.pause(job) if decision == "pause" else context.client.cancel(job)
        change.note(state=status.state)
        change.check(changed=status.state != before or new_environment)
        return status


def promote_build(
    context: ServerContext,
    caller: Caller,
    dataset: str,
    build: str,
    *,
    logical_date: datetime | None = None,
    again: bool = False,
) -> PromotionResult:
    """Make a build the one that readers get, whatever its gates found. ``again``: also if it was rolled back.

    Raises ``DatasetError``, ``StoreError``, ``SpecError``, ``AccessRefused``.
    """
    with audited(caller, "promote", dataset=dataset, build=build) as change:
        store = context.dataset(caller.tenant, dataset)
        done = promote(store, check_build_id(build), logical_date=logical_date, by=caller.name, again=again)
        change.outcome = _PROMOTED[done.outcome]
        return done


def roll_back(
    context: ServerContext, caller: Caller, dataset: str, *, to: str | None = None, undo: bool = False
) -> DatasetState:
    """Go back to the build promoted before, or to the build ``to``; ``undo``: revert the last rollback, if it brings
    ``to`` back (if given).

    Raises ``DatasetError``, ``BuildConflict``, ``StoreError``, ``SpecError``, ``AccessRefused``.
    """
    with audited(caller, "undo rollback" if undo else "rollback", dataset=dataset, build=to) as change:
        store = context.dataset(caller.tenant, dataset)
        state = rollback(store, by=caller.name, to=to and check_build_id(to), undo=undo)
        change.note(build=state.build)
        return state


def pin_build(context: ServerContext, caller: Caller, dataset: str, build: str, *, note: str = "") -> DatasetState:
    """Protect a build from retention. Raises ``DatasetError``, ``StoreError``, ``SpecError``, ``AccessRefused``."""
    with audited(caller, "pin", dataset=dataset, build=build) as change:
        store = context.dataset(caller.tenant, dataset)
        change.check(changed=not _is_pinned(store, build))
        return pin(store, check_build_id(build), by=caller.name, note=note)


def unpin_build(context: ServerContext, caller: Caller, dataset: str, build: str) -> DatasetState:
    """Remove the pin of a build, if it has one. Raises as ``pin_build`` does."""
    with audited(caller, "unpin", dataset=dataset, build=build) as change:
        store = context.dataset(caller.tenant, dataset)
        change.check(changed=_is_pinned(store, build))
        return unpin(store, check_build_id(build)) or DatasetState(by_promotion=False)


def run_date(context: ServerContext, caller: Caller, name: str, date: str | None, *, fresh: bool = False) -> Run:
    """Start the run of one date (default: now), or restart one that ended without a promoted build.

    ``fresh``: resolve the job again. Raises ``Problem`` (404), ``InputError``, ``StoreError``.
    """
    now = datetime.now(UTC)
    with audited(caller, "run schedule", schedule=name, date=date or "now", fresh=fresh or None) as change:
        stored = find_schedule(context, caller, name)
        moment = parse_date(stored.schedule, date, now)
        change.note(date=moment.isoformat())
        return start_run(PoolService(context.settings, has_torch=False), stored, moment, now, "hand", fresh=fresh)


def put_schedule(
    context: ServerContext, caller: Caller, name: str, body: dict[str, Any], *, replace: bool = False
) -> StoredSchedule:
    """Add a schedule of the tenant, or ``replace`` it: ``body`` has the fields of a schedule file.

    Raises ``InputError``, ``StoreError``, ``WorkerUnavailable``.
    """
    with audited(caller, "add schedule", schedule=name, replace=replace or None) as change:
        schedule = narrow_schedule(context, caller, {"name": name} | body)
        if schedule.name != name:
            raise SpecError("name", f"the name in the path, {name}, or none", schedule.name)
        stored = read_stored(context.root, name)
        if stored is not None and stored.schedule.tenant != caller.tenant:
            raise SpecError("name", "a name that no other schedule has", name)
        source, now = digest_of(canonical_json(body)), datetime.now(UTC)
        change.check(changed=stored is None or stored.source != source)
        return declare(schedule, source, context.root, context.settings, now, replace=replace, workers=context.pool)


def hold_schedule(context: ServerContext, caller: Caller, name: str, *, held: bool) -> StoredSchedule:
    """Pause or resume a schedule; returns it as it is stored then. Raises ``Problem`` (404), ``StoreError``."""

    def change(stored: StoredSchedule | None) -> StoredSchedule | None:
        return stored and stored.model_copy(update={"held": held})

    with audited(caller, "pause schedule" if held else "resume schedule", schedule=name) as line:
        line.check(changed=find_schedule(context, caller, name).held != held)
        changed = update_stored(context.root, name, change)
        if changed is None:
            raise Problem(404, SpecError("schedule", "a schedule", f"{name}, which was removed meanwhile"))
        return changed


def _is_pinned(store: Store, build: str) -> bool:
    state = read_state(store)
    return state is not None and build in state.pinned
