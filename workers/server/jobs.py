"""The jobs of a tenant, as it sees them: without paths of the server, and without those of other tenants."""

from __future__ import annotations

from typing import Literal

from generator.errors import SpecError
from generator.store import is_remote
from workers.jobs.status import JobStatus
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.problems import Problem


class JobView(JobStatus):
    """A job, as its tenant sees it. ``url``: an s3:// URL, or place, dataset and build on this server; tracebacks stay
    with the workers. ``dataset`` and ``build`` name the build in this API; without ``dataset`` it lies elsewhere."""

    dataset: str | None
    build: str


def newest_jobs(
    context: ServerContext,
    caller: Caller,
    *,
    limit: int,
    after: str | None = None,
    state: Literal["open", "ended"] | None = None,
) -> tuple[list[JobView], str | None]:
    """The jobs of the caller's tenant that follow ``after``, the newest first; and where the next ones follow.

    ``state`` keeps unfinished or ended ones. Raises ``BrokerUnavailable``, ``StoreError``.
    """
    newest_first = sorted((_place(submitted, job), job) for job, submitted in context.client.jobs_of(caller.tenant))
    views, last = list[JobView](), ""
    for place, job in newest_first:
        if after is not None and place <= after:
            continue
        status = context.client.status(job)
        if state is None or status.ended == (state == "ended"):
            if len(views) == limit:
                return views, last
            views.append(view_job(context, caller, status))
            last = place
    return views, None


def find_job(context: ServerContext, caller: Caller, job: str) -> JobStatus:
    """The status of a job of the caller's tenant. Raises ``Problem`` (404) for others, known or not."""
    unknown = SpecError("job", f"a job of tenant {caller.tenant}", repr(job[:100]))
    try:
        status = context.client.status(job)
    except SpecError as missing:
        raise Problem(404, unknown) from missing
    if status.tenant != caller.tenant:
        raise Problem(404, unknown)
    return status


def view_job(context: ServerContext, caller: Caller, status: JobStatus) -> JobView:
    """The job as its tenant sees it."""
    named = context.places.name_of(caller.tenant, status.url)
    dataset, _, build = (named or "").rpartition("/builds/")
    fields = status.model_dump() | {"dataset": dataset or None, "build": build or status.url.rpartition("/")[2]}
    fields["url"] = status.url if is_remote(status.url) else named or "elsewhere"
    fields["error"] = context.redact(status.error, caller.tenant)
    fields["dead"] = [
        {"shard": letter.shard, "faults": letter.faults, "error": context.redact(letter.error, caller.tenant)}
        for letter in status.dead
    ]
    return JobView.model_validate(fields)


def _place(submitted: float, job: str) -> str:
    """Ascends from the newest job to the oldest."""
    return f"{1e11 - submitted:016.3f}-{job}"
