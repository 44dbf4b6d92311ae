"""Images that occur more than once."""

from __future__ import annotations

import hashlib

import numpy as np


def count_duplicates(images_NHWC: np.ndarray) -> int:
    """The number of images whose pixels, as read, are those of an image before them."""
    seen: set[bytes] = set()
    for image_HWC in images_NHWC:
        seen.add(hashlib.blake2b(np.ascontiguousarray(image_HWC).data, digest_size=16).digest())
    return len(images_NHWC) - len(seen)
