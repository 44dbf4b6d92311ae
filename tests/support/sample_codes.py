"""Synthetic latent codes with a known distribution, for tests."""

from __future__ import annotations

import numpy as np

from generator.models.latents.codes import Codes


def _split(codes_ND: np.ndarray, labels_N: np.ndarray | None = None, names: tuple[str, ...] = ()) -> Codes:
    """Split codes: every fourth one is held out, the others are training codes."""
    held = np.arange(len(codes_ND)) % 4 == 0
    if labels_N is None:
        return Codes(codes_ND[~held], None, codes_ND[held], None)
    return Codes(codes_ND[~held], labels_N[~held], codes_ND[held], labels_N[held], names)


def ring(count: int, *, noise: float = 0.08, seed: int = 0) -> Codes:
    """``count`` training codes on a unit circle in the plane, and a third as many held out; unlabelled."""
    rng = np.random.default_rng(seed)
    turn_N = rng.uniform(0.0, 2.0 * np.pi, count * 4 // 3)
    circle_N2 = np.stack([np.cos(turn_N), np.sin(turn_N)], axis=1)
    return _split(circle_N2 + rng.normal(scale=noise, size=circle_N2.shape))


def gaussian(count: int, *, dims: int, seed: int = 0) -> Codes:
    """``count`` training codes of one round Gaussian; unlabelled."""
    return _split(np.random.default_rng(seed).normal(size=(count * 4 // 3, dims)))


def blobs(count: int, *, dims: int = 2, seed: int = 0) -> Codes:
    """``count`` training codes of two classes, each a round Gaussian of radius one, twelve apart."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 2, -(-count * 4 // 3))
    codes_ND = rng.normal(size=(len(labels_N), dims))
    codes_ND[:, 0] += 12.0 * labels_N
    return _split(codes_ND, labels_N, ("left", "right"))
