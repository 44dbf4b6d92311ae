"""The encoder and decoder of the family ``spatial``, whose codes are grids.

Pixels become channels at the input and channels pixels at the output (pixel shuffle; Shi et al., CVPR 2016), so that
nearly all work is done on a coarse grid. Residual blocks (He et al., ECCV 2016) without normalisation begin as the
identity: their last convolution begins at zero (Zhang, Dauphin & Ma, "Fixup initialization", ICLR 2019).

Images whose sides are no multiples of twice the patch get margins, which repeat the border, and are cut out of what is
decoded.

Legend: B batch, C channels, H height, W width, D = numbers of a code. Images are float32 in [0, 1], NCHW.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.models.autoencoders.config import SpatialConfig

_ENCODER_BLOCKS, _DECODER_BLOCKS = 1, 2  # on the finer grid; one on the grid of the code


@final
class SpatialEncoder(nn.Module):
    """x_BCHW in [0, 1] -> z_BD, the flattened grid (C, h, w)."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        width, self._patch, self._margins = config.width, config.patch, config.margins
        self.stem = nn.Conv2d(config.channels * config.patch**2, width, 3, padding=1)
        self.fine = nn.Sequential(*(_ResidualBlock(width) for _ in range(_ENCODER_BLOCKS)))
        self.down = nn.Conv2d(4 * width, 2 * width, 1)
        self.coarse = _ResidualBlock(2 * width)
        self.code = nn.Conv2d(2 * width, config.code_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.grid(self.extend(x_BCHW)).flatten(1)

    def extend(self, x_BCHW: Tensor) -> Tensor:
        """The images with their margins."""
        if self._margins.are_empty:
            return x_BCHW
        top, bottom, left, right = self._margins
        return functional.pad(x_BCHW, (left, right, top, bottom), mode="replicate")

    def grid(self, x_BCHW: Tensor) -> Tensor:
        """z_BChw of images of any size that is a multiple of twice the patch."""
        features = self.fine(self.stem(functional.pixel_unshuffle(x_BCHW, self._patch)))
        z_BChw: Tensor = self.code(functional.silu(self.coarse(self.down(functional.pixel_unshuffle(features, 2)))))
        return z_BChw


@final
class SpatialDecoder(nn.Module):
    """z_BD, the flattened grid (C, h, w), float32 -> x_BCHW in [0, 1]."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        width, self._patch, self._margins = config.width, config.patch, config.margins
        self._width, self._height = config.image_size
        self.unflatten = nn.Unflatten(1, config.code_shape)
        self.stem = nn.Conv2d(config.code_channels, 2 * width, 3, padding=1)
        self.coarse = _ResidualBlock(2 * width)
        self.up = nn.Conv2d(2 * width, 4 * width, 1)
        self.fine = nn.Sequential(*(_ResidualBlock(width) for _ in range(_DECODER_BLOCKS)))
        self.pixels = nn.Conv2d(width, config.channels * config.patch**2, 3, padding=1)

    def forward(self, z_BD: Tensor) -> Tensor:
        x_BCHW = self.unclamped(self.unflatten(z_BD)).clamp(0.0, 1.0)
        if self._margins.are_empty:
            return x_BCHW
        top, left = self._margins.top, self._margins.left
        return x_BCHW[:, :, top : top + self._height, left : left + self._width]

    def unclamped(self, z_BChw: Tensor) -> Tensor:
        """Images with their margins before the restriction to [0, 1], of any grid of codes."""
        coarse = self.coarse(self.stem(z_BChw.contiguous(memory_format=torch.channels_last)))
        fine = self.fine(functional.pixel_shuffle(self.up(coarse), 2))
        return functional.pixel_shuffle(self.pixels(functional.silu(fine)), self._patch) + 0.5


@final
class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        change_BCHW: Tensor = self.second(functional.silu(self.first(functional.silu(x_BCHW))))
        return x_BCHW + change_BCHW
