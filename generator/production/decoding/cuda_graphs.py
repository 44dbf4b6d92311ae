"""CUDA graphs for batches of one fixed size: captured once, replayed for every batch; copies overlap computation.

Each buffer set has its own captured graph, its own tensors on the device, and pinned host memory for input and output.
All graphs share one memory pool, as they run one after the other on one stream. While the images of one buffer set are
copied back on a second stream, the batch of the next one is computed. A thread takes any buffer set that is free.
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

_BUFFER_SETS = 2  # one computes while the other copies
_WARM_UPS = 3  # runs before capture, as torch requires: libraries choose their kernels and allocate workspace


@dataclass(frozen=True, eq=False)
class _BufferSet:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]  # on the device: points float32 BD, and labels int64 B if there is a map
    images: Tensor  # uint8 on the device, BHWC
    finite: Tensor
    host_inputs: tuple[Tensor, ...]  # pinned
    host_images: Tensor
    host_finite: Tensor


@final
class CudaGraphRunner:
    """Runs ``run`` (tensors on the device -> images, finite) as a CUDA graph, for inputs like ``examples``."""

    def __init__(
        self, run: Callable[..., tuple[Tensor, Tensor]], examples: tuple[np.ndarray, ...], device: torch.device
    ) -> None:
        self._device, self._lock = device, threading.Lock()
        with torch.cuda.device(device):
            self._compute_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._copy_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._memory_pool = torch.cuda.graph_pool_handle()
            self._free = queue.SimpleQueue[_BufferSet]()
            for _ in range(_BUFFER_SETS):
                self._free.put(self._record(run, examples))

    def __call__(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, bool]:
        """Images (uint8, BHWC) of inputs with the shapes of the examples, and whether all values were finite."""
        buffers = self._free.get()
        try:
            for host, array in zip(buffers.host_inputs, inputs, strict=True):
                host.copy_(torch.from_numpy(array))
            with self._lock, torch.cuda.device(self._device):
                copied = self._launch(buffers)
            copied.synchronize()  # other threads continue meanwhile
            return buffers.host_images.numpy().copy(), bool(buffers.host_finite)
        finally:
            self._free.put(buffers)

    def _record(self, run: Callable[..., tuple[Tensor, Tensor]], examples: tuple[np.ndarray, ...]) -> _BufferSet:
        """Outputs lie in the shared memory pool too, but stay allocated, so no other graph overwrites them."""
        inputs = tuple(torch.from_numpy(array).to(self._device) for array in examples)
        self._compute_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._compute_stream):
            for _ in range(_WARM_UPS):
                run(*inputs)
        torch.cuda.current_stream().wait_stream(self._compute_stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._memory_pool, stream=self._compute_stream, capture_error_mode="thread_local"
        ):
            images, finite = run(*inputs)
        return _BufferSet(
            graph,
            inputs,
            images,
            finite,
            tuple(torch.from_numpy(array).pin_memory() for array in examples),
            torch.empty(images.shape, dtype=torch.uint8, pin_memory=True),
            torch.empty((), dtype=torch.bool, pin_memory=True),
        )

    def _launch(self, buffers: _BufferSet) -> torch.cuda.Event:
        computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # waiting yields the core
        with torch.cuda.stream(self._compute_stream):
            for array, host in zip(buffers.inputs, buffers.host_inputs, strict=True):
                array.copy_(host, non_blocking=True)
            buffers.graph.replay()
            computed.record()
        with torch.cuda.stream(self._copy_stream):
            self._copy_stream.wait_event(computed)
            buffers.host_images.copy_(buffers.images, non_blocking=True)
            buffers.host_finite.copy_(buffers.finite, non_blocking=True)
            copied.record()
        return copied
