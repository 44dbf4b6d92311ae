"""The place of this process among those that a launcher (``torchrun``, ``accelerate launch``) started together."""

from __future__ import annotations

import os

from generator.errors import SpecError


def launched_rank() -> tuple[int, int]:
    """(rank, number of processes), from the variables RANK and WORLD_SIZE; (0, 1) without a launcher.

    Raises ``SpecError`` if they are no integers, the rank is missing, or it is not one of them.
    """
    rank, count = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    try:
        found = None if rank is None else int(rank), 1 if count is None else int(count)
    except ValueError as error:
        raise SpecError("rank", "RANK and WORLD_SIZE as integers", f"{rank} of {count}") from error
    if found[0] is None and found[1] != 1:
        raise SpecError("rank", "RANK beside WORLD_SIZE, or neither", f"WORLD_SIZE={count} alone")
    check_rank(found[0] or 0, found[1])
    return found[0] or 0, found[1]


def check_rank(rank: int, count: int) -> None:
    """Raises ``SpecError`` for a rank outside ``0 .. count - 1``."""
    if count < 1 or not 0 <= rank < count:
        raise SpecError("rank", "0 <= rank < world_size", f"rank {rank} of {count}")
