"""The interface of image encoders: uint8 pixels to the bytes of a marked file."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np


class ImageEncoder(ABC):
    """Encodes one image or many; the bytes are the same either way. Safe to use from several threads."""

    @abstractmethod
    def encode_many(self, images_BHWC: np.ndarray) -> list[bytes]:
        """The files of uint8 images with C in {1, 3} channels, marked as synthetic."""

    def __call__(self, image_HWC: np.ndarray) -> bytes:
        """The file of one image."""
        return self.encode_many(image_HWC[None])[0]
