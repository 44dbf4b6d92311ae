"""The schedules of a tenant and their runs, as it sees them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from generator.errors import SpecError
from generator.store import absolute_url, is_remote
from workers.schedules.history import run_facts
from workers.schedules.runs import Run
from workers.schedules.store import StoredSchedule, read_stored, schedule_names
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.problems import Problem

_UPCOMING = 3


class ScheduleView(BaseModel):
    """A schedule as it is stored. ``upcoming``: its next dates; none while it is paused."""

    name: str
    paused: bool
    since: datetime
    added: datetime
    upcoming: list[datetime]
    schedule: dict[str, Any]


def tenant_schedules(context: ServerContext, caller: Caller) -> list[StoredSchedule]:
    """The schedules of the caller's tenant, ascending by name."""
    found = (read_stored(context.root, name) for name in schedule_names(context.root))
    return [stored for stored in found if stored is not None and stored.schedule.tenant == caller.tenant]


def find_schedule(context: ServerContext, caller: Caller, name: str) -> StoredSchedule:
    """A schedule of the caller's tenant. Raises ``Problem`` (404) for others, known or not."""
    stored = read_stored(context.root, name)
    if stored is None or stored.schedule.tenant != caller.tenant:
        raise Problem(404, SpecError("schedule", f"a schedule of tenant {caller.tenant}", repr(name[:100])))
    return stored


def view_schedule(context: ServerContext, caller: Caller, stored: StoredSchedule) -> ScheduleView:
    """The schedule as its tenant sees it: places by name, no URLs of webhooks."""
    document = stored.schedule.model_dump(mode="json", exclude_unset=True)
    document["notifications"] = f"{len(stored.schedule.notifications.webhooks)} webhook(s)"  # their URLs may be secret
    destination = str(stored.schedule.job.get("destination", ""))
    named = destination if is_remote(destination) else _name_of(context, caller, destination)
    document["job"] = dict(stored.schedule.job) | {"destination": named or "elsewhere"}
    if not str(document["job"].get("bundle", "sha256:")).startswith("sha256:"):
        document["job"]["bundle"] = "elsewhere"
    if isinstance(document.get("gates"), dict) and document["gates"].get("reference"):
        document["gates"]["reference"] = {
            name: context.redact(value, caller.tenant) if isinstance(value, str) else value
            for name, value in document["gates"]["reference"].items()
        }
    upcoming = [] if stored.paused else stored.schedule.upcoming(datetime.now(UTC), _UPCOMING)
    return ScheduleView(
        name=stored.schedule.name,
        paused=stored.paused,
        since=stored.since,
        added=stored.added,
        upcoming=upcoming,
        schedule=document,
    )


def _name_of(context: ServerContext, caller: Caller, destination: str) -> str | None:
    """How the tenant names a destination, which schedules hold as a URL or, from the command line, as a path."""
    if "://" in destination:
        return context.places.name_of(caller.tenant, destination)
    named = context.places.name_of(caller.tenant, absolute_url(destination)) if destination else None
    return named and unquote(named)  # a date in braces is no part of a URL


def own_run(caller: Caller, run: Run | None) -> Run | None:
    """The run, unless another tenant had a schedule of this name when it was created."""
    return run if run is not None and run.tenant in ("", caller.tenant) else None


def view_run(context: ServerContext, caller: Caller, run: Run) -> dict[str, Any]:
    """A run as its tenant sees it, as `latentmill schedule history` shows it. ``dataset``: place and name."""
    facts = run_facts(run)
    shown = {
        name: context.redact(value, caller.tenant) if isinstance(value, str) else value for name, value in facts.items()
    }
    if "dataset" in facts:
        shown["dataset"] = _dataset_name(context, caller, facts["dataset"])
    if "earlier" in facts:
        shown["earlier"] = [_view_take(context, caller, take) for take in facts["earlier"]]
    return shown


def _view_take(context: ServerContext, caller: Caller, take: dict[str, Any]) -> dict[str, Any]:
    shown = dict(take)
    if "dataset" in take:
        shown["dataset"] = _dataset_name(context, caller, take["dataset"])
    if "reason" in take:
        shown["reason"] = context.redact(take["reason"], caller.tenant)
    return shown


def _dataset_name(context: ServerContext, caller: Caller, url: str) -> str:
    if is_remote(url):
        return context.redact(url, caller.tenant)
    return context.places.name_of(caller.tenant, url) or "elsewhere"
