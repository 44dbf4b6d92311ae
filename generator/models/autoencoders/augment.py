"""Random image augmentation: shifts, affine warps, elastic deformations, mirroring.

All random numbers depend on the seed and the step alone, so arms of a comparison that share both get the same changes,
on any device. H and W are height and width in pixels; x_BCHW is float32 in [0, 1].
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
    """``x_BCHW`` after the random changes of ``step``; pixels from outside the image repeat the border."""
    generator = _generator(seed, step)
    if augmentation.mirror:
        mirrored_B = torch.rand(len(x_BCHW), generator=generator).to(x_BCHW.device) < 0.5
        x_BCHW = torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(3), x_BCHW)
    if augmentation.shift:
        x_BCHW = _shift(x_BCHW, augmentation.shift, generator)
    if augmentation.has_warp:
        x_BCHW = _warp(x_BCHW, augmentation, generator)
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
    """A generator on the CPU, so that all devices get the same changes."""
    digest = hashlib.sha256(f"latentmill augmentation 1\n{seed}\n{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _shift(x_BCHW: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Each image shifted by whole pixels, without interpolation."""
    count, _, height, width = x_BCHW.shape
    moves_2B = torch.randint(-shift, shift + 1, (2, count), generator=generator).to(x_BCHW.device)
    rows_BH, columns_BW = (
        (torch.arange(side, device=x_BCHW.device) + moves_B[:, None]).clamp_(0, side - 1)
        for side, moves_B in zip((height, width), moves_2B, strict=True)
    )
    images_B11 = torch.arange(count, device=x_BCHW.device)[:, None, None]
    return x_BCHW.permute(0, 2, 3, 1)[images_B11, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


def _warp(x_BCHW: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """The affine map about the centre and the elastic displacement, in one bilinear resampling."""
    count, _, height, width = x_BCHW.shape
    maps_B23 = _affine_maps(count, augmentation, generator, height / width)
    grid_BHW2 = functional.affine_grid(maps_B23, [count, 1, height, width], align_corners=False)
    if augmentation.elastic:
        unit_2 = torch.tensor([2.0 / width, 2.0 / height])  # a pixel, where both axes run from -1 to 1
        grid_BHW2 = grid_BHW2 + _displacement(count, height, width, augmentation, generator) * unit_2
    return functional.grid_sample(x_BCHW, grid_BHW2.to(x_BCHW.device), padding_mode="border", align_corners=False)


def _affine_maps(count: int, augmentation: Augmentation, generator: torch.Generator, aspect: float) -> Tensor:
    """(B, 2, 3): rotation times shear times scale (one scale per axis), for coordinates from -1 to 1 along both axes.

    ``aspect``: height / width. In pixels, the vertical unit is so many times the horizontal one.
    """
    angle_B, shear_B, scale_x_B, scale_y_B = 2.0 * torch.rand(4, count, generator=generator) - 1.0
    angle_B, shear_B = angle_B * math.radians(augmentation.rotation), shear_B * math.radians(augmentation.shear)
    scale_x_B, scale_y_B = 1.0 + augmentation.scale * scale_x_B, 1.0 + augmentation.scale * scale_y_B
    cosine_B, sine_B, slope_B, zero_B = angle_B.cos(), angle_B.sin(), shear_B.tan(), torch.zeros(count)
    rows = (
        torch.stack([cosine_B * scale_x_B, (cosine_B * slope_B - sine_B) * scale_y_B * aspect, zero_B], dim=1),
        torch.stack([sine_B * scale_x_B / aspect, (sine_B * slope_B + cosine_B) * scale_y_B, zero_B], dim=1),
    )
    return torch.stack(rows, dim=1)


def _displacement(
    count: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """(B, H, W, 2) in pixels, horizontal and vertical: white noise, smoothed along rows and columns.

    Every row of the kernel has norm 1, so that the standard deviation at the border is the same as inside.
    """
    kernel_HH, kernel_WW = (_smoothing_kernel(side, augmentation.smoothness) for side in (height, width))
    noise_2BHW = torch.randn(2, count, height, width, generator=generator)
    return (kernel_HH @ noise_2BHW @ kernel_WW.T).mul_(augmentation.elastic).permute(1, 2, 3, 0)


def _smoothing_kernel(side: int, smoothness: float) -> Tensor:
    position_S = torch.arange(side, dtype=torch.float32)
    kernel_SS = torch.exp(-0.5 * ((position_S[:, None] - position_S) / smoothness) ** 2)
    return functional.normalize(kernel_SS, dim=1)
