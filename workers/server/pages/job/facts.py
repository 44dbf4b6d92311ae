"""What lists and the page of a job show of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from workers.server.jobs import JobView


def job_facts(job: JobView) -> dict[str, Any]:
    """The values that templates use."""
    return {
        "job": job.job,
        "name": job.name,
        "state": job.state,
        "samples": job.samples,
        "samples_done": job.samples_done,
        "percent": int(100 * job.samples_done / max(1, job.samples)),
        "submitted": datetime.fromtimestamp(job.submitted, UTC).strftime("%Y-%m-%d %H:%M"),
        "ended": job.ended,
        "waits_for": job.waits_for,
        "url": f"/datasets/{job.dataset}/builds/{job.build}" if job.dataset and job.state == "committed" else "",
    }
