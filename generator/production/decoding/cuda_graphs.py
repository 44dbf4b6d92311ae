"""A fixed batch on a CUDA device: recorded once, replayed for every batch, copies beside computing.

Each slot has its own recorded graph, its own tensors on the device, and pinned memory on the host for what goes in and
comes out; all graphs share one pool of memory, as they run one after the other on one stream. While one slot's images
are copied back on a second stream, the next slot's batch is computed. Threads take whichever slot is free.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

_BUFFER_SETS = 2  # one that computes, one that copies
_WARM_UPS = 3  # before recording, as torch asks for: libraries choose their kernels and take their workspace


@dataclass(frozen=True, eq=False)
class _BufferSet:
    graph: torch.cuda.CUDAGraph
    latents: Tensor  # float32 on the device, BD
    images: Tensor  # uint8 on the device, BHWC
    finite: Tensor
    host_latents: Tensor  # pinned
    host_images: Tensor
    host_finite: Tensor


@final
class CudaGraphRunner:
    """``run`` (z float32 on the device -> images, finite) for batches of shape ``(batch, dims)``."""

    def __init__(
        self, run: Callable[[Tensor], tuple[Tensor, Tensor]], batch: int, dims: int, device: torch.device
    ) -> None:
        self._device, self._lock = device, threading.Lock()
        with torch.cuda.device(device):
            self._compute_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._copy_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._memory_pool = torch.cuda.graph_pool_handle()
            self._free = queue.SimpleQueue[_BufferSet]()
            for _ in range(_BUFFER_SETS):
                self._free.put(self._record(run, batch, dims))

    def __call__(self, z_BD: np.ndarray) -> tuple[np.ndarray, bool]:
        """Images (uint8, BHWC) of float32 ``z_BD``, which has exactly ``batch`` rows; and whether all was finite."""
        slot = self._free.get()
        try:
            slot.host_latents.copy_(torch.from_numpy(z_BD))
            with self._lock, torch.cuda.device(self._device):
                copied = self._launch(slot)
            copied.synchronize()  # other threads go on meanwhile
            return slot.host_images.numpy().copy(), bool(slot.host_finite)
        finally:
            self._free.put(slot)

    def _record(self, run: Callable[[Tensor], tuple[Tensor, Tensor]], batch: int, dims: int) -> _BufferSet:
        """What a slot gives lies in the shared memory too, but stays taken: no other graph is recorded over it."""
        given = torch.zeros((batch, dims), dtype=torch.float32, device=self._device)
        self._compute_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._compute_stream):
            for _ in range(_WARM_UPS):
                run(given)
        torch.cuda.current_stream().wait_stream(self._compute_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._memory_pool, stream=self._compute_stream, capture_error_mode="thread_local"
        ):
            images, finite = run(given)
        return _BufferSet(
            graph,
            given,
            images,
            finite,
            torch.zeros((batch, dims), dtype=torch.float32, pin_memory=True),
            torch.empty(images.shape, dtype=torch.uint8, pin_memory=True),
            torch.empty((), dtype=torch.bool, pin_memory=True),
        )

    def _launch(self, slot: _BufferSet) -> torch.cuda.Event:
        computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # who waits leaves its core to others
        with torch.cuda.stream(self._compute_stream):
            slot.latents.copy_(slot.host_latents, non_blocking=True)
            slot.graph.replay()
            computed.record()
        with torch.cuda.stream(self._copy_stream):
            self._copy_stream.wait_event(computed)
            slot.host_images.copy_(slot.images, non_blocking=True)
            slot.host_finite.copy_(slot.finite, non_blocking=True)
            copied.record()
        return copied
