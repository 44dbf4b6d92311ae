"""What a training tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from generator.models.autoencoders.settings import EpochRecord
from generator.models.autoencoders.training import Progress


def _ignore(*_: object) -> None:
    """Nothing is done."""


@dataclass(frozen=True)
class TrainingCallbacks:
    """Functions that a training calls in its own thread; what one raises ends the training.

    ``on_step``: after each step of the autoencoder. ``on_epoch``: after each epoch of it.
    ``on_networks``: after each epoch too, with encoder and decoder, to look at and not to change.
    ``on_encode``: with the images that are encoded and their number.
    ``on_fit``: when the fit of the latent distribution begins, with (0, 1), and after each epoch of it, with the epochs
    done and their number.
    ``on_tune``: after each step that trains the decoder on sampled codes, with the steps done and their number.
    ``on_stage``: with the name of each later stage.
    """

    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None
    on_networks: Callable[[nn.Module, nn.Module], None] | None = None
    on_encode: Callable[[int, int], None] = _ignore
    on_fit: Callable[[int, int], None] = _ignore
    on_tune: Callable[[int, int], None] = _ignore
    on_stage: Callable[[str], None] = _ignore


SILENT = TrainingCallbacks()
