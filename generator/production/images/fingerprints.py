"""Fingerprints of this process's image encoders: the digest of fixed test images, encoded.

Deflate may choose among matches, and libraries choose differently on processors with different instructions. Processes
whose encoders differ in a byte must not share a build, even if their library versions are equal. The environment
therefore contains these digests.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version

import numpy as np

from generator.production.images.codec import image_encoder
from generator.spec.recipe import JpegSettings, PngSettings


@cache
def encoder_fingerprints() -> dict[str, str]:
    """Library, release and fingerprint of each encoder: ``{"jpeg": "simplejpeg 1.9.0 (5d3c...)", ...}``."""
    image_HWC = _test_image()
    encoders: dict[str, tuple[str, tuple[PngSettings | JpegSettings, ...]]] = {
        "jpeg": ("simplejpeg", (JpegSettings(), JpegSettings(quality=75, subsampling="4:2:0"))),
        "png": ("isal", (PngSettings(), PngSettings(level=1), PngSettings(level=9))),
    }
    facts = {}
    for name, (library, settings) in encoders.items():
        digest = hashlib.sha256()
        for setting in settings:
            digest.update(image_encoder(setting, 1)(image_HWC))
        facts[name] = f"{library} {version(library)} ({digest.hexdigest()[:12]})"
    return facts


def _test_image() -> np.ndarray:
    """The test image, uint8 (64, 64, 3): gradients, edges and noise, computed in integers only."""
    y, x, c = np.indices((64, 64, 3), dtype=np.uint32)
    grain = ((x * 2654435761 + y * 2246822519 + c * 3266489917) >> np.uint32(13)) & np.uint32(15)
    return np.asarray(((x * (c + 1) + y * 2) // 2 + 40 * ((x // 9 + y // 7) % 2) + grain) % 256, dtype=np.uint8)
