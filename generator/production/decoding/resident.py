"""The resident decoder: latent points to uint8 images, in batches of one fixed size, on one device.

The batch is part of the recipe: short batches are padded with zeros, never shrunk, because a kernel chosen for another
batch size may round differently. Its output for a row does not depend on the other rows, nor on how many threads
decode side by side.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from generator.errors import BundleError, DeviceExhausted, InvalidOutput
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.factory import build_decoder
from generator.models.bundle import Bundle
from generator.production.decoding.batch_norm import fold_batch_norm
from generator.production.decoding.compilation import compile_network, default_cache_directory, translate_compile_errors
from generator.production.decoding.cuda_graphs import CudaGraphRunner
from generator.production.decoding.uint8_output import Uint8Output, images_per_pass
from generator.spec.recipe import Execution

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MAX_DEVICE_LANES = 8  # threads that draw, wait for the device, and encode
_MAX_LANE_BYTES = 2**31  # what the batches of all lanes may take of the CPU's memory


@dataclass(frozen=True)
class LaneLayout:
    """How many threads decode side by side, and how many threads each of them computes with."""

    count: int
    threads: int


class ResidentDecoder:
    """A decoder held on a device, warm: frozen, normalisations folded, channels last, its output proven by a batch.

    ``peak_bytes`` is what a batch takes of the device's memory at its peak; on a CPU it is what the largest layer
    takes in and gives. Raises ``BundleError`` when the decoder's output is not the bundle's image, ``SettingsError``
    where it cannot be compiled, ``DeviceExhausted`` when out of memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        batch: int,
        dtype: str,
        device: str,
        execution: Execution = "eager",
        cache: Path | None = None,
    ) -> None:
        self.device, self.batch, self.execution = resolve_device(device), batch, execution
        self._image, self.dims, self._dtype = bundle.info.image, bundle.info.latent_dim, _DTYPES[dtype]
        self._module: Any = self._load_network(bundle)
        weights = sum(weight.nbytes for weight in self._module.state_dict().values())
        self._graph_runner: CudaGraphRunner | None = None
        self.peak_bytes = self._warm_up()
        self.total_bytes, self._lane_layout = self.peak_bytes + weights, self._choose_lanes(self.peak_bytes)
        if execution == "compiled":
            self._module = compile_network(self._module, cache or default_cache_directory(), self._lane_layout.threads)
            with (
                self.lanes() as (_, enter),
                translate_compile_errors(),
                ThreadPoolExecutor(1, initializer=enter) as lane,
            ):
                lane.submit(self._decode_zeros).result()
        if self.device.type == "cuda":
            self._graph_runner = CudaGraphRunner(self._forward, batch, self.dims, self.device)

    def decode(self, z_BD: np.ndarray) -> np.ndarray:
        """``z_BD`` (float32, up to ``batch`` rows) to images (uint8, BHWC, RGB or grey, 0 to 255, rounded to nearest).

        Raises ``InvalidOutput`` on NaN or infinity, ``DeviceExhausted`` when memory ran out twice.
        """
        padded_BD = np.zeros((self.batch, self.dims), dtype=np.float32)
        padded_BD[: len(z_BD)] = z_BD
        return retry_on_oom(lambda: self._run(padded_BD), self.batch)[: len(z_BD)]

    @contextmanager
    def lanes(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """How many threads should decode side by side, and what each calls first.

        On a CPU each takes its batches alone: one thread each, that never waits for others in the middle of a layer.
        There is one more than there are threads to compute with: while one waits for Python's lock, another computes.
        """
        threads = torch.get_num_threads()
        try:
            yield self._lane_layout.count, lambda: torch.set_num_threads(self._lane_layout.threads)
        finally:
            torch.set_num_threads(threads)  # setting it in a thread sets what new threads begin with

    def _choose_lanes(self, peak_bytes: int) -> LaneLayout:
        if self.device.type != "cpu":
            return LaneLayout(min(_MAX_DEVICE_LANES, os.cpu_count() or 1), 1)
        threads = torch.get_num_threads()
        count = max(1, min(threads + (threads > 1), _MAX_LANE_BYTES // max(1, peak_bytes)))
        return LaneLayout(count, max(1, threads // count))

    def _load_network(self, bundle: Bundle) -> nn.Module:
        module = build_decoder(bundle.info.autoencoder)
        try:
            module.load_state_dict({name: torch.from_numpy(array) for name, array in bundle.decoder.items()})
        except RuntimeError as mismatch:
            raise BundleError(
                "decoder.safetensors", "the weights of the network in bundle.json", mismatch
            ) from mismatch
        module.eval().requires_grad_(False)
        _fix_kernels()
        return self._move_to_device(fold_batch_norm(module))

    def _move_to_device(self, network: nn.Module) -> nn.Module:
        """A folded network on the device, with the rounding behind it."""
        image, cuda = self._image, self.device.type == "cuda"
        whole = cuda or self.execution == "compiled"
        rows = self.batch if whole else images_per_pass(image.height, image.width, image.channels)
        network.to(device=self.device, dtype=self._dtype)
        return Uint8Output(network.to(memory_format=torch.channels_last), rows)  # type: ignore[call-overload]

    def _warm_up(self) -> int:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) if cuda else 0
        with _record_layer_bytes(self._module) as layers:
            images = self._decode_zeros()
        wanted = (self._image.height, self._image.width, self._image.channels)
        if images.shape[1:] != wanted:
            raise BundleError("decoder", f"images of height, width, channels {wanted}", images.shape[1:])
        return torch.cuda.max_memory_allocated(self.device) - before if cuda else max(layers, default=0)

    def _decode_zeros(self) -> np.ndarray:
        return self.decode(np.zeros((self.batch, self.dims), dtype=np.float32))

    def _run(self, padded_BD: np.ndarray) -> np.ndarray:
        if self._graph_runner is not None:
            images_BHWC, finite = self._graph_runner(padded_BD)
        else:
            images, all_finite = self._forward(torch.from_numpy(padded_BD).to(self.device))
            images_BHWC, finite = images.cpu().numpy(), bool(all_finite)
        if not finite:
            raise InvalidOutput("decoder", "finite pixel values", "NaN or infinity")
        return images_BHWC

    @torch.inference_mode()
    def _forward(self, z_BD: Tensor) -> tuple[Tensor, Tensor]:
        images, finite = self._module(z_BD.to(self._dtype))
        return images, finite


@contextmanager
def _record_layer_bytes(module: nn.Module) -> Iterator[list[int]]:
    """What each layer that is called in the block takes in and gives, in bytes."""
    found: list[int] = []

    def note(_: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        tensors = [value for value in (*given, made) if isinstance(value, Tensor)]
        found.append(sum(tensor.nbytes for tensor in tensors))

    leaves = [layer for layer in module.modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def retry_on_oom(run: Callable[[], np.ndarray], batch: int) -> np.ndarray:
    """What ``run`` returns; out of the device's memory, caches are freed and it gets one more chance.

    Raises ``DeviceExhausted``.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        _free_caches()
    try:
        return run()
    except torch.OutOfMemoryError as exhausted:
        _free_caches()
        got = "out of memory, also after freeing caches"
        raise DeviceExhausted("batch", f"a batch of {batch} that fits the device", got) from exhausted


def _free_caches() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fix_kernels() -> None:
    """The same kernels every time, at full precision: TF32 and autotuning would make bytes depend on the moment."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
