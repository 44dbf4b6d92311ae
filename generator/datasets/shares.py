"""The share of one process in what is read: its rank, and how batches are dealt."""

from __future__ import annotations

from dataclasses import dataclass

from torch import distributed

from generator.datasets.epoch_order import BatchPlan
from generator.datasets.reader_options import OrderOptions
from generator.errors import SpecError
from generator.spec.launch import check_rank, launched_rank


@dataclass(frozen=True)
class Share:
    """The rank that reads, and how batches are dealt; ``None``: samples are read one by one."""

    rank: int
    world_size: int
    batches: BatchPlan | None

    def check_samples(self, samples: int) -> None:
        """Raises ``SpecError`` if an epoch of ``samples`` samples has no batch for any rank."""
        batches = self.batches
        if batches is not None and batches.uneven == "drop" and samples < batches.size * batches.world_size:
            hint = "uneven='pad' fills batches up with samples from the beginning; 'keep' gives short ones."
            of_ranks = "" if batches.world_size == 1 else f" for each of {batches.world_size} ranks"
            expected = (
                f"at most {samples // batches.world_size} of {samples} samples{of_ranks}, so that batches are whole"
            )
            raise SpecError("batch_size", expected, batches.size, hint)


def find_share(options: OrderOptions) -> Share:
    """The share of this process; rank and world size by default those of ``torch.distributed``, else of the variables
    RANK and WORLD_SIZE. Raises ``SpecError``."""
    rank, world_size = _find_rank(options.rank, options.world_size)
    size = options.batch_size
    return Share(rank, world_size, None if size is None else BatchPlan(size, rank, world_size, options.uneven))


def _find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise SpecError("rank", "rank and world_size together, or neither", "one of them")
    if rank is None or world_size is None:
        if distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            rank, world_size = launched_rank()
    check_rank(rank, world_size)
    return rank, world_size
