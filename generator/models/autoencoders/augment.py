"""Images after random changes: shifts, affine warps, elastic deformations, mirror images.

Every number drawn depends on the seed and the step alone, so all arms of a comparison that share both get the same
changes, on whatever device. Sides of length H = W are in pixels; x_BCHW is float32 in [0, 1].
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from generator.models.autoencoders.augmentation import Augmentation


def augment(x_BCHW: Tensor, augmentation: Augmentation, *, seed: int, step: int) -> Tensor:
    """``x_BCHW`` after the random changes of ``step``; what comes in from outside repeats the border."""
    draws = _generator(seed, step)
    if augmentation.mirror:
        mirrored_B = torch.rand(len(x_BCHW), generator=draws).to(x_BCHW.device) < 0.5
        x_BCHW = torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(3), x_BCHW)
    if augmentation.shift:
        x_BCHW = _shifted(x_BCHW, augmentation.shift, draws)
    if augmentation.has_warp:
        x_BCHW = _warped(x_BCHW, augmentation, draws)
    return x_BCHW.contiguous(memory_format=torch.channels_last)


def augmented_copies(
    images_NHWC: np.ndarray, augmentation: Augmentation, *, copies: int, seed: int, batch: int = 500
) -> np.ndarray:
    """uint8 (copies * N, H, W, C): all images changed once, then all of them changed again, and so on."""
    parts, step = [], 0
    for _ in range(copies):
        for begin in range(0, len(images_NHWC), batch):
            x_BCHW = torch.from_numpy(images_NHWC[begin : begin + batch]).permute(0, 3, 1, 2).float().div(255.0)
            changed_BCHW = augment(x_BCHW, augmentation, seed=seed, step=step).mul(255.0).round().clamp(0.0, 255.0)
            parts.append(changed_BCHW.to(torch.uint8).permute(0, 2, 3, 1).numpy())
            step += 1
    return np.concatenate(parts)


def _generator(seed: int, step: int) -> torch.Generator:
    """On the CPU, so that a GPU sees the same changes."""
    digest = hashlib.sha256(f"latentmill augmentation 1\n{seed}\n{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _shifted(x_BCHW: Tensor, shift: int, draws: torch.Generator) -> Tensor:
    """Each image moved by whole pixels, exactly: rows and columns are picked, nothing is interpolated."""
    count, _, size, _ = x_BCHW.shape
    moves_2B = torch.randint(-shift, shift + 1, (2, count), generator=draws).to(x_BCHW.device)
    rows_BH, columns_BW = (torch.arange(size, device=x_BCHW.device) + moves_2B[..., None]).clamp_(0, size - 1)
    images_B11 = torch.arange(count, device=x_BCHW.device)[:, None, None]
    return x_BCHW.permute(0, 2, 3, 1)[images_B11, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


def _warped(x_BCHW: Tensor, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
    """One bilinear resampling for the affine map about the centre and the elastic displacement together."""
    count, _, size, _ = x_BCHW.shape
    grid_BHW2 = functional.affine_grid(
        _affine_maps(count, augmentation, draws), [count, 1, size, size], align_corners=False
    )
    if augmentation.elastic:
        grid_BHW2 = grid_BHW2 + _displacement(count, size, augmentation, draws) * (2.0 / size)
    return functional.grid_sample(x_BCHW, grid_BHW2.to(x_BCHW.device), padding_mode="border", align_corners=False)


def _affine_maps(count: int, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
    """B maps of two rows and three columns: rotation times shear times scale, which differs by axis."""
    angle_B, shear_B, wide_B, high_B = 2.0 * torch.rand(4, count, generator=draws) - 1.0
    angle_B, shear_B = angle_B * math.radians(augmentation.rotation), shear_B * math.radians(augmentation.shear)
    wide_B, high_B = 1.0 + augmentation.scale * wide_B, 1.0 + augmentation.scale * high_B
    cosine_B, sine_B, slope_B, zero_B = angle_B.cos(), angle_B.sin(), shear_B.tan(), torch.zeros(count)
    rows = (
        torch.stack([cosine_B * wide_B, (cosine_B * slope_B - sine_B) * high_B, zero_B], dim=1),
        torch.stack([sine_B * wide_B, (sine_B * slope_B + cosine_B) * high_B, zero_B], dim=1),
    )
    return torch.stack(rows, dim=1)


def _displacement(count: int, size: int, augmentation: Augmentation, draws: torch.Generator) -> Tensor:
    """(B, H, W, 2) in pixels: white noise, smoothed along rows and columns.

    Every row of the kernel has length one, so that the standard deviation is the same at the border as inside.
    """
    place_H = torch.arange(size, dtype=torch.float32)
    kernel_HH = torch.exp(-0.5 * ((place_H[:, None] - place_H) / augmentation.smoothness) ** 2)
    kernel_HH = functional.normalize(kernel_HH, dim=1)
    noise_2BHW = torch.randn(2, count, size, size, generator=draws)
    return (kernel_HH @ noise_2BHW @ kernel_HH.T).mul_(augmentation.elastic).permute(1, 2, 3, 0)
