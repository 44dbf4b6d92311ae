"""What an image encoder is: uint8 pixels in, the bytes of a marked file out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class ImageEncoder(ABC):
    """Encodes images one by one or many at once, with the same bytes either way. Safe to use from several threads."""

    @abstractmethod
    def encode_many(self, images_BHWC: np.ndarray) -> list[bytes]:
        """The files of uint8 images with C in {1, 3} channels, marked as synthetic."""

    def __call__(self, image_HWC: np.ndarray) -> bytes:
        """The file of one image."""
        return self.encode_many(image_HWC[None])[0]
