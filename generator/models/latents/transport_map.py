"""The map of the family ``transport``: moves points of the base distribution to where codes are, in a few steps.

Flow matching (Lipman et al., arXiv:2210.02747) between base points x0 and codes x1 of one class, on the straight lines
x_t = (1 - t) x0 + t x1. Base and codes have the same mean m and covariance in each class, so the best *linear* velocity
is known, a(t) (x_t - m) with a(t) = (2t - 1) / ((1 - t)^2 + t^2); it maps the base to itself. A residual network, whose
last layer begins at zero, adds what the Gaussian does not know. Integration is exact for the linear part: from t to s,
x - m is scaled by sqrt(((1 - s)^2 + s^2) / ((1 - t)^2 + t^2)), and the network's velocity is added (exponential Euler).

A row's result does not depend on other rows: every norm is per row, the number of steps is fixed, and the rows of
products are padded to whole tiles. Float32 on every device.

Legend: B rows, D dimensions, C classes (1 if unlabelled), W width of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from generator.models.latents.base import LatentDistribution
from generator.models.latents.config import MapSettings
from generator.models.latents.transport import CONDITION, FREQUENCIES, MapConfig, Transport

ROW_TILE = 64  # rows of a product are padded to a multiple of this
_ROWS = 4096  # that are carried at a time


@final
class TransportMap(nn.Module):
    """(base points z_BD float32, labels_B int64) -> codes z_BD float32. ``mean_CD`` and ``scale_CD``: of the base."""

    def __init__(self, config: MapConfig, mean_CD: np.ndarray, scale_CD: np.ndarray) -> None:
        super().__init__()
        classes, dims = mean_CD.shape
        self.times = config.times
        self.network = VelocityNetwork(config, dims, classes)
        for name, value in (("mean_CD", mean_CD), ("scale_CD", scale_CD)):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

    def forward(self, z_BD: Tensor, labels_B: Tensor) -> Tensor:
        """From t = 0 to t = 1, with the network evaluated at all ``times`` but the last."""
        return self._integrate(z_BD, labels_B, self.times)

    def integrate_back(self, z_BD: Tensor, labels_B: Tensor, steps: int) -> Tensor:
        """From t = 1 to t = 0 in ``steps`` equal steps: about the base points of codes ``z_BD``."""
        return self._integrate(z_BD, labels_B, [step / steps for step in range(steps, -1, -1)])

    def _integrate(self, z_BD: Tensor, labels_B: Tensor, times: Sequence[float]) -> Tensor:
        padding = -len(z_BD) % ROW_TILE
        padded_BD, padded_B = functional.pad(z_BD, (0, 0, 0, padding)), functional.pad(labels_B, (0, padding))
        mean_BD, scale_BD = self.mean_CD[padded_B], self.scale_CD[padded_B]  # type: ignore[index]
        x_BD, class_BE = (padded_BD - mean_BD) / scale_BD, self.network.class_modulation(padded_B)
        for start, end in pairwise(times):
            time_1E = self.network.time_modulation(torch.full((1,), start, device=x_BD.device))
            velocity_BD = self.network(x_BD, time_1E + class_BE)
            x_BD = x_BD * math.sqrt(_spread(end) / _spread(start)) + velocity_BD * (end - start)
        return (x_BD * scale_BD + mean_BD)[: len(z_BD)]


@final
class VelocityNetwork(nn.Module):
    """(x_BD standardised, modulation_BE) -> the velocity that is added to the linear one, x's unit a unit of time."""

    class_table_CE: Tensor | None

    def __init__(self, config: MapSettings, dims: int, classes: int) -> None:
        super().__init__()
        width = config.width
        modulations = 3 * width * config.blocks
        self.stem = nn.Linear(dims, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(config.blocks))
        self.head = nn.Linear(width, dims)
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, CONDITION), nn.SiLU(), nn.Linear(CONDITION, CONDITION), nn.SiLU()
        )
        self.time_out = nn.Linear(CONDITION, modulations)
        self.label = nn.Embedding(classes, CONDITION)
        self.label_out = nn.Linear(CONDITION, modulations, bias=False)
        self.register_buffer("class_table_CE", None, persistent=False)
        for layer in (self.head, self.time_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.label_out.weight, std=1e-3)

    def forward(self, x_BD: Tensor, modulation_BE: Tensor) -> Tensor:
        h_BW = self.stem(x_BD)
        for block, part_BE in zip(self.blocks, modulation_BE.chunk(len(self.blocks), dim=1), strict=True):
            h_BW = block(h_BW, part_BE)
        velocity_BD: Tensor = self.head(_row_norm(h_BW))
        return velocity_BD

    def time_modulation(self, time_B: Tensor) -> Tensor:
        """modulation_BE of times in [0, 1]; E is three numbers for each unit of each block."""
        frequency_F = torch.exp(torch.linspace(0.0, math.log(200.0), FREQUENCIES, device=time_B.device))
        angle_BF = time_B[:, None] * frequency_F
        modulation_BE: Tensor = self.time_out(self.time(torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)))
        return modulation_BE

    def class_modulation(self, labels_B: Tensor) -> Tensor:
        """modulation_BE of labels: rows of a table with one row a class."""
        table_CE: Tensor = self._class_table() if self.class_table_CE is None else self.class_table_CE
        return table_CE[labels_B]

    @torch.no_grad()
    def keep_class_table(self) -> None:
        """Compute the table of ``class_modulation`` once, for weights that no longer change."""
        self.class_table_CE = self._class_table()

    def _class_table(self) -> Tensor:
        table_CE: Tensor = self.label_out(self.label.weight)
        return table_CE


