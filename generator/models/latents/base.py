"""The interface of a fitted latent distribution: sampling codes, and their log-density.

Legend: B batch, D latent dimensions, C classes (1 when unlabelled). Every distribution is batch-invariant bit for
bit: a row's result depends on that row's noise and label alone, not on the size or order of the batch. BLAS and
reductions whose order depends on the batch break this; use ``generator.models.latents.kernels`` instead.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.spec.seeding import Noise


@dataclass(frozen=True)
class SampledCodes:
    """Codes drawn from a latent distribution, and the mixture component that each came from.

    ``log_density_B``: their log-density given the label, where the draw gives it for nothing; else ``None``.
    """

    z_BD: np.ndarray  # float64
    cluster_B: np.ndarray  # int32, 0 .. clusters of the row's class - 1
    log_density_B: np.ndarray | None = None  # float64

    def __len__(self) -> int:
        return len(self.z_BD)


class LatentDistribution(ABC):
    """A fitted distribution of codes given the label. There is no unfitted state."""

    @property
    @abstractmethod
    def dims(self) -> int:
        """Number of latent dimensions D."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes; 0 if it was fitted to codes without labels (every label is then 0)."""

    @property
    def clusters(self) -> tuple[int, ...]:
        """Number of clusters of each class (one entry when unlabelled). A family with more than one in a class stores
        these numbers as ``clusters`` in the JSON of its state; recipes are checked against them."""
        return (1,) * max(1, self.classes)

    def choice_for_cluster(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): values of ``choice_B`` for which ``sample`` selects these clusters (int64) of these classes."""
        return np.full(np.broadcast(cluster_B, labels_B).shape, 0.5)

    @abstractmethod
    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        """One code per row of ``noise`` (B rows, D normals each), of the class in ``labels_B`` (int64)."""

    @abstractmethod
    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): natural log of the density of each code given its label, per unit of latent volume."""

    @abstractmethod
    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        """Inverse of ``sample``: the noise that gives these codes for these labels, up to rounding.

        The cluster is the one with the highest responsibility for the code; ``choice_B`` is the middle of its interval
        in (0, 1).
        """

    @abstractmethod
    def density_floor(self, quantile: float) -> np.ndarray:
        """float64 (C,): each class's quantile of the log-density of held-out codes, or of samples where that is lower.

        So at most this share of samples is rejected. ``quantile`` in [0, 1], interpolated linearly between the stored
        points.
        """

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(plain JSON, arrays): what ``load_distribution`` needs to restore this value, bit for bit."""
