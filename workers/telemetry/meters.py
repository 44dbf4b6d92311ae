"""The meter interface: what a process of the pool counts (shards, images, bytes, seconds, faults)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, final, get_args

from generator.production.pipeline.run_record import RunRecord

# made: by us; found: finished by another worker; lost, declined, postponed: released; given_up, failed: not retried
ShardOutcome = Literal["made", "found", "lost", "declined", "postponed", "given_up", "failed"]
CommitOutcome = Literal["committed", "lost", "declined", "postponed", "failed"]
SHARD_OUTCOMES: tuple[ShardOutcome, ...] = get_args(ShardOutcome)
COMMIT_OUTCOMES: tuple[CommitOutcome, ...] = get_args(CommitOutcome)


class Meter(ABC):
    """Counters of one process. The methods never raise."""

    @abstractmethod
    def record_run(self, run: RunRecord) -> None:
        """Count a shard of outcome ``made``, with the images, bytes, seconds and memory of its run."""

    @abstractmethod
    def count_shard(self, outcome: ShardOutcome) -> None:
        """Count a claimed shard by its outcome."""

    @abstractmethod
    def count_commit(self, outcome: CommitOutcome) -> None:
        """Count an attempted commit by its outcome."""

    @abstractmethod
    def count_fault(self, error: Exception) -> None:
        """Count an error by its type."""


@final
class NullMeter(Meter):
    """The meter that counts nothing, for when metrics are off."""

    def record_run(self, run: RunRecord) -> None:
        pass

    def count_shard(self, outcome: ShardOutcome) -> None:
        pass

    def count_commit(self, outcome: CommitOutcome) -> None:
        pass

    def count_fault(self, error: Exception) -> None:
        pass
