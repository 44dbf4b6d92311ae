"""The client of the service, over Redis and the store or over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, final

from generator.errors import JobFailed
from workers.client.service import Service, Submittable
from workers.settings import Settings, load_settings

if TYPE_CHECKING:
    from generator.models.bundle.listing import BundleSummary
    from generator.production.pipeline.run_costs import Pace
    from workers.jobs.job_status import JobStatus
    from workers.jobs.preview import Preview

PREVIEW_IMAGES = 64
PREVIEW_SECONDS = 30.0


@final
class Client:
    """Client of the service: submits jobs, follows them, pauses, resumes and cancels them.

    ``Client()`` uses Redis and the store of the settings, which come from the environment (``LATENTMILL_...``) unless
    given. ``Client("https://mill.example.org", token=...)`` asks a server, and needs neither Redis nor keys of S3; the
    jobs are then those of the token's tenant. Without arguments, ``LATENTMILL_SERVER_URL`` and ``LATENTMILL_TOKEN``
    choose a server. Every method raises typed errors: ``InputError`` for what the caller can correct, ``OutsideError``
    when Redis, the store or the server is unavailable.

    >>> client = Client()
    >>> job = client.submit({"bundle": "digits.bundle", "count": 1000, "destination": "out", "name": "digits"})
    >>> client.wait(job.job).url
    """

    def __init__(self, service: Settings | str | None = None, *, token: str | None = None) -> None:
        """Connects on first use. Raises ``SettingsError``, and ``SpecError`` for a URL that is none of a server."""
        self._service = _open_service(service, token)

    def submit(self, spec: Submittable) -> JobStatus:
        """Submit a job: a ``JobSpec``, a ``JobDraft``, its fields, or the path of a YAML file.

        A local bundle is pushed to the store root first. The same spec submitted again is the same job: a committed or
        paused one is returned unchanged, a cancelled or failed one is reopened and continues where it stopped. Its
        priority becomes the one submitted last. Nothing is written before spec, bundle, Redis, root and destination
        have been checked. Raises ``QuotaExceeded`` if the tenant has too many jobs or images, ``SpecError`` if the job
        belongs to another tenant. Over HTTP, ``bundle`` may be a directory of this machine, a digest, or absent with
        ``channel`` in its place; images of ``draw`` are files of this machine; ``destination`` is a place.
        """
        return self._service.submit(spec)

    def status(self, job: str) -> JobStatus:
        """The present status of the job. Raises ``SpecError`` for an unknown job."""
        return self._service.status(job)

    def pace(self, job: str) -> Pace | None:
        """The job's speed and the time spent in each stage; ``None`` before its first shard is finished."""
        return self._service.pace(job)

    def watch(self, job: str, *, every: float = 0.5) -> Iterator[JobStatus]:
        """Yield the job's status every ``every`` seconds; the last one yielded is that of the ended job."""
        while True:
            status = self.status(job)
            yield status
            if status.ended:
                return
            time.sleep(every)

    def wait(self, job: str, *, timeout: float | None = None, every: float = 0.5) -> JobStatus:
        """Block until the dataset is committed.

        Raises ``JobFailed`` if the job fails, is cancelled, or is not committed after ``timeout`` seconds.
        """
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
        """Cancel a job. Its finished shards are kept; submitting the spec again continues where it stopped."""
        return self._service.cancel(job)

    def pause(self, job: str) -> JobStatus:
        """Pause a job: running shards are finished, no new ones are started until ``resume``."""
        return self._service.pause(job)

    def resume(self, job: str, *, tenant: str = "default", new_environment: bool = False) -> JobStatus:
        """Continue a paused, cancelled or failed job where it stopped; shards that were given up are tried again.

        ``job`` is its id, or the URL of its build (``<destination>/<name>/builds/<id>``). A URL needs only the recipe
        and the receipts that are stored there, so it works after Redis and the store root were lost; the job then
        belongs to ``tenant`` (over HTTP, to the token's). ``new_environment`` opens a new epoch, so that workers with
        another environment can make the missing shards. A committed job named by its id is returned unchanged.
        """
        return self._service.resume(job, tenant=tenant, new_environment=new_environment)

    def jobs(self, *, tenant: str | None = None) -> list[JobStatus]:
        """All jobs in the ledger or the store, the newest first; ``tenant`` keeps only that tenant's."""
        return self._service.jobs(tenant=tenant)

    def preview(self, spec: Submittable, count: int = PREVIEW_IMAGES, *, timeout: float = PREVIEW_SECONDS) -> Preview:
        """The first ``count`` images (1 to 256) of a spec, made by a worker at once; nothing of them is stored.

        A local bundle is pushed to the store root first. A worker that is busy answers after its shard. Raises
        ``WorkerUnavailable`` if no worker has answered after ``timeout`` seconds, and as ``submit`` does.
        """
        return self._service.preview(spec, count, timeout)

    def clone(self, job: str, **changes: Any) -> JobStatus:
        """Submit the spec of a job again with changes, for example ``clone(job, seed=7, name="digits-7")``.

        ``changes``: fields of recipe and order by name; also ``count``, images in total, and ``counts``, images by
        class name. A field that is not changed stays, but for the day of publication: it is that of the clone's first
        submission. Raises ``SpecError`` for an unknown job or a field that cannot be so.
        """
        return self._service.clone(job, changes)

    def bundles(self) -> list[BundleSummary]:
        """The bundles of the store root (over HTTP, those of the token's tenant), the newest first: what each was made
        of, when, and which channels point to it. Raises ``StoreError``."""
        return self._service.bundles()


def _open_service(service: Settings | str | None, token: str | None) -> Service:
    if isinstance(service, str):
        return _open_server(service, token or _token(load_settings()))
    settings = service or load_settings()
    if settings.server_url is not None and service is None:
        return _open_server(settings.server_url, token or _token(settings))
    from workers.client.pool_client import PoolClient  # Redis is not needed to ask a server
    from workers.jobs.pool import Pool

    return PoolClient(Pool(settings))


def _open_server(url: str, token: str | None) -> Service:
    from workers.client.http_client import HttpClient

    return HttpClient(url, token)


def _token(settings: Settings) -> str | None:
    return None if settings.token is None else settings.token.get_secret_value()


def _progress(status: JobStatus) -> str:
    return f"{status.state} with {status.samples_done} of {status.samples} images"
