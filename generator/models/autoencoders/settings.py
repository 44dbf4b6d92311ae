"""Training settings, and the record of an epoch. Importing this file does not import torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from generator.errors import InputError, SpecError
from generator.models.autoencoders.augmentation import Augmentation
from generator.spec.canonical import FrozenModel, GrowingModel, Later, validate
from generator.spec.patterns import pattern

_MIN_STEPS = 1500  # minimum number of steps for a small source

Device = Annotated[
    str, StringConstraints(pattern=pattern(r"^(auto|cpu|cuda(:\d{1,3})?)$", "auto, cpu, cuda or cuda:N"))
]
Precision = Literal["auto", "float32", "bfloat16"]


class TrainSettings(GrowingModel):
    """Settings for training any family. All except the device are part of the digest that a checkpoint must match.

    At most ``epochs`` passes over the training images, in batches of ``batch``. ``learning_rate``: the peak of the
    schedule. ``reconstruction``: binary cross-entropy (``bce``), or the squared error of a Gaussian of variance 0.05
    (``mse``), summed over pixels. ``feature_loss`` and ``patch_loss``: weights of the sharpening losses
    (``generator.models.autoencoders.sharpening``). ``holdout``: share of the images held out for early stopping and
    for the fit of the latent distribution. Training stops once the holdout has not improved for ``patience`` epochs.
    ``tuning_steps``: steps that train the decoder further on sampled codes, once the latent distribution is fitted
    (``generator.models.autoencoders.decoder_tuning``). ``device``: ``auto`` uses CUDA if available. ``precision``: of
    the products in the autoencoder's training; weights, losses and the holdout are float32 in any case. ``auto``:
    bfloat16 on CUDA devices that have it, float32 elsewhere.

    ``augmentation``: random changes of the training images, new in every step. None by default, as the model also
    generates what it sees in training (shifted or rotated images), and mirrored digits, letters and signs belong to
    another class or none. With few images it helps: the model generalises to images that it was not trained on.
    """

    epochs: int = Field(default=8, ge=1, le=10_000, strict=True)
    batch: int = Field(default=128, ge=2, le=65_536, strict=True)
    learning_rate: float = Field(default=2e-3, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    reconstruction: Literal["bce", "mse"] = "bce"
    augmentation: Augmentation = Augmentation()
    feature_loss: float = Field(default=0.0, ge=0.0, le=10_000.0)
    patch_loss: float = Field(default=0.0, ge=0.0, le=1000.0)
    holdout: float = Field(default=0.1, gt=0.0, lt=0.9)
    patience: int = Field(default=10, ge=1, le=10_000, strict=True)
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)
    device: Device = "auto"
    precision: Annotated[Precision, Later()] = "auto"
    tuning_steps: Annotated[int, Later()] = Field(default=0, ge=0, le=1_000_000, strict=True)


class EpochRecord(FrozenModel):
    """The result of one epoch. Losses are means over images, in nats; ``best``: the lowest holdout loss so far."""

    epoch: int = Field(ge=1)
    train_loss: float
    holdout_loss: float
    holdout_terms: dict[str, float]
    best: bool


def default_settings(images: int, epochs: int | None = None) -> TrainSettings:
    """The settings for ``images`` real images, with about the same number of steps for few images as for many.

    ``epochs`` replaces the default number. A longer training has more patience, as its learning rate falls later.
    ``generator.models.learning.recommended_settings`` also considers other properties of the source.
    """
    batch = min(128, max(16, images // 10))
    default_epochs = min(400, max(16, math.ceil(_MIN_STEPS / max(1, images // batch))))
    patience = max(10, max(default_epochs, epochs or 0) // 5)
    return TrainSettings(epochs=default_epochs if epochs is None else epochs, batch=batch, patience=patience)


def parse_settings(value: Any, *, field: str = "train", error: type[InputError] = SpecError) -> TrainSettings:
    """An untrusted value (parsed JSON or YAML) as settings; ``error`` names the field that is wrong."""
    return validate(TrainSettings, value, field=field, error=error)
