"""What is refused, and drawn again at the next attempt of the same index.

Before decoding: samples below the density floor. After decoding: images that show nothing.
"""

from __future__ import annotations

import numpy as np

from generator.errors import RejectionExhausted


def valid_images(images_BHWC: np.ndarray) -> np.ndarray:
    """Which images (uint8) are worth keeping, bool (B,): an image of one single value everywhere is not."""
    flat_BP = images_BHWC.reshape(len(images_BHWC), -1)
    varied_B: np.ndarray = flat_BP.min(axis=1) != flat_BP.max(axis=1)
    return varied_B


def check_attempts(attempts_N: np.ndarray, limit: int, *, accepted: int, drawn: int) -> None:
    """Raise ``RejectionExhausted`` when a sample would need attempt number ``limit`` (they count from 0)."""
    if len(attempts_N) and int(attempts_N.max()) >= limit:
        rate = accepted / max(drawn, 1)
        raise RejectionExhausted(
            "max_attempts",
            f"every sample accepted within {limit} attempts",
            f"{int((attempts_N >= limit).sum())} sample(s) refused every time; acceptance rate {rate:.2%}",
            "lower density_floor, raise max_attempts, or inspect the bundle: its samples leave the codes' support",
        )
