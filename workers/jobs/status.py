"""The status of a job, from the ledger or, if the ledger does not know the job, from the store."""

from __future__ import annotations

from generator.errors import LatentmillError, SpecError
from generator.production.commit import finished_shards
from workers.jobs.job_status import JobState, JobStatus
from workers.jobs.markers import Marker
from workers.jobs.pool import DECLINED_PREFIX, Pool
from workers.ledger.claims import JobCounts

__all__ = ["NO_WORKER", "JobStatus", "status_of"]

NO_WORKER = "a worker (none has announced itself lately)"


def status_of(pool: Pool, job: str) -> JobStatus:
    """The status of one job. Raises ``SpecError`` for an unknown job."""
    facts = pool.ledger.facts(job)
    if "shards" in facts:
        return _from_ledger(pool, job, facts)
    marker = pool.marker(job) if _is_job_id(job) else None
    if marker is None:
        raise SpecError("job", "a job that was submitted here (see `latentmill jobs`)", repr(job[:100]))
    return _from_store(pool, marker)


def _from_ledger(pool: Pool, job: str, facts: dict[str, str]) -> JobStatus:
    shards, samples = int(facts["shards"]), int(facts["samples"])
    state, running, dead, waits_for = facts["state"], 0, 0, ""
    if state in ("open", "paused"):
        counts = pool.ledger.counts(job)
        running, done, dead = counts.running, counts.done, counts.dead
        made = counts.made + _samples_in(pool.ledger.finished_shards(job), shards, samples)
        waits_for = _waits_for(pool, facts, counts) if state == "open" else ""
        active = "running" if running or done else "queued"
        state = active if state == "open" else "paused"
    else:
        done = shards if state == "committed" else int(facts.get("ended_shards", 0))
        made = samples if state == "committed" else _samples_in(list(range(done)), shards, samples)
    marker = pool.marker(job) if dead or state == "failed" else None
    return JobStatus(
        job=job,
        state=state,
        name=facts["name"],
        tenant=facts["tenant"],
        priority=int(facts.get("priority", 0)),
        url=facts["url"],
        shards=shards,
        shards_done=done,
        shards_running=running,
        samples=samples,
        samples_done=min(made, samples),
        submitted=float(facts["submitted"]),
        waits_for=waits_for,
        error=facts.get("error", ""),
        **_failures(marker),
    )


def _waits_for(pool: Pool, facts: dict[str, str], counts: JobCounts) -> str:
    """What an open job waits for; empty while its shards are being made or it is being committed."""
    if counts.running or counts.committing:
        return ""
    if pool.ledger.slots() == 0:
        return NO_WORKER
    tenant = facts["tenant"]
    allowance = pool.ledger.allowance(tenant)
    if not counts.is_finished and 0 < allowance.limit <= allowance.running:
        return f"other jobs of tenant {tenant}, which has its {allowance.limit} running shard(s)"
    if counts.held and not counts.free:
        return "the end of a back-off after a fault, or of the lease of a lost worker"
    if facts.get("error", "").startswith(DECLINED_PREFIX):
        return "a worker that can serve it: one has declined, and tries again every minute"
    return "its turn"


def _from_store(pool: Pool, marker: Marker) -> JobStatus:
    try:
        finished = finished_shards(marker.location(pool.settings.s3))
    except LatentmillError:  # the build is gone or unreachable; the marker still gives its state
        finished = set()
    waits_for = "a reconciler to find it in the store" if pool.ledger.slots() else NO_WORKER
    active: JobState = "running" if finished else "queued"
    return JobStatus(
        job=marker.job,
        state=active if marker.intent == "open" else marker.intent,
        name=marker.name,
        tenant=marker.tenant,
        priority=marker.priority,
        url=marker.url,
        shards=marker.shards,
        shards_done=len(finished),
        shards_running=0,
        samples=marker.samples,
        samples_done=_samples_in(sorted(finished), marker.shards, marker.samples),
        submitted=marker.submitted,
        waits_for=waits_for if marker.intent == "open" else "",
        error=marker.error,
        **_failures(marker),
    )


def _failures(marker: Marker | None) -> dict[str, object]:
    names = ("dead", "missing_shards", "missing") if marker else ()
    return {name: getattr(marker, name) for name in names}


def _samples_in(finished: list[int], shards: int, samples: int) -> int:
    """The samples in these shards of the plan; the first ``samples % shards`` shards hold one more than the others."""
    base, extra = divmod(samples, shards)
    return base * len(finished) + sum(number < extra for number in finished)


def _is_job_id(job: str) -> bool:
    return 0 < len(job) <= 80 and all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in job)
