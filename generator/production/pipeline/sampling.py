"""From noise to accepted latent points: for each index, the first attempt whose density reaches the floor.

The recipe's ``draw`` and ``temperature`` act on the noise, before the latent distribution maps it to codes. They
therefore work for every family of distributions, and a row stays a pure function of (index, attempt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt

import numpy as np

from generator.models.latents import LatentDistribution, SampledCodes
from generator.production.pipeline.filters import check_attempts
from generator.spec.recipe import AroundDraw, BetweenDraw, ClusterDraw, Recipe, check_draw
from generator.spec.seeding import Noise, noise


@dataclass(frozen=True)
class Draw:
    """Accepted latent points of B samples, and how many draws were refused before them."""

    z_BD: np.ndarray  # float64
    attempts_B: np.ndarray  # int64
    clusters_B: np.ndarray  # int32
    log_density_B: np.ndarray  # float64, given the label
    refused: int


@dataclass(frozen=True)
class Sampler:
    """Draws from one latent distribution as the recipe says. Every row is a pure function of (index, attempt).

    ``codes``: the codes, float64 (D), that the recipe's draw names instead of giving their numbers, by its fields.
    """

    recipe: Recipe
    latents: LatentDistribution
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_draw(self.recipe, self.latents.dims, self.latents.clusters)

    def draw(self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray) -> Draw:
        """For each index the first acceptable attempt, starting at ``attempts_B`` (int64).

        Raises ``RejectionExhausted`` when a sample has used all of its ``max_attempts``.
        """
        found = self.draw_attempt(indices_B, attempts_B, labels_B)
        floor_B = self.density_floors(labels_B)
        while len(bad := np.flatnonzero(found.log_density_B < floor_B)):
            attempts = found.attempts_B[bad] + 1
            drawn = len(indices_B) + found.refused
            check_attempts(attempts, self.recipe.max_attempts, accepted=len(indices_B) - len(bad), drawn=drawn)
            found = replace_rows(found, bad, self.draw_attempt(indices_B[bad], attempts, labels_B[bad]))
        return found

    def draw_attempt(self, indices_B: np.ndarray, attempts_B: np.ndarray, labels_B: np.ndarray) -> Draw:
        """The draw of each index at exactly this attempt, accepted or not."""
        own = noise(self.recipe.seed, indices_B, attempts_B, self.latents.dims)
        drawn = self._sample_codes(Noise(own.choice_B, own.normal_BD * self.recipe.temperature), labels_B)
        log_density_B = drawn.log_density_B
        if log_density_B is None:
            log_density_B = self.latents.log_prob(drawn.z_BD, labels_B)
        return Draw(drawn.z_BD, attempts_B.copy(), drawn.cluster_B, log_density_B, 0)

    def _sample_codes(self, own: Noise, labels_B: np.ndarray) -> SampledCodes:
        """Codes from the samples' own noise, according to the recipe's ``draw``."""
        draw = self.recipe.draw
        if isinstance(draw, ClusterDraw):
            choice_B = self.latents.choice_for_cluster(np.full(len(own), draw.cluster), labels_B)
            return self.latents.sample(Noise(choice_B, own.normal_BD), labels_B)
        if isinstance(draw, AroundDraw):
            middle = Noise(self._centre.choice_B[labels_B], self._centre.normal_BD[labels_B])
            return self.latents.sample(_blend_noise(middle, own, draw.distance), labels_B)
        if isinstance(draw, BetweenDraw):
            return self._sample_between(draw, own, labels_B)
        return self.latents.sample(own, labels_B)

    def _sample_between(self, draw: BetweenDraw, own: Noise, labels_B: np.ndarray) -> SampledCodes:
        """Codes on the line. The point decides the cluster, so the uniform word can give the position on the line."""
        share_B1 = own.choice_B[:, None]
        line_BD = (1.0 - share_B1) * self._code("start") + share_B1 * self._code("end")
        middle = self.latents.to_noise(line_BD, labels_B)
        if draw.distance is not None:
            return self.latents.sample(_blend_noise(middle, own, draw.distance), labels_B)
        return SampledCodes(line_BD, self.latents.sample(middle, labels_B).cluster_B)

    @cached_property
    def _centre(self) -> Noise:
        """The noise of the code to sample around, one row per class (C rows); it is the same for every batch."""
        rows = max(1, self.latents.classes)
        return self.latents.to_noise(np.tile(self._code("code"), (rows, 1)), np.arange(rows))

    def _code(self, name: str) -> np.ndarray:
        code = getattr(self.recipe.draw, name)
        return np.array(code) if isinstance(code, tuple) else self.codes[name]

    def density_floors(self, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density below which a draw of each label is refused; minus infinity without a floor."""
        if self.recipe.density_floor is None:
            return np.full(len(labels_B), -np.inf)
        floor_C = self.latents.density_floor(self.recipe.density_floor)
        return np.asarray(floor_C[labels_B])


def _blend_noise(middle: Noise, own: Noise, distance: float) -> Noise:
    """Noise in the cluster of ``middle``; its normals are standard normal if those of both inputs are."""
    weight = sqrt(1.0 - distance * distance)
    return Noise(middle.choice_B, weight * middle.normal_BD + distance * own.normal_BD)


def replace_rows(draw: Draw, rows: np.ndarray, fresh: Draw) -> Draw:
    """``draw`` with ``rows`` (int64 positions) replaced by ``fresh``; each replaced row counts as refused."""
    values = {name: getattr(draw, name).copy() for name in ("z_BD", "attempts_B", "clusters_B", "log_density_B")}
    for name, column in values.items():
        column[rows] = getattr(fresh, name)
    return Draw(**values, refused=draw.refused + len(rows) + fresh.refused)
