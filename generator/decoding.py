"""The resident decoder: latent points to uint8 images, in batches of one fixed size, on one device.

The batch is part of the recipe: short batches are padded with zeros, never shrunk, because a kernel chosen for another
batch size may round differently. Its output for a row does not depend on the other rows.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import torch

from generator.autoencoders.build import build_decoder
from generator.autoencoders.devices import resolve
from generator.bundle import Bundle
from generator.errors import BundleError, DeviceExhausted, InvalidOutput

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ResidentDecoder:
    """A decoder held on a device, warm: frozen, channels last, its output shape proven by a first batch.

    ``peak_bytes`` is what that first batch added to the device's memory at its peak (0 where it cannot be measured).
    Raises ``BundleError`` when the decoder's output is not the bundle's image, ``DeviceExhausted`` when out of memory.
    """

    def __init__(self, bundle: Bundle, *, batch: int, dtype: str, device: str) -> None:
        self.device, self.batch, self._dtype = resolve(device), batch, _DTYPES[dtype]
        self._image, self._dims = bundle.info.image, bundle.info.latent_dim
        self._module = self._resident(bundle)
        self.peak_bytes = self._warm_up()
        self.bytes = self.peak_bytes + sum(weight.nbytes for weight in self._module.state_dict().values())

    def decode(self, z_BD: np.ndarray) -> np.ndarray:
        """``z_BD`` (float32, up to ``batch`` rows) to images (uint8, BHWC, RGB or grey, 0 to 255, rounded to nearest).

        Raises ``InvalidOutput`` on NaN or infinity, ``DeviceExhausted`` when memory ran out twice.
        """
        padded_BD = np.zeros((self.batch, self._dims), dtype=np.float32)
        padded_BD[: len(z_BD)] = z_BD
        return with_memory(lambda: self._run(padded_BD), self.batch)[: len(z_BD)]

    def _resident(self, bundle: Bundle) -> torch.nn.Module:
        module = build_decoder(bundle.info.autoencoder)
        try:
            module.load_state_dict({name: torch.from_numpy(array) for name, array in bundle.decoder.items()})
        except RuntimeError as mismatch:
            raise BundleError(
                "decoder.safetensors", "the weights of the network in bundle.json", mismatch
            ) from mismatch
        module.eval().requires_grad_(False)
        _fix_kernels()
        module.to(device=self.device, dtype=self._dtype)
        resident: torch.nn.Module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return resident

    def _warm_up(self) -> int:
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device) if cuda else 0
        images = self.decode(np.zeros((self.batch, self._dims), dtype=np.float32))
        wanted = (self._image.height, self._image.width, self._image.channels)
        if images.shape[1:] != wanted:
            raise BundleError("decoder", f"images of height, width, channels {wanted}", images.shape[1:])
        return torch.cuda.max_memory_allocated(self.device) - before if cuda else 0

    @torch.inference_mode()
    def _run(self, padded_BD: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(padded_BD).to(device=self.device, dtype=self._dtype)
        x_BCHW = self._module(z).float()
        if not bool(torch.isfinite(x_BCHW).all()):
            raise InvalidOutput("decoder", "finite pixel values", "NaN or infinity")
        levels = x_BCHW.mul_(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
        images_BHWC: np.ndarray = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return images_BHWC


def with_memory(run: Callable[[], np.ndarray], batch: int) -> np.ndarray:
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
