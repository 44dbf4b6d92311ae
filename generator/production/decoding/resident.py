"""The resident decoder: maps latent points to uint8 images, in batches of one fixed size, on one device.

If the bundle's latent distribution has a map, it runs in front of the network, on the same device.

The batch is part of the recipe: short batches are padded with zeros, never shrunk, because a kernel chosen for another
batch size may round differently. The output of a row does not depend on the other rows or on the number of threads
that decode in parallel.
"""

from __future__ import annotations

import gc
import sys
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
from generator.models.autoencoders.config import takes_labels
from generator.models.autoencoders.devices import resolve_device
from generator.models.autoencoders.factory import build_decoder
from generator.models.autoencoders.graphs.config import GraphConfig
from generator.models.bundle import Bundle
from generator.models.latents.transport_map import new_map
from generator.production.decoding.batch_norm import fold_batch_norm
from generator.production.decoding.compilation import compile_network, default_cache_directory, translate_compile_errors
from generator.production.decoding.cuda_graphs import CudaGraphRunner
from generator.production.decoding.kernel_settings import fix_kernels
from generator.production.decoding.mapped_decoder import MappedDecoder
from generator.production.decoding.uint8_output import Uint8Output, images_per_pass
from generator.spec.machine import usable_cores
from generator.spec.recipe import Execution

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Lanes per GPU: threads that draw, wait for the device, and encode. With one alone, the device would wait for the rest.
_MIN_DEVICE_LANES, _MAX_DEVICE_LANES = 2, 8
_MAX_GRAPH_THREADS = 2  # of a lane, on a CPU: with more, kernels may round the same numbers differently
_SWITCH_INTERVAL = 0.001  # seconds
_MAX_LANE_BYTES = 2**31  # host memory for the batches of all lanes, on a CPU


@dataclass(frozen=True)
class LaneLayout:
    """How many lanes decode in parallel, and how many threads each of them computes with."""

    count: int
    threads: int