@final
class _Block(nn.Module):
    """x + gain * MLP(norm(x) * scale + shift), with scale, shift and gain from the modulation (Peebles & Xie, 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.normal_(self.second.weight, std=0.3 / math.sqrt(width))
        nn.init.zeros_(self.second.bias)

    def forward(self, x_BW: Tensor, modulation_BE: Tensor) -> Tensor:
        shift_BW, scale_BW, gain_BW = modulation_BE.chunk(3, dim=1)
        h_BW = functional.silu(self.first(_row_norm(x_BW) * (1.0 + scale_BW) + shift_BW))
        change_BW: Tensor = self.second(h_BW)
        return x_BW + (1.0 + gain_BW) * change_BW


def linear_velocity(time_B1: Tensor) -> Tensor:
    """a(t): the velocity of the Gaussian itself is a(t) times the distance to the mean of the class."""
    return (2.0 * time_B1 - 1.0) / ((1.0 - time_B1).square() + time_B1.square())


def new_map(distribution: LatentDistribution) -> TransportMap | None:
    """The map of a distribution, frozen, on the CPU; ``None`` if its draws are codes."""
    if not isinstance(distribution, Transport) or distribution.map_settings is None:
        return None
    network = TransportMap(distribution.map_settings, distribution.base.mean_CD, distribution.base.scale())
    network.load_state_dict({name: torch.from_numpy(weight) for name, weight in distribution.map_weights.items()})
    network.network.keep_class_table()
    return network.eval().requires_grad_(False)


@torch.inference_mode()
def to_codes(distribution: LatentDistribution, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
    """float64 (B, D): the codes that the decoder takes for draws ``z_BD`` (float64) of ``labels_B`` (int64)."""
    network = new_map(distribution)
    if network is None:
        return z_BD
    codes_BD = np.empty_like(z_BD)
    for begin in range(0, len(z_BD), _ROWS):
        rows = slice(begin, begin + _ROWS)
        points_RD = torch.from_numpy(z_BD[rows].astype(np.float32))
        codes_BD[rows] = network(points_RD, torch.from_numpy(labels_B[rows])).numpy()
    return codes_BD


def _spread(time: float) -> float:
    return (1.0 - time) ** 2 + time**2


def _row_norm(x_BW: Tensor) -> Tensor:
    return functional.layer_norm(x_BW, x_BW.shape[-1:])
