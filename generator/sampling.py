"""Seeding to accepted latent points: for each index, the first attempt whose density reaches the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from generator.filters import check_attempts
from generator.latents import LatentDistribution
from generator.seeding import noise
from generator.spec import Recipe


@dataclass(frozen=True)
class Draw:
    """Accepted latent points of B samples, and how many draws were refused on the way."""

    z_BD: np.ndarray  # float64
    attempts_B: np.ndarray  # int64
    clusters_B: np.ndarray  # int32
    log_density_B: np.ndarray  # float64, given the label
    refused: int


@dataclass(frozen=True)
class Sampler:
    """Draws from one latent distribution as one recipe asks. Every row is a pure function of (index, attempt)."""

    recipe: Recipe
    latents: LatentDistribution

    def draw(self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray) -> Draw:
        """For each index the first acceptable attempt, from ``attempts_B`` (int64) on.

        Raises ``RejectionExhausted`` once a sample has used up ``max_attempts``.
        """
        found = self.once(indices_B, attempts_B, labels_B)
        floor_B = self._floor(labels_B)
        while len(bad := np.flatnonzero(found.log_density_B < floor_B)):
            attempts = found.attempts_B[bad] + 1
            drawn = len(indices_B) + found.refused
            check_attempts(attempts, self.recipe.max_attempts, accepted=len(indices_B) - len(bad), drawn=drawn)
            found = patched(found, bad, self.once(indices_B[bad], attempts, labels_B[bad]))
        return found

    def once(self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray) -> Draw:
        """What each index draws at exactly this attempt, accepted or not."""
        drawn = self.latents.sample(noise(self.recipe.seed, indices_B, attempts_B, self.latents.dims), labels_B)
        log_density_B = self.latents.log_prob(drawn.z_BD, labels_B)
        return Draw(drawn.z_BD, attempts_B.copy(), drawn.cluster_B, log_density_B, 0)

    def _floor(self, labels_B: np.ndarray) -> np.ndarray:
        if self.recipe.density_floor is None:
            return np.full(len(labels_B), -np.inf)
        floor_C = self.latents.density_floor(self.recipe.density_floor)
        return np.asarray(floor_C[labels_B])


def patched(draw: Draw, rows: np.ndarray, fresh: Draw) -> Draw:
    """``draw`` with ``rows`` (int64 positions) replaced by ``fresh``; each replaced row counts as refused."""
    values = {name: getattr(draw, name).copy() for name in ("z_BD", "attempts_B", "clusters_B", "log_density_B")}
    for name, column in values.items():
        column[rows] = getattr(fresh, name)
    return Draw(**values, refused=draw.refused + len(rows) + fresh.refused)