class ResidentDecoder:
    """A warm decoder on a device: frozen, batch norms folded, channels last, its output shape checked with a batch.

    ``mapped``: points are draws of the bundle's latent distribution, which its map (if it has one) carries to codes;
    otherwise they are codes. ``peak_bytes``: peak device memory of a batch; on a CPU, the input and output bytes of the
    largest layer. Raises ``BundleError`` if the decoder's output has not the shape of the bundle's images,
    ``SettingsError`` if it cannot be compiled, ``DeviceExhausted`` if out of memory.
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
        mapped: bool = True,
    ) -> None:
        self.device, self.batch, self.execution = resolve_device(device), batch, execution
        self._image, self.dims, self._dtype = bundle.info.image, bundle.info.latent_dim, _DTYPES[dtype]
        self._map = new_map(bundle.latents) if mapped else None
        self._labelled = takes_labels(bundle.info.autoencoder)
        self._is_graph, self._live_features = False, 0  # numbers of a sample that are kept at one time, if known
        if isinstance(bundle.info.autoencoder, GraphConfig):
            self._is_graph, self._live_features = True, bundle.info.autoencoder.decoder.live_features()
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
            self._graph_runner = CudaGraphRunner(self._forward, self._padded(*self._zeros()), self.device)

    def decode(self, z_BD: np.ndarray, labels_B: np.ndarray | None = None) -> np.ndarray:
        """Decode ``z_BD`` (float32, up to ``batch`` rows) to images (uint8, BHWC, RGB or grey, rounded to nearest).

        ``labels_B`` (int64): the labels that the points were drawn for; a map needs them, and a decoder of classes.
        ``None``: unlabelled.
        Raises ``InvalidOutput`` on NaN or infinity, ``DeviceExhausted`` if memory runs out twice.
        """
        inputs = self._padded(z_BD, labels_B)
        return retry_on_oom(lambda: self._run(inputs), self.batch)[: len(z_BD)]

    @contextmanager
    def lanes(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """How many threads should decode in parallel, and a function that each must call first.

        On a CPU each lane decodes whole batches by itself, with one thread, so it never waits for others inside a
        layer. There are as many lanes as torch threads. Python's lock changes hands more often than usual meanwhile: a
        lane that comes back from its kernels is held up less by one that packs samples.
        """
        threads, interval = torch.get_num_threads(), sys.getswitchinterval()
        sys.setswitchinterval(min(interval, _SWITCH_INTERVAL))
        try:
            yield self._lane_layout.count, lambda: torch.set_num_threads(self._lane_layout.threads)
        finally:
            torch.set_num_threads(threads)  # setting it in a thread also sets the default of new threads
            sys.setswitchinterval(interval)

    def _choose_lanes(self, peak_bytes: int) -> LaneLayout:
        if self.device.type != "cpu":
            return LaneLayout(min(_MAX_DEVICE_LANES, max(_MIN_DEVICE_LANES, usable_cores())), 1)
        threads = torch.get_num_threads()
        count = max(1, min(threads, _MAX_LANE_BYTES // max(1, peak_bytes)))
        most = _MAX_GRAPH_THREADS if self._is_graph else threads
        return LaneLayout(count, max(1, min(most, threads // count)))

    def _load_network(self, bundle: Bundle) -> nn.Module:
        module = build_decoder(bundle.info.autoencoder)
        try:
            module.load_state_dict({name: torch.from_numpy(array) for name, array in bundle.decoder.items()})
        except RuntimeError as mismatch:
            raise BundleError(
                "decoder.safetensors", "the weights of the network in bundle.json", mismatch
            ) from mismatch
        module.eval().requires_grad_(False)
        fix_kernels()
        return self._move_to_device(fold_batch_norm(module))

    def _move_to_device(self, network: nn.Module) -> nn.Module:
        """The folded network on the device, followed by rounding to uint8."""
        image, cuda = self._image, self.device.type == "cuda"
        whole_batch = cuda or self.execution == "compiled"
        rows = self.batch if whole_batch else images_per_pass(image.height, image.width, image.channels)
        network.to(device=self.device, dtype=self._dtype)
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._map is not None:
            network = MappedDecoder(self._map.to(self.device), network, self._dtype, labelled=self._labelled)
        return Uint8Output(network, rows)

    def _warm_up(self) -> int:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) if cuda else 0
        with _record_layer_bytes(self._module) as layers:
            images = self._decode_zeros()
        expected = (self._image.height, self._image.width, self._image.channels)
        if images.shape[1:] != expected:
            raise BundleError("decoder", f"images of height, width, channels {expected}", images.shape[1:])
        if cuda:
            return torch.cuda.max_memory_allocated(self.device) - before
        return max([*layers, self.batch * self._live_features * self._dtype.itemsize])

    def _decode_zeros(self) -> np.ndarray:
        return self.decode(*self._zeros())

    def _zeros(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((self.batch, self.dims), dtype=np.float32), np.zeros(self.batch, dtype=np.int64)

    def _padded(self, z_BD: np.ndarray, labels_B: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """The inputs of the network, with exactly ``batch`` rows: points, and labels if it takes them."""
        padded_BD, padded_B = self._zeros()
        padded_BD[: len(z_BD)] = z_BD
        if labels_B is not None:
            padded_B[: len(labels_B)] = labels_B
        return (padded_BD, padded_B) if self._labelled or self._map is not None else (padded_BD,)

    def _run(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        if self._graph_runner is not None:
            images_BHWC, finite = self._graph_runner(inputs)
        else:
            images, all_finite = self._forward(*(torch.from_numpy(array).to(self.device) for array in inputs))
            images_BHWC, finite = images.cpu().numpy(), bool(all_finite)
        if not finite:
            raise InvalidOutput("decoder", "finite pixel values", "NaN or infinity")
        return images_BHWC

    @torch.inference_mode()
    def _forward(self, z_BD: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        images, finite = self._module(z_BD if self._map is not None else z_BD.to(self._dtype), *labels)
        return images, finite


@contextmanager
def _record_layer_bytes(module: nn.Module) -> Iterator[list[int]]:
    """The input and output bytes of each layer that is called in the block."""
    found: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        found.append(sum(tensor.nbytes for tensor in tensors))

    leaves = [layer for layer in module.modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def retry_on_oom(run: Callable[[], np.ndarray], batch: int) -> np.ndarray:
    """The result of ``run``. If the device runs out of memory, caches are freed and ``run`` is tried once more.

    Raises ``DeviceExhausted`` if that fails too.
    """
    try:
        return run()
    except torch.OutOfMemoryError:
        _free_caches()
    try:
        return run()
    except torch.OutOfMemoryError as exhausted:
        _free_caches()
        got = "out of memory, even after freeing caches"
        raise DeviceExhausted("batch", f"a batch of {batch} that fits the device", got) from exhausted


def _free_caches() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
