"""What a client learns of a job. Imports no Redis, as clients over HTTP have none."""

from __future__ import annotations

from typing import Literal

from generator.spec.canonical import FrozenModel
from workers.jobs.markers import DeadLetter

JobState = Literal["queued", "running", "paused", "committed", "cancelled", "failed"]
ENDED_STATES = ("committed", "cancelled", "failed")


class JobStatus(FrozenModel):
    """One job at one moment. ``samples_done`` counts finished shards, and the images made so far of running ones.

    ``waits_for`` says why no shard of an open job is being made, according to the ledger.
    ``dead`` are the shards that were given up, with the last error of each. Of a failed job, ``missing`` are the first
    ranges (ends included) of its ``missing_shards`` shards without a receipt.
    """

    job: str
    state: JobState
    name: str
    tenant: str
    priority: int = 0
    url: str
    shards: int
    shards_done: int
    shards_running: int
    samples: int
    samples_done: int
    submitted: float  # seconds since the epoch
    waits_for: str = ""
    error: str = ""
    dead: tuple[DeadLetter, ...] = ()
    missing_shards: int = 0
    missing: tuple[tuple[int, int], ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES
