"""An exponential moving average of a network's weights (Polyak & Juditsky, 1992), with a warm-up.

The average of the first steps is nearly a plain mean, so that the initial weights do not stay in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn


@final
class WeightAverage:
    """The average of all parameters of ``network``. ``half_life``: a share of all steps, in (0, 1]."""

    def __init__(self, network: nn.Module, half_life: float) -> None:
        self._parameters, self._half_life = dict(network.named_parameters()), half_life
        self._average = {name: value.detach().clone() for name, value in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int, steps: int) -> None:
        """Take the weights after ``step`` (from 0) of ``steps`` into the average."""
        kept: float = min(0.5 ** (1.0 / max(1.0, self._half_life * steps)), (1 + step) / (10 + step))
        current = [value.detach() for value in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), current, 1.0 - kept)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights inside the block, and its own again afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Tensor]:
        """Copies of the averages on the CPU, by parameter name."""
        return {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in self._average.items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from ``state``. Raises ``KeyError`` or ``RuntimeError`` if it is of another network."""
        for name, value in self._average.items():
            value.copy_(state[name])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._average[name] = self._average[name], parameter.data
