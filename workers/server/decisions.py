"""Decisions about builds and schedules, for routes and pages alike: each one is written to the audit log."""

from __future__ import annotations

from datetime import UTC, datetime

from generator.datasets.promotion import DatasetState, pin, promote, rollback, unpin
from generator.datasets.promotion.promote import PromotionResult
from generator.errors import SpecError
from workers.schedules.manual_runs import parse_date, start_run
from workers.schedules.runs import Run
from workers.schedules.service import PoolService
from workers.schedules.store import StoredSchedule, update_stored
from workers.server.audited import audited
from workers.server.builds import check_build_id
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.problems import Problem
from workers.server.schedules import find_schedule


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
    with audited(caller, "promote", dataset=dataset, build=build):
        store = context.dataset(caller.tenant, dataset)
        return promote(store, check_build_id(build), logical_date=logical_date, by=caller.name, again=again)


def roll_back(
    context: ServerContext, caller: Caller, dataset: str, *, to: str | None = None, undo: bool = False
) -> DatasetState:
    """Go back to the build promoted before, or to the build ``to``; ``undo``: revert the last rollback, if it brings
    ``to`` back (if given).

    Raises ``DatasetError``, ``BuildConflict``, ``StoreError``, ``SpecError``, ``AccessRefused``.
    """
    with audited(caller, "undo rollback" if undo else "rollback", dataset=dataset, build=to or "the one before"):
        store = context.dataset(caller.tenant, dataset)
        return rollback(store, by=caller.name, to=to and check_build_id(to), undo=undo)


def pin_build(context: ServerContext, caller: Caller, dataset: str, build: str, *, note: str = "") -> DatasetState:
    """Protect a build from retention. Raises ``DatasetError``, ``StoreError``, ``SpecError``, ``AccessRefused``."""
    with audited(caller, "pin", dataset=dataset, build=build):
        store = context.dataset(caller.tenant, dataset)
        return pin(store, check_build_id(build), by=caller.name, note=note)


def unpin_build(context: ServerContext, caller: Caller, dataset: str, build: str) -> DatasetState:
    """Remove the pin of a build, if it has one. Raises as ``pin_build`` does."""
    with audited(caller, "unpin", dataset=dataset, build=build):
        store = context.dataset(caller.tenant, dataset)
        return unpin(store, check_build_id(build)) or DatasetState(by_promotion=False)


def run_date(context: ServerContext, caller: Caller, name: str, date: str | None, *, fresh: bool = False) -> Run:
    """Start the run of one date (default: now), or restart one that ended without a promoted build.

    ``fresh``: resolve the job again. Raises ``Problem`` (404), ``InputError``, ``StoreError``.
    """
    now = datetime.now(UTC)
    with audited(caller, "run schedule", schedule=name, date=date or "now"):
        stored = find_schedule(context, caller, name)
        moment = parse_date(stored.schedule, date, now)
        return start_run(PoolService(context.settings), stored, moment, now, "hand", fresh=fresh)


def hold_schedule(context: ServerContext, caller: Caller, name: str, *, held: bool) -> StoredSchedule:
    """Pause or resume a schedule; returns it as it is stored then. Raises ``Problem`` (404), ``StoreError``."""

    def change(stored: StoredSchedule | None) -> StoredSchedule | None:
        return stored and stored.model_copy(update={"held": held})

    with audited(caller, "pause schedule" if held else "resume schedule", schedule=name):
        find_schedule(context, caller, name)
        changed = update_stored(context.root, name, change)
        if changed is None:
            raise Problem(404, SpecError("schedule", "a schedule", f"{name}, which was removed meanwhile"))
        return changed
