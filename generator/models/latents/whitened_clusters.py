"""Clusters in the space of a Gaussian's normals: a cheap mixture a class for codes of many numbers.

A Gaussian base makes a code of normals, z = m_y + L_y w. Instead of standard normals, w comes from a mixture: cluster k
of class y has the weight p_k, the mean u_k, and

    w = u_k + (T_k n_R, n_rest),   n standard normal,

with a lower-triangular matrix T_k of its own for the first R numbers, which belong to the directions of most variance.
A cluster so has its own covariance where classes differ most, and that of its class elsewhere (a mixture of factor
analysers shares its noise in the same way; Ghahramani & Hinton, "The EM algorithm for mixtures of factor analyzers",
1996). The density follows from w, without the base.

Everything is float64, and a row's result does not depend on the others: products are exact (``exact_product``), other
sums are loops in a fixed order.

Legend: B rows, T rows of one class, D dimensions, E dimensions with means, R dimensions with covariances of their own,
C classes (1 if unlabelled), K clusters of a class, M clusters of all classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import numpy as np

from generator.errors import BundleError
from generator.models.latents import kernels, state_checks
from generator.models.latents.exact_product import ExactProduct, round_inputs
from generator.models.latents.threads import run_in_tiles

_TILE = 256  # rows at a time


def tensor_shapes(clusters: tuple[int, ...], rank: int, means: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored arrays, float64, by name: M is the sum of ``clusters``, R is ``rank``, E is ``means``."""
    total = sum(clusters)
    return {
        "cluster_weight": (total,),
        "cluster_mean": (total, means),
        "cluster_factor": (total, rank, rank),
    }


