"""How many processes and threads a worker should have on this machine. Imports no torch."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

from generator.spec.canonical import FrozenModel

_PROCESS_BYTES = 10**9  # of one process that holds a decoder: 0.6 GB with torch alone [measured], and its batches
_MIN_PER_DEVICE = 2  # processes for one GPU at least: one shard is uploaded while the next is decoded
_BUSY_CORES = 0.7  # of a core that a process beside a GPU can keep busy before its threads wait for Python


class WorkerSuggestion(FrozenModel):
    """``concurrency`` processes of one worker with ``threads`` CPU threads each."""

    concurrency: int
    threads: int


def suggest_worker(*, cuda: bool, cores: int | None = None, feeding: float = 0.0) -> WorkerSuggestion:
    """For a worker on ``cores`` (all that this process may use), on one CUDA device or none.

    On a CPU one process a core, of one thread: they never wait for each other, neither in a layer nor for Python. On a
    GPU as many as it takes to keep up with it: ``feeding`` is how many cores all but decoding takes at its full speed.
    """
    cores = cores or usable_cores()
    most = max(1, available_memory() // _PROCESS_BYTES)
    wanted = max(_MIN_PER_DEVICE, ceil(feeding / _BUSY_CORES)) if cuda else cores
    concurrency = max(1, min(wanted, cores, most))
    return WorkerSuggestion(concurrency=concurrency, threads=max(1, cores // concurrency))


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Memory that is free or can be freed; much, where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return 2**40
