"""The ledger's return types: claims, job counts and outcomes, quota refusals, a snapshot of the pool."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Claim:
    """The lease of one shard of the build at ``url``; it expires after the lease time unless renewed.

    The right to commit a build is a claim too, with ``shard`` -1.
    """

    job: str
    shard: int
    nonce: str
    url: str = ""
    name: str = ""


class JobCounts(NamedTuple):
    """The shards of a live job, counted by state."""

    free: int
    held: int  # leased, or waiting for the end of a back-off
    running: int  # being made under a valid lease
    done: int
    dead: int
    total: int
    made: int  # images made so far under the running leases
    committing: bool  # a worker commits the job, or a failed commit waits for its back-off

    @property
    def is_finished(self) -> bool:
        return 0 < self.total <= self.done

    @property
    def is_stuck(self) -> bool:
        """Whether all unfinished shards are dead."""
        return self.dead > 0 and self.done + self.dead >= self.total > self.done


class ShardStates(NamedTuple):
    """The shards of a live job at one moment.

    ``done``, ``dead``: their numbers, ascending. ``running``: the images made so far of each shard under a valid lease.
    ``waiting``: shards that wait for the end of a back-off, or of the lease of a lost worker. ``faults``: how often
    outside faults ended the attempts of a shard; of very many such shards a part.
    """

    done: list[int]
    running: dict[int, int]
    waiting: list[int]
    dead: list[int]
    faults: dict[int, int]


class Allowance(NamedTuple):
    """The number of running shards of a tenant, and its limit; a limit of 0 is none."""

    running: int
    limit: int


class JobOutcome(NamedTuple):
    """The state of a job after one of its shards was completed or given up.

    ``segment_finished``: that shard was the last one of its segment.
    """

    finished: bool
    stuck: bool
    segment_finished: bool = False


class QuotaRefusal(NamedTuple):
    """The quota that a job exceeds: its name, the amount used, its limit, and the seconds until midnight UTC."""

    quota: str
    used: int
    limit: int
    seconds: int


class PoolSnapshot(NamedTuple):
    """The pool at one moment: jobs by state, worker processes, tickets waiting in the broker, running shards.

    ``waiting``: shards of open jobs that no worker makes, and builds that wait for their commit. 0 means that a pool
    without running shards needs no worker.
    """

    jobs: Mapping[str, int]
    slots: int
    tickets: int
    running: int
    waiting: int


def nonce_prefix(worker: str) -> str:
    """The prefix of all lease nonces of the worker with this name."""
    return hashlib.sha256(worker.encode()).hexdigest()[:12]
