"""Images that occur more than once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from generator.spec.machine import usable_cores

_IMAGES_AT_ONCE = 1024


def count_duplicates(images_NHWC: np.ndarray) -> int:
    """The number of images whose pixels, as read, are those of an image before them."""

    def hashes(begin: int) -> np.ndarray:
        block = np.ascontiguousarray(images_NHWC[begin : begin + _IMAGES_AT_ONCE])
        digests = b"".join(hashlib.blake2b(image_HWC.data, digest_size=8).digest() for image_HWC in block)
        return np.frombuffer(digests, dtype=np.uint64)

    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(hashes, range(0, len(images_NHWC), _IMAGES_AT_ONCE)))
    return len(images_NHWC) - len(np.unique(np.concatenate(found)))
