"""What the training loop asks of a family of autoencoders: two networks and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from generator.autoencoders.networks import Decoder, Encoder


@dataclass(frozen=True)
class Losses:
    """``total`` is what is minimised, a scalar with a gradient; ``terms`` are its parts, by name, as scalars."""

    total: Tensor
    terms: dict[str, Tensor]


class Autoencoder(nn.Module, ABC):
    """Base of all families: each is one file with one final class."""

    encoder: Encoder
    decoder: Decoder

    @abstractmethod
    def losses(self, x_BCHW: Tensor, *, progress: float, noise: torch.Generator | None) -> Losses:
        """The losses of a batch of images in [0, 1], as means over its rows.

        ``progress`` in [0, 1] is the share of all training steps done. ``noise`` is the only source of randomness;
        ``None`` asks for the deterministic losses by which the holdout is judged.
        """
