"""From a schedule and a date to a run with everything pinned: what moves afterwards changes nothing for it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from generator.drafts import resolve_draft
from generator.models.bundle.channels import read_channel_digest
from generator.spec.recipe import JobSpec
from generator.store.base import Store
from workers.schedules.runs import MAX_TEXT, Origin, Run
from workers.schedules.schedule import Schedule
from workers.settings import Settings


class ResolvedJob(NamedTuple):
    """The whole job of a date; the bundle lies at ``bundle``, found through ``channel`` if that is given."""

    spec: JobSpec
    bundle: Store
    channel: str | None


def resolve_job(schedule: Schedule, date: datetime, root: Store, settings: Settings) -> ResolvedJob:
    """The job of ``date``, with the digest of its bundle and every default settled.

    Raises ``InputError`` (a bundle or channel that is not there, a job that does not fit it, a place that is not
    allowed), ``StoreError``.
    """
    line = schedule.job_fields(date).get("channel")
    digest = None if line is None else read_channel_digest(root, line)
    spec, bundle = resolve_draft(schedule.job_draft(date, digest), root, settings.s3)
    settings.check_allowed(spec.order.destination)
    return ResolvedJob(spec, bundle, line)


def new_run(
    schedule: Schedule, date: datetime, now: datetime, origin: Origin, pinned: ResolvedJob | str, before: float = 0.0
) -> Run:
    """A run that is to be stored: with its job, or failed for the reason given.

    ``before``: when that job had been submitted before, in seconds since the epoch.
    """
    common = Run(
        schedule=schedule.name,
        date=date,
        zone=schedule.timezone,
        origin=origin,
        state="created",
        overlap=schedule.overlap,
        deadline=schedule.deadline_of(date) if origin == "schedule" else None,
        promote=schedule.promote,
        gates=schedule.gates,
        retention=schedule.retention,
        notifications=schedule.notifications,
        created=now,
    )
    if isinstance(pinned, str):
        return common.with_state("failed", now, reason=pinned[:MAX_TEXT], chores=("failed",))
    return common.model_copy(update={"spec": pinned.spec, "channel": pinned.channel, "before": before})
