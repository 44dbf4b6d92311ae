"""Suggests how many processes and threads a worker should have on this machine. Imports no torch."""

from __future__ import annotations

from math import ceil

from generator.spec.canonical import FrozenModel
from generator.spec.machine import available_memory, usable_cores

_PROCESS_BYTES = 10**9  # memory of a process that holds a decoder: 0.6 GB with torch alone [measured], and its batches
_MIN_PER_DEVICE = 2  # minimum of processes for one GPU: one uploads a shard while another decodes
_BUSY_CORES = 0.7  # cores that one process on a GPU can keep busy before its threads wait for the GIL


class WorkerSuggestion(FrozenModel):
    """Settings of one worker: ``concurrency`` processes with ``threads`` CPU threads each."""

    concurrency: int
    threads: int


def suggest_worker(*, cuda: bool, cores: int | None = None, feeding: float = 0.0) -> WorkerSuggestion:
    """The suggestion for a worker with ``cores`` (default: all that this process may use), with or without a GPU.

    On a CPU: one process per core, with one thread each, so that none waits for another inside a layer or for the GIL.
    On a GPU: as many processes as keep the GPU busy. ``feeding``: how many cores all other stages need when the GPU
    decodes at full speed. Memory limits both.
    """
    cores = cores or usable_cores()
    memory_limit = max(1, available_memory() // _PROCESS_BYTES)
    wanted = max(_MIN_PER_DEVICE, ceil(feeding / _BUSY_CORES)) if cuda else cores
    concurrency = max(1, min(wanted, cores, memory_limit))
    return WorkerSuggestion(concurrency=concurrency, threads=max(1, cores // concurrency))
