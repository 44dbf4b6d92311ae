"""Settings of the image augmentation. Importing this file does not import torch."""

from __future__ import annotations

from pydantic import Field

from generator.spec.canonical import FrozenModel


class Augmentation(FrozenModel):
    """Random changes that keep an image in its class; none by default. Each number is the maximum of a uniform change.

    ``shift``: whole pixels. ``rotation`` and ``shear``: degrees. ``scale``: share of both sides, 0.1 for 0.9 to 1.1.
    ``elastic``: standard deviation, in pixels, of a random displacement of every pixel, smoothed by a Gaussian of
    ``smoothness`` pixels (Simard, Steinkraus & Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003). ``mirror``: half of the images are mirrored left to right; not for
    digits, letters or signs.
    """

    shift: int = Field(default=0, ge=0, le=32, strict=True)
    rotation: float = Field(default=0.0, ge=0.0, le=180.0)
    scale: float = Field(default=0.0, ge=0.0, le=0.9)
    shear: float = Field(default=0.0, ge=0.0, le=60.0)
    elastic: float = Field(default=0.0, ge=0.0, le=16.0)
    smoothness: float = Field(default=4.0, gt=0.0, le=64.0)
    mirror: bool = False

    @property
    def has_warp(self) -> bool:
        return max(self.rotation, self.scale, self.shear, self.elastic) > 0.0

    @property
    def is_active(self) -> bool:
        return self.mirror or self.shift > 0 or self.has_warp
