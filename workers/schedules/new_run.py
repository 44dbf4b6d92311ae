"""Creates runs: resolves a schedule and a date to a complete job, which later changes do not affect."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from generator.drafts import JobDraft, find_bundle, resolve_draft
from generator.drafts.references import has_map
from generator.models.bundle import bundle_store, read_info
from generator.models.bundle.channels import read_channel_digest
from generator.spec.recipe import JobSpec
from generator.store import absolute_url
from generator.store.base import Store
from workers.jobs.pool import Pool
from workers.jobs.queries import resolve
from workers.schedules.runs import MAX_TEXT, Origin, Run
from workers.schedules.schedule import Schedule
from workers.settings import Settings


class ResolvedJob(NamedTuple):
    """The complete job of a date; ``bundle``: where its bundle is stored; ``channel``: where that came from, if any."""

    spec: JobSpec
    bundle: Store
    channel: str | None


def resolve_job(
    schedule: Schedule, date: datetime, root: Store, settings: Settings, workers: Pool | None = None
) -> ResolvedJob:
    """The job of ``date``, with the digest of its bundle and every default filled in; by default it is published on
    that date, in the schedule's time zone.

    ``workers``: they resolve a draw that needs the map of a bundle, and so torch, which servers do not have; else this
    process does. Raises ``InputError`` (a missing bundle or channel, a job that does not fit the bundle, a destination
    that is not allowed), ``StoreError``, ``WorkerUnavailable``.
    """
    line = schedule.job_fields(date).get("channel")
    digest = None if line is None else read_channel_digest(root, line)
    draft = schedule.job_draft(date, digest)
    settings.check_allowed(absolute_url(draft.destination))
    day = schedule.timetable.to_local(date).date()
    if workers is not None and _needs_map(draft, root, settings):
        spec = resolve(workers, draft.model_dump(mode="json", exclude_unset=True), {}, day=day)
        return ResolvedJob(spec, bundle_store(root, spec.recipe.bundle), line)
    spec, bundle = resolve_draft(draft, root, settings.s3, day=day)
    return ResolvedJob(spec, bundle, line)


def _needs_map(draft: JobDraft, root: Store, settings: Settings) -> bool:
    if draft.draw.mode not in ("around", "between"):
        return False
    bundle = find_bundle(draft.bundle, root, settings.s3)
    return has_map(read_info(bundle, draft.bundle if draft.bundle.startswith("sha256:") else None)[1])


def new_run(
    schedule: Schedule, date: datetime, now: datetime, origin: Origin, job: ResolvedJob | str, before: float = 0.0
) -> Run:
    """A new run, not stored yet. ``job``: its resolved job, or the reason for which it has failed.

    ``before``: when that job was first submitted, in seconds since the epoch; 0 if it was not.
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
    if isinstance(job, str):
        named = {"reason": job[:MAX_TEXT], "without_job": schedule.tenant}
        return common.with_state("failed", now, chores=("failed",), **named)
    return common.model_copy(update={"spec": job.spec, "channel": job.channel, "before": before})
