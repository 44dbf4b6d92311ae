"""The last step of every decoder: float images to uint8, on the device, in the layout of the encoders (BHWC).

Legend: B batch, C channels.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

_CACHE_BYTES = 2**19  # float32 bytes rounded at a time, so that all passes over them stay in the processor cache


@final
class Uint8Output(nn.Module):
    """A network z_BD (or z_BD and labels_B) -> x_BCHW in [0, 1], followed by rounding to the nearest of 0 to 255 (uint8
    BHWC).

    Also returns whether every value was finite (a bool tensor without dimensions). ``rows`` images are rounded at a
    time.
    """

    def __init__(self, network: nn.Module, rows: int) -> None:
        super().__init__()
        self.network, self.images_per_pass = network, rows

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        x_BCHW = self.network(*inputs).float()
        finite = torch.isfinite(x_BCHW.sum())  # a NaN or infinity makes the sum one; finite images cannot overflow it
        if len(x_BCHW) <= self.images_per_pass:
            return _to_uint8(x_BCHW), finite
        return torch.cat([_to_uint8(part) for part in x_BCHW.split(self.images_per_pass)]), finite


def images_per_pass(height: int, width: int, channels: int) -> int:
    """How many images are rounded at a time on a CPU."""
    return max(1, _CACHE_BYTES // (4 * height * width * channels))


def _to_uint8(x_BCHW: Tensor) -> Tensor:
    levels_BCHW = (x_BCHW * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    return levels_BCHW.permute(0, 2, 3, 1).contiguous()
