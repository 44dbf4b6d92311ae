"""What the ledger answers: claims, counts, and what an outcome or a refusal means."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Claim:
    """A shard that this process may make until ``lease_seconds`` pass without a renewal, of the build at ``url``."""

    job: str
    shard: int
    nonce: str
    url: str = ""
    name: str = ""


class JobCounts(NamedTuple):
    """How a live job stands: shards free, held (by a worker or a back-off), being made, done and dead, of how many."""

    free: int
    held: int
    running: int
    done: int
    dead: int
    total: int
    made: int  # images made so far under the running leases
    committing: bool  # somebody commits it, or waits to try again

    @property
    def is_finished(self) -> bool:
        return 0 < self.total <= self.done

    @property
    def is_stuck(self) -> bool:
        """Nothing is left of it but shards that were given up."""
        return self.dead > 0 and self.done + self.dead >= self.total > self.done


class Allowance(NamedTuple):
    """How many shards of a tenant are being made, and how many may be; 0 for any number."""

    running: int
    limit: int


class JobOutcome(NamedTuple):
    """What the completion or the burial of a shard means for its job."""

    finished: bool
    stuck: bool


class QuotaRefusal(NamedTuple):
    """Which quota a job is over: how much of it is taken, the limit, and the seconds until midnight UTC."""

    quota: str
    used: int
    limit: int
    seconds: int


class PoolSnapshot(NamedTuple):
    """The pool at one moment: how many jobs are in each state, processes of workers, tickets that wait in the broker,
    shards that are being made."""

    jobs: Mapping[str, int]
    slots: int
    tickets: int
    running: int


def nonce_prefix(worker: str) -> str:
    """How the nonces of all leases of the worker with this name begin."""
    return hashlib.sha256(worker.encode()).hexdigest()[:12]
