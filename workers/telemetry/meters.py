"""What a process of the pool counts: shards, images, bytes, seconds, faults."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, final, get_args

from generator.production.pipeline.run_record import RunRecord

# made here; found finished by somebody else; handed back: lost, declined, postponed; ended for good: given up, failed
ShardOutcome = Literal["made", "found", "lost", "declined", "postponed", "given_up", "failed"]
CommitOutcome = Literal["committed", "lost", "declined", "postponed", "failed"]
SHARD_OUTCOMES: tuple[ShardOutcome, ...] = get_args(ShardOutcome)
COMMIT_OUTCOMES: tuple[CommitOutcome, ...] = get_args(CommitOutcome)


class Meter(ABC):
    """Counts; none of its methods raises."""

    @abstractmethod
    def record_run(self, run: RunRecord) -> None:
        """A shard was made and published here: one more of outcome ``made``, and all that it took."""

    @abstractmethod
    def count_shard(self, outcome: ShardOutcome) -> None:
        """A claimed shard came to this."""

    @abstractmethod
    def count_commit(self, outcome: CommitOutcome) -> None:
        """The commit of a build came to this."""

    @abstractmethod
    def count_fault(self, error: Exception) -> None:
        """Something went wrong."""


@final
class NullMeter(Meter):
    """Metrics are off."""

    def record_run(self, run: RunRecord) -> None:
        pass

    def count_shard(self, outcome: ShardOutcome) -> None:
        pass

    def count_commit(self, outcome: CommitOutcome) -> None:
        pass

    def count_fault(self, error: Exception) -> None:
        pass
