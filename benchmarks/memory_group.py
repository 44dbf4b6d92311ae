"""A control group that limits the memory of what a benchmark starts: anonymous memory and pages of files together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit_gib: float) -> Iterator[Callable[[], None]]:
    """A group with this limit and without swap. Yields a function that moves the calling process into it.

    Raises ``OSError`` where this user may not make control groups.
    """
    second = (_ROOT / "cgroup.controllers").exists()  # version 2: one tree of groups for all controllers
    if second and "memory" not in (_ROOT / "cgroup.subtree_control").read_text().split():
        (_ROOT / "cgroup.subtree_control").write_text("+memory")
    group = (_ROOT if second else _ROOT / "memory") / f"latentmill-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(int(limit_gib * 2**30)))
        swap = group / ("memory.swap.max" if second else "memory.swappiness")
        if swap.exists():
            swap.write_text("0")

        def enter() -> None:
            (group / "cgroup.procs").write_text(str(os.getpid()))

        yield enter
    finally:
        group.rmdir()
