"""The Python client: submit jobs, follow them, cancel them. Importing this file does not import torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generator.bundle import push, read_info
from generator.drafts import JobDraft, check_fits, draft_of, find_bundle, read_draft, resolve
from generator.errors import JobFailed, SpecError
from generator.plan import Plan
from generator.publish import BuildPlace, begin, committed, place_of
from generator.spec import JobSpec
from generator.store.base import Store
from workers.markers import marker_of, markers, open_marker
from workers.pool import Pool
from workers.settings import Settings, load_settings
from workers.status import JobStatus, status_of

Submittable = JobSpec | JobDraft | dict[str, Any] | str | Path


class Client:
    """A user's end of the service.

    Settings come from the environment (``LATENTMILL_...``) unless given. Every method raises typed errors:
    ``InputError`` for what the caller can mend, ``OutsideError`` when Redis or the store is away.

    >>> client = Client()
    >>> job = client.submit({"bundle": "digits.bundle", "count": 1000, "destination": "out", "name": "digits"})
    >>> client.wait(job.job).url
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._pool = Pool(settings or load_settings())

    def submit(self, spec: Submittable) -> JobStatus:
        """Hand a job to the pool: a ``JobSpec``, a ``JobDraft``, its fields, or the path of a YAML file.

        A local bundle is pushed to the store root first. The same spec submitted again is the same job: committed,
        it is returned as it is; cancelled or failed, it is taken up again where it stopped. Nothing is written
        before spec, bundle, Redis, root and destination have been checked.
        """
        job, bundle = self._resolved(spec)
        _check_reachable(job)
        self._pool.ledger.ping()
        place = place_of(job, self._pool.settings.s3)
        if committed(place) is not None:
            return _committed_status(job, place)
        self._pool.root.check_writable()
        place.store.check_writable()
        push(bundle, self._pool.root)
        begin(place)
        marker = open_marker(self._pool.root, marker_of(job, Plan(job.recipe).shards, time.time()))
        if job.job_id not in self._pool.ledger.active():
            self._pool.activate(marker)
        self._pool.top_up()
        return self.status(job.job_id)

    def status(self, job: str) -> JobStatus:
        """How the job stands now."""
        return status_of(self._pool, job)

    def watch(self, job: str, *, every: float = 0.5) -> Iterator[JobStatus]:
        """The job's status every ``every`` seconds, until and including the one in which it has ended."""
        while True:
            status = self.status(job)
            yield status
            if status.ended:
                return
            time.sleep(every)

    def wait(self, job: str, *, timeout: float | None = None, every: float = 0.5) -> JobStatus:
        """Block until the dataset is committed. Raises ``JobFailed`` when it fails, is cancelled, or time runs out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for status in self.watch(job, every=every):
            if status.state == "committed":
                return status
            if status.ended:
                raise JobFailed("job", f"{job} to be committed", f"{status.state}: {status.error or 'no error'}")
            if deadline is not None and time.monotonic() > deadline:
                raise JobFailed("job", f"{job} to be committed within {timeout} s", _progress(status))
        raise AssertionError("watch ends with an ended job")

    def cancel(self, job: str) -> JobStatus:
        """Stop a job; its finished shards stay, and submitting the spec again takes it up where it stopped."""
        status = self.status(job)
        if not status.ended:
            self._pool.cancel(job)
        return self.status(job)

    def jobs(self, *, tenant: str | None = None) -> list[JobStatus]:
        """Every job that ledger or store know, the newest first."""
        known = {marker.job for marker in markers(self._pool.root)} | set(self._pool.ledger.known())
        found = [self.status(job) for job in known]
        chosen = [status for status in found if tenant in (None, status.tenant)]
        return sorted(chosen, key=lambda status: status.submitted, reverse=True)

    def _resolved(self, spec: Submittable) -> tuple[JobSpec, Store]:
        root, s3 = self._pool.root, self._pool.settings.s3
        if isinstance(spec, JobSpec):
            bundle = find_bundle(spec.recipe.bundle, root, s3)
            check_fits(spec.recipe, read_info(bundle, spec.recipe.bundle)[1])
            return spec, bundle
        if isinstance(spec, (str, Path)):
            return resolve(read_draft(spec), root, s3)
        return resolve(spec if isinstance(spec, JobDraft) else draft_of(spec), root, s3)


def _check_reachable(spec: JobSpec) -> None:
    if spec.order.destination.startswith("memory://"):
        raise SpecError("destination", "a place that workers can reach (a path or s3://)", spec.order.destination)


def _committed_status(spec: JobSpec, place: BuildPlace) -> JobStatus:
    shards = Plan(spec.recipe).shards
    return JobStatus(
        job=spec.job_id,
        state="committed",
        name=spec.order.name,
        tenant=spec.order.tenant,
        url=place.url,
        shards=shards,
        shards_done=shards,
        shards_running=0,
        samples=spec.recipe.total,
        samples_done=spec.recipe.total,
        submitted=0.0,
    )


def _progress(status: JobStatus) -> str:
    return f"{status.state} with {status.samples_done} of {status.samples} images"
