"""What network to build, and how to train it. Plain values: importing this file does not import torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from generator.canonical import Frozen, validated
from generator.errors import InputError, SpecError

MIN_SIZE, MAX_SIZE = 8, 128
_COARSEST = 4
_STEPS = 1500  # at least, so that a small source is learned as well

Device = Annotated[str, StringConstraints(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")]


class VaeConfig(Frozen):
    """A convolutional variational autoencoder for square images.

    ``size``: height and width in pixels. ``channels``: 1 grey, 3 RGB. ``latent_dim``: dimensions of a code.
    ``width``: feature maps at half the image's resolution; they double with each halving, up to eight times.
    """

    family: Literal["vae"] = "vae"
    size: int = Field(ge=MIN_SIZE, le=MAX_SIZE, strict=True)
    channels: Literal[1, 3] = 1
    latent_dim: int = Field(ge=1, le=512, strict=True)
    width: int = Field(default=32, ge=4, le=256, strict=True)


class TrainSettings(Frozen):
    """How to train; everything here but the device goes into the digest that a checkpoint must agree with.

    ``epochs`` passes over the training images at most, in batches of ``batch``. ``learning_rate``: the peak of the
    schedule. ``beta``: weight of the Kullback-Leibler term against the reconstruction (1 is the evidence lower
    bound); it is reached after ``warmup`` of all steps, growing from zero. ``reconstruction``: binary cross-entropy
    (``bce``), or the squared error of a Gaussian of variance 0.05 (``mse``), summed over pixels. ``holdout``: share of
    the images kept for early stopping and for the fit of the latent distribution. Training stops once the holdout has
    not improved for ``patience`` epochs. ``clusters_by``: what chooses the number of clusters on held-out codes
    (``generator.latents.fitting``). ``device``: ``auto`` takes CUDA where there is one.

    There is no augmentation: shifted or mirrored images would be generated as such, and for digits, letters and signs
    a mirrored image belongs to another class or none.
    """

    epochs: int = Field(default=8, ge=1, le=10_000, strict=True)
    batch: int = Field(default=128, ge=2, le=65_536, strict=True)
    learning_rate: float = Field(default=2e-3, gt=0.0, le=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0, le=1.0)
    beta: float = Field(default=0.05, ge=0.0, le=100.0)
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    reconstruction: Literal["bce", "mse"] = "bce"
    holdout: float = Field(default=0.1, gt=0.0, lt=0.9)
    patience: int = Field(default=10, ge=1, le=10_000, strict=True)
    clusters_by: Literal["likelihood", "bic"] = "likelihood"
    seed: int = Field(default=0, ge=0, lt=2**31, strict=True)
    device: Device = "auto"


class EpochRecord(Frozen):
    """What one epoch came to. Losses are means over images, in nats; ``best`` if the holdout never did better."""

    epoch: int = Field(ge=1)
    train_loss: float
    holdout_loss: float
    holdout_terms: dict[str, float]
    best: bool


def default_config(size: int, channels: int) -> VaeConfig:
    """The configuration we recommend for images of ``size`` x ``size`` pixels with 1 or 3 ``channels``.

    Raises ``SpecError`` for a size outside 8 to 128 or another number of channels.
    """
    latent_dim = (16 if size < 16 else 24 if size < 48 else 48) * (2 if channels == 3 else 1)
    width = 64 if size < 16 else 32
    return parse_config({"size": size, "channels": channels, "latent_dim": latent_dim, "width": width})


def default_settings(images: int) -> TrainSettings:
    """The settings we recommend for ``images`` real images: about as many steps for few images as for many."""
    batch = min(128, max(16, images // 10))
    epochs = min(400, max(8, math.ceil(_STEPS / max(1, images // batch))))
    return TrainSettings(epochs=epochs, batch=batch, patience=max(10, epochs // 5))


def parse_config(value: Any, *, field: str = "model", error: type[InputError] = SpecError) -> VaeConfig:
    """An untrusted value (parsed JSON or YAML) as a configuration; ``error`` names the field that is wrong."""
    return validated(VaeConfig, value, field=field, error=error)


def parse_settings(value: Any, *, field: str = "train", error: type[InputError] = SpecError) -> TrainSettings:
    """An untrusted value (parsed JSON or YAML) as settings; ``error`` names the field that is wrong."""
    return validated(TrainSettings, value, field=field, error=error)


def ladder(size: int) -> tuple[int, ...]:
    """Side lengths from ``size`` down to the coarsest grid (at most 4), each half of the last, rounded up."""
    sides = [size]
    while sides[-1] > _COARSEST:
        sides.append((sides[-1] + 1) // 2)
    return tuple(sides)
