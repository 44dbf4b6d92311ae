"""How to train, and what an epoch came to. Plain values: importing this file does not import torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from generator.errors import InputError, SpecError
from generator.models.autoencoders.augmentation import Augmentation
from generator.spec.canonical import FrozenModel, validate

_MIN_STEPS = 1500  # at least, so that a small source is learned as well

Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")]


class TrainSettings(FrozenModel):
    """How to train any family; everything here but the device goes into the digest that a checkpoint must agree with.

    ``epochs`` passes over the training images at most, in batches of ``batch``. ``learning_rate``: the peak of the
    schedule. ``reconstruction``: binary cross-entropy (``bce``), or the squared error of a Gaussian of variance 0.05
    (``mse``), summed over pixels. ``feature_loss`` and ``patch_loss``: weights of the two ways to sharpen images
    (``generator.models.autoencoders.sharpening``). ``holdout``: share of the images kept for early stopping and for the
    fit of the latent distribution. Training stops once the holdout has not improved for ``patience`` epochs.
    ``device``: ``auto`` takes CUDA where there is one.

    ``augmentation``: changes made to the images while training, new ones in every step. None by default: shifted or
    turned images are then generated as such, and for digits, letters and signs a mirrored image belongs to another
    class or none. With few images it pays: the codes learn to reach images that were not seen.
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


class EpochRecord(FrozenModel):
    """What one epoch came to. Losses are means over images, in nats; ``best`` if the holdout never did better."""

    epoch: int = Field(ge=1)
    train_loss: float
    holdout_loss: float
    holdout_terms: dict[str, float]
    best: bool


def default_settings(images: int, epochs: int | None = None) -> TrainSettings:
    """The settings for ``images`` real images: about as many steps for few images as for many.

    ``epochs`` instead of as many as that takes; a longer training is more patient too, since its rate falls later.
    What else a source asks for, ``generator.models.learning.recommended_settings`` knows.
    """
    batch = min(128, max(16, images // 10))
    enough = min(400, max(16, math.ceil(_MIN_STEPS / max(1, images // batch))))
    patience = max(10, max(enough, epochs or 0) // 5)
    return TrainSettings(epochs=enough if epochs is None else epochs, batch=batch, patience=patience)


def parse_settings(value: Any, *, field: str = "train", error: type[InputError] = SpecError) -> TrainSettings:
    """An untrusted value (parsed JSON or YAML) as settings; ``error`` names the field that is wrong."""
    return validate(TrainSettings, value, field=field, error=error)