def check_tensors(clusters: tuple[int, ...], tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ``BundleError`` unless weights are positive and add up to 1 in each class, and factors are triangular."""
    state_checks.check_positive("cluster_weight", tensors["cluster_weight"])
    state_checks.check_factors(tensors["cluster_factor"])
    for part_K in np.split(tensors["cluster_weight"], np.cumsum(clusters)[:-1]):
        if abs(float(part_K.sum()) - 1.0) > 1e-9:
            raise BundleError("latents.cluster_weight", "weights that add up to 1 in each class", f"{part_K.sum()}")


@final
class WhitenedClusters:
    """See the module. ``clusters``: K of each class; ``tensors``: as ``tensor_shapes`` names them, class by class.

    Raises ``ValueError`` if factors or means are too large for exact products.
    """

    def __init__(self, clusters: tuple[int, ...], tensors: Mapping[str, np.ndarray]) -> None:
        self.clusters = clusters
        self._tensors = {name: tensors[name] for name in tensor_shapes(clusters, 1, 1)}
        ends = np.cumsum(clusters).tolist()
        parts = [slice(end - count, end) for end, count in zip(ends, clusters, strict=True)]
        self._classes = [_ClassClusters(*(tensors[name][part] for name in self._tensors)) for part in parts]

    def choose(self, choice_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """cluster_B int64: the cluster of each uniform number in (0, 1)."""
        cluster_B = np.empty(len(labels_B), dtype=np.int64)
        for label, rows_T in _by_label(labels_B):
            cluster_B[rows_T] = kernels.inverse_cdf(self._classes[label].cumulative_K, choice_B[rows_T])
        return cluster_B

    def middle_choice(self, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """choice_B: the middle of the numbers for which ``choose`` gives these clusters."""
        choice_B = np.empty(len(labels_B))
        for label, rows_T in _by_label(labels_B):
            cumulative_K = self._classes[label].cumulative_K
            below_K = np.concatenate([[0.0], cumulative_K[:-1]])
            choice_B[rows_T] = (0.5 * (below_K + cumulative_K))[cluster_B[rows_T]]
        return choice_B

    def place(self, normal_BD: np.ndarray, cluster_B: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """w_BD of standard normals, in these clusters."""
        placed_BD = np.empty_like(normal_BD)

        def tile(rows: slice) -> None:
            for label, here_T in _by_label(labels_B[rows]):
                part = self._classes[label]
                placed_BD[rows][here_T] = part.place(normal_BD[rows][here_T], cluster_B[rows][here_T])

        run_in_tiles(tile, len(normal_BD), _TILE)
        return placed_BD

    def remove(self, w_BD: np.ndarray, labels_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(normal_BD, cluster_B): inverse of ``place``, up to rounding, for the most probable cluster of each row."""
        normal_BD, cluster_B = np.empty_like(w_BD), np.empty(len(w_BD), dtype=np.int64)
        for label, rows_T in _by_label(labels_B):
            part = self._classes[label]
            cluster_B[rows_T] = part.joint_log_prob(w_BD[rows_T]).argmax(axis=0)
            normal_BD[rows_T] = part.remove(w_BD[rows_T], cluster_B[rows_T])
        return normal_BD, cluster_B

    def log_prob(self, w_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        """float64 (B,): the log-density of w, plus D / 2 log(2 pi)."""
        log_density_B = np.empty(len(w_BD))

        def tile(rows: slice) -> None:
            for label, here_T in _by_label(labels_B[rows]):
                joint_KT = self._classes[label].joint_log_prob(w_BD[rows][here_T])
                log_density_B[rows][here_T] = kernels.log_sum_exp(joint_KT)

        run_in_tiles(tile, len(w_BD), _TILE)
        return log_density_B

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle stores."""
        return dict(self._tensors)


@final
class _ClassClusters:
    """The clusters of one class."""

    def __init__(self, weight_K: np.ndarray, mean_KE: np.ndarray, factor_KRR: np.ndarray) -> None:
        self.cumulative_K = np.cumsum(weight_K)
        self._mean_KE, self._rank = mean_KE, factor_KRR.shape[1]
        inverse_KRR = _inverses(factor_KRR)
        self._factors, self._inverses = (
            ExactProduct(matrix_KRR.reshape(-1, self._rank)) for matrix_KRR in (factor_KRR, inverse_KRR)
        )
        self._rest_means = ExactProduct(mean_KE[:, self._rank :])
        self._centres_KR1 = self._stacked(self._inverses, mean_KE[:, : self._rank].T)[
            np.arange(len(weight_K)), :, np.arange(len(weight_K)), None
        ]
        self._rest_lengths_K1 = kernels.sum_of_squares(mean_KE[:, self._rank :])[:, None]
        diagonal_KR = np.diagonal(factor_KRR, axis1=1, axis2=2)
        self._log_scale_K1 = np.array(
            [
                [math.log(weight) - math.fsum(map(math.log, diagonal_R))]
                for weight, diagonal_R in zip(weight_K.tolist(), diagonal_KR.tolist(), strict=True)
            ]
        )

    def place(self, normal_TD: np.ndarray, cluster_T: np.ndarray) -> np.ndarray:
        placed_TD = normal_TD.copy()
        stacked_KRT = self._stacked(self._factors, normal_TD[:, : self._rank].T)
        placed_TD[:, : self._rank] = stacked_KRT[cluster_T, :, np.arange(len(cluster_T))]
        placed_TD[:, : self._mean_KE.shape[1]] += self._mean_KE[cluster_T]
        return placed_TD

    def remove(self, w_TD: np.ndarray, cluster_T: np.ndarray) -> np.ndarray:
        normal_TD = w_TD.copy()
        normal_TD[:, : self._mean_KE.shape[1]] -= self._mean_KE[cluster_T]
        stacked_KRT = self._stacked(self._inverses, normal_TD[:, : self._rank].T)
        normal_TD[:, : self._rank] = stacked_KRT[cluster_T, :, np.arange(len(cluster_T))]
        return normal_TD

    def joint_log_prob(self, w_TD: np.ndarray) -> np.ndarray:
        """joint_KT: log of weight times density under each cluster, plus D / 2 log(2 pi)."""
        difference_KRT = self._stacked(self._inverses, w_TD[:, : self._rank].T) - self._centres_KR1
        distance_KT = np.zeros((len(difference_KRT), len(w_TD)))
        for number in range(self._rank):  # one by one: the order of a sum must not depend on the batch
            distance_KT += difference_KRT[:, number] * difference_KRT[:, number]
        rest_TE = w_TD[:, self._rank : self._mean_KE.shape[1]]
        distance_KT += self._rest_lengths_K1 - 2.0 * self._rest_means(round_inputs(rest_TE.T))
        distance_KT += kernels.sum_of_squares(w_TD[:, self._rank :])
        joint_KT: np.ndarray = self._log_scale_K1 - 0.5 * distance_KT
        return joint_KT

    def _stacked(self, product: ExactProduct, columns_RT: np.ndarray) -> np.ndarray:
        """(K, R, T): the matrix of every cluster times every column."""
        return product(round_inputs(columns_RT)).reshape(-1, self._rank, columns_RT.shape[1])


def _inverses(factor_KRR: np.ndarray) -> np.ndarray:
    """Inverses of lower-triangular matrices, by forward substitution in a fixed order."""
    inverse_KRR, unit_RR = np.zeros_like(factor_KRR), np.eye(factor_KRR.shape[1])
    for row in range(factor_KRR.shape[1]):
        rest_KR = np.broadcast_to(unit_RR[row], factor_KRR.shape[:2]).copy()
        for column in range(row):
            rest_KR -= factor_KRR[:, row, column, None] * inverse_KRR[:, column]
        inverse_KRR[:, row] = rest_KR / factor_KRR[:, row, row, None]
    return inverse_KRR


def _by_label(labels_B: np.ndarray) -> list[tuple[int, np.ndarray]]:
    return [(int(label), np.flatnonzero(labels_B == label)) for label in np.unique(labels_B)]
