"""The client's service over Redis and the store: every check before a job is submitted is made here."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from generator.drafts import (
    JobDraft,
    check_bundle_fits,
    check_named_codes,
    find_bundle,
    parse_draft,
    read_draft,
    resolve_draft,
)
from generator.drafts.first_submission import settle_published
from generator.errors import BrokerUnavailable, DatasetError, QuotaExceeded, SpecError
from generator.models.bundle import bundle_store, push, read_info
from generator.models.bundle.listing import BundleSummary, list_bundles
from generator.production.commit import BuildLocation, begin_build, locate_build, open_epoch, read_build_location
from generator.production.pipeline.run_costs import Pace, pace
from generator.production.provenance.manifest import MANIFEST_KEY
from generator.spec.plan import Plan
from generator.spec.recipe import JobSpec, Order, build_prefix
from generator.store import absolute_url, open_store
from generator.store.base import Store
from workers.client.service import Service, Submittable
from workers.client.spec_changes import change_spec
from workers.jobs.markers import (
    Marker,
    change_marker,
    create_marker,
    find_unfinished_build,
    marker_for_build,
    marker_for_job,
    read_markers,
    reopen_marker,
)
from workers.jobs.pool import Pool
from workers.jobs.preview import MAX_PREVIEW, Preview
from workers.jobs.queries import preview
from workers.jobs.status import JobStatus, status_of

_MAX_LISTED_RECEIPTS = 3000  # a call lists at most this many receipts; builds with more are left to the reconcilers


@final
class PoolClient(Service):
    """The service over Redis and the store."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(self, spec: Submittable) -> JobStatus:
        job, bundle = self.resolve(spec)
        _check_reachable(job)
        self._pool.settings.check_allowed(job.order.destination)
        self._pool.ledger.ping()
        self._pool.identity.follow()
        location = locate_build(job, self._pool.settings.s3)
        if location.store.head(MANIFEST_KEY) is not None:
            return self._committed_status(job, location)
        marker = self._submitted_marker(job)
        self._admit(job, fresh=marker is None)
        try:
            self._pool.root.check_writable()
            location.store.check_writable()
            push(bundle, self._pool.root)
            begin_build(location)
            self._open_job(job)
        except BaseException:
            with suppress(BrokerUnavailable):
                self._pool.ledger.withdraw(job.order.tenant, job.job_id)
            raise
        self._pool.top_up()
        return self.status(job.job_id)

    def status(self, job: str) -> JobStatus:
        return status_of(self._pool, job)

    def pace(self, job: str) -> Pace | None:
        return pace(open_store(self.status(job).url, self._pool.settings.s3))

    def cancel(self, job: str) -> JobStatus:
        status = self.status(job)
        if not status.ended:
            self._pool.cancel(job)
        return self.status(job)

    def pause(self, job: str) -> JobStatus:
        status = self.status(job)
        if not status.ended:
            self._pool.pause(job)
        return self.status(job)

    def resume(self, job: str, *, tenant: str = "default", new_environment: bool = False) -> JobStatus:
        self._pool.identity.follow()
        if "/" in job:
            job = self._mark_build(job, tenant)
        elif self.status(job).state == "committed":
            return self.status(job)
        if new_environment and (marker := self._pool.marker(job)) is not None:
            open_epoch(self._pool.location(marker).store)
        self._pool.resume(job, max_receipts=_MAX_LISTED_RECEIPTS)
        self._pool.top_up()
        return self.status(job)

    def jobs(self, *, tenant: str | None = None) -> list[JobStatus]:
        jobs = {marker.job for marker in read_markers(self._pool.root)} | set(self._pool.ledger.known_jobs())
        statuses = [self.status(job) for job in jobs]
        selected = [status for status in statuses if tenant in (None, status.tenant)]
        return sorted(selected, key=lambda status: status.submitted, reverse=True)

    def jobs_of(self, tenant: str) -> list[tuple[str, float]]:
        """The jobs of a tenant in the ledger or the store, and when each was submitted (seconds since the epoch)."""
        found = {marker.job: (marker.tenant, marker.submitted) for marker in read_markers(self._pool.root)}
        found |= self._pool.ledger.owners()
        return [(job, submitted) for job, (owner, submitted) in found.items() if owner == tenant]

    def preview(self, spec: Submittable, count: int, seconds: float) -> Preview:
        if not 1 <= count <= MAX_PREVIEW:
            raise SpecError("count", f"1 .. {MAX_PREVIEW}", count)
        job, bundle = self.resolve(spec)
        self._pool.settings.check_allowed(job.order.destination)
        if bundle.url != bundle_store(self._pool.root, job.recipe.bundle).url:
            push(bundle, self._pool.root)
        return preview(self._pool, job, count, seconds)

    def clone(self, job: str, changes: dict[str, Any]) -> JobStatus:
        return self.submit(self.changed_spec(job, changes))

    def bundles(self) -> list[BundleSummary]:
        return list_bundles(self._pool.root)

    def changed_spec(self, job: str, changes: dict[str, Any]) -> JobSpec:
        """The spec of a job with changes; see ``Client.clone``."""
        status = self.status(job)
        destination = status.url.removesuffix("/" + build_prefix(status.name, status.url.rpartition("/")[2]))
        location = read_build_location(open_store(status.url, self._pool.settings.s3), status.name)
        order = Order(destination=destination, name=status.name, tenant=status.tenant, priority=status.priority)
        spec = change_spec(location, order, changes)
        self._pool.settings.check_allowed(spec.order.destination)
        if "published" in changes or spec.recipe.published is None:
            return spec
        dataset = open_store(spec.order.destination, self._pool.settings.s3).at(spec.order.name)
        return spec.model_copy(update={"recipe": settle_published(dataset, spec.recipe)})

    def resolve(self, spec: Submittable) -> tuple[JobSpec, Store]:
        """The job spec of anything that ``submit`` takes, and the store of its bundle. Raises ``InputError``."""
        root, s3 = self._pool.root, self._pool.settings.s3
        if isinstance(spec, JobSpec):
            order = spec.order.model_copy(update={"destination": absolute_url(spec.order.destination)})
            spec = spec.model_copy(update={"order": order})
            bundle = find_bundle(spec.recipe.bundle, root, s3)
            info = read_info(bundle, spec.recipe.bundle)[1]
            check_bundle_fits(spec.recipe, info)
            check_named_codes(spec, bundle, info)
            return spec, bundle
        if isinstance(spec, (str, Path)):
            draft = read_draft(spec)
        else:
            draft = spec if isinstance(spec, JobDraft) else parse_draft(spec)
        self._pool.settings.check_allowed(absolute_url(draft.destination))
        return resolve_draft(draft, root, s3)

    def _submitted_marker(self, job: JobSpec) -> Marker | None:
        """The marker of this job, if it was submitted before. Raises ``SpecError`` if another tenant submitted it."""
        found, ours = self._pool.marker(job.job_id), _new_marker(job)
        if found is not None and not found.is_same_build(ours):
            raise SpecError(
                "tenant",
                f"a build that belongs to no other tenant than {ours.tenant}",
                f"the open job {found.job} of tenant {found.tenant} for {found.name} at {found.destination}",
                "the same recipe at the same place is one build: follow that job, or choose another name",
            )
        return found

    def _admit(self, job: JobSpec, *, fresh: bool) -> None:
        order, images = job.order, job.recipe.total
        refusal = self._pool.ledger.admit(order.tenant, job.job_id, images, fresh=fresh)
        if refusal is None:
            return
        if refusal.quota == "queued_jobs":
            expected, got = (
                f"at most {refusal.limit} unfinished jobs of tenant {order.tenant}",
                f"{refusal.used} of them",
            )
            hint = "wait until one of them ends, or cancel one"
        else:
            expected = f"at most {refusal.limit:,} images a day of tenant {order.tenant}"
            got = f"{images:,} more than the {refusal.used:,} of today"
            fits = images <= refusal.limit
            when = f"in {refusal.seconds / 3600:.1f} hours, at midnight UTC"
            hint = f"submit it again {when}" if fits else "ask for fewer images, or for a larger quota"
        raise QuotaExceeded(refusal.quota, expected, got, hint)

    def _open_job(self, job: JobSpec) -> None:
        """Write the marker first, then the ledger: the reconcilers repair a crash in between from the marker."""
        create_marker(self._pool.root, _new_marker(job))
        found = self._submitted_marker(job)  # another tenant may have submitted it at the same time
        if found is None:  # the job was committed in between
            return
        if found.intent in ("cancelled", "failed"):
            found = reopen_marker(self._pool.root, job.job_id, priority=job.order.priority)
        elif found.priority != job.order.priority:
            update = {"priority": job.order.priority}
            found = change_marker(self._pool.root, job.job_id, lambda marker: marker.model_copy(update=update))
        if found is not None and found.intent == "open":
            self._pool.activate(found, max_receipts=_MAX_LISTED_RECEIPTS)

    def _mark_build(self, url: str, tenant: str) -> str:
        """Create a marker for the build at ``url``; return its job id. Raises ``DatasetError``, ``BundleError``."""
        destination, name, location = find_unfinished_build(
            self._pool.settings.check_allowed(url), self._pool.settings.s3
        )
        if location.store.head(MANIFEST_KEY) is not None:
            raise DatasetError("build", "a build that is not finished", f"a committed one at {location.url}")
        read_info(find_bundle(location.recipe.bundle, self._pool.root, self._pool.settings.s3), location.recipe.bundle)
        marker = marker_for_build(location, destination, name, tenant, time.time())
        return create_marker(self._pool.root, marker).job

    def _committed_status(self, spec: JobSpec, location: BuildLocation) -> JobStatus:
        facts, shards = self._pool.ledger.facts(spec.job_id), Plan(spec.recipe).shard_count
        return JobStatus(
            job=spec.job_id,
            state="committed",
            name=spec.order.name,
            tenant=facts.get("tenant", spec.order.tenant),
            url=location.url,
            shards=shards,
            shards_done=shards,
            shards_running=0,
            samples=spec.recipe.total,
            samples_done=spec.recipe.total,
            submitted=float(facts.get("submitted", 0.0)),
        )


def _new_marker(job: JobSpec) -> Marker:
    return marker_for_job(job, Plan(job.recipe).shard_count, time.time())


def _check_reachable(spec: JobSpec) -> None:
    if spec.order.destination.startswith("memory://"):
        raise SpecError("destination", "a path, or the URL of a service", spec.order.destination)
