"""Is an image a copy of a training image? A sketch of the training images tells, without the images themselves.

A sketch keeps the principal components of every training image, as whole numbers. Projecting never lengthens a
distance, so two sketches that lie ``d`` apart belong to images at least ``d`` apart: who keeps away from all sketches
keeps away from all images. The price is that a few images are refused that are no copies. How near is too near is read
off the distances of held-out real images to their nearest training images.

All that decides is done in whole numbers, exactly; so a decision depends on the image alone, not on batch or device.
Distances are Euclidean over pixel values 0 .. 255. Images of more than 32 pixels a side are first reduced to at most
that, by sums over blocks.

Legend: N training images, B batch, P pixels (times channels) after reduction, K components, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil, sqrt

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from generator.errors import BundleError
from generator.models.features.neighbours import nearest_neighbours
from generator.spec.seeding import permutation

QUANTILES = np.linspace(0.0, 0.1, 1001)  # of held-out images; a floor above would refuse a tenth of real images
MAX_COMPONENTS, MIN_COMPONENTS = 256, 16
MAX_BYTES = 32 * 1024 * 1024
MIN_HOLDOUT = 100  # held-out images, to know a small quantile of their distances
_SIDE = 32
_DIRECTION_LENGTH = 1 << 14  # a component's direction has this length, in whole numbers
_COARSE_COMPONENTS = 24  # components that are compared first
_FIT_IMAGES, _HOLDOUT_IMAGES, _QUERY_BLOCK, _INDEX_BLOCK = 8192, 5000, 256, 2048


@dataclass(frozen=True, eq=False)
class CopyIndex:
    """``projection_PK`` int16, ``rows_NK`` int16, ``distance_Q`` float64: held-out distances at ``QUANTILES``.

    One unit of a row is ``2 ** shift / (_UNIT * block)`` of pixel distance; ``block``: side of the summed blocks.
    """

    projection_PK: np.ndarray
    rows_NK: np.ndarray
    distance_Q: np.ndarray
    shift: int
    block: int

    @property
    def unit(self) -> float:
        return 2.0**self.shift / (_DIRECTION_LENGTH * self.block)

    @property
    def nbytes(self) -> int:
        """What it takes in memory, with what is kept ready to be asked."""
        ready = 8 * self.projection_PK.size + 4 * len(self.rows_NK) * (_COARSE_COMPONENTS + 1)
        return self.projection_PK.nbytes + self.rows_NK.nbytes + ready

    def project(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Sketches of uint8 images, int64 (B, K). Sums of whole numbers below 2**53, so exact in any order."""
        summed_BP = block_sums(images_BHWC, self.block).astype(np.float64)
        sketched_BK: np.ndarray = np.rint(summed_BP @ self._directions / 2.0**self.shift).astype(np.int64)
        return sketched_BK

    def distance_floor(self, quantile: float) -> float:
        """The distance to the nearest training image that ``quantile`` of the held-out images do not reach."""
        return float(np.interp(quantile, QUANTILES, self.distance_Q))

    def is_copy(self, images_BHWC: np.ndarray, quantile: float) -> np.ndarray:
        """bool (B,): which images may lie nearer to a training image than ``floor(quantile)``; no other one does.

        Rounding moves a sketch by at most half a unit in each component, hence the square root of K units between two.
        """
        reach = self.distance_floor(quantile) / self.unit + sqrt(self.rows_NK.shape[1])
        found_B = np.zeros(len(images_BHWC), dtype=bool)
        with _controller().limit(limits=1, user_api="blas"):  # products this small only wait for each other's threads
            for begin in range(0, len(images_BHWC), _QUERY_BLOCK):
                rows = slice(begin, begin + _QUERY_BLOCK)
                found_B[rows] = self._is_near(self.project(images_BHWC[rows]), reach)
        return found_B

    def _is_near(self, own_BK: np.ndarray, reach: float) -> np.ndarray:
        """The first components find the candidates, in float32 with room for its rounding; all of them decide."""
        near_B = np.zeros(len(own_BK), dtype=bool)
        ready_BE = np.ones((len(own_BK), self._coarse_rows.shape[1]), dtype=np.float32)
        ready_BE[:, :-1] = own_BK[:, :_COARSE_COMPONENTS] - self._centre
        lengths_B = np.einsum("be,be->b", ready_BE[:, :-1], ready_BE[:, :-1])
        room_B = reach**2 - lengths_B + 1e-5 * (lengths_B + self._coarse_rows[:, -1].max())
        ready_BE[:, :-1] *= -2.0
        for begin in range(0, len(self.rows_NK), _INDEX_BLOCK):
            coarse_BT = ready_BE @ self._coarse_rows[begin : begin + _INDEX_BLOCK].T
            close_C = np.flatnonzero((coarse_BT.min(axis=1) <= room_B) & ~near_B)
            places, rows = np.nonzero(coarse_BT[close_C] <= room_B[close_C, None])
            for start in range(0, len(places), _INDEX_BLOCK):
                part = slice(start, start + _INDEX_BLOCK)
                apart_MK = own_BK[close_C[places[part]]] - self.rows_NK[begin + rows[part]]
                inside_M = np.einsum("mk,mk->m", apart_MK, apart_MK) < reach**2
                near_B[close_C[places[part][inside_M]]] = True
        return near_B

    @cached_property
    def _directions(self) -> np.ndarray:
        """float64 (P, K)."""
        return self.projection_PK.astype(np.float64)

    @cached_property
    def _centre(self) -> np.ndarray:
        """int64: the middle of the first components, so that float32 has small numbers to hold."""
        centre_C: np.ndarray = np.rint(self.rows_NK[:, :_COARSE_COMPONENTS].mean(axis=0)).astype(np.int64)
        return centre_C

    @cached_property
    def _coarse_rows(self) -> np.ndarray:
        """float32 (N, C + 1): the first components, and their squared length beside them."""
        centred_NC = (self.rows_NK[:, :_COARSE_COMPONENTS] - self._centre).astype(np.float32)
        return np.column_stack([centred_NC, np.einsum("nc,nc->n", centred_NC, centred_NC)])

    def tensors(self) -> dict[str, np.ndarray]:
        """What a bundle keeps of it."""
        scale = np.array([self.shift, self.block], dtype=np.int64)
        return {"projection": self.projection_PK, "rows": self.rows_NK, "distance": self.distance_Q, "scale": scale}


def fit_copy_index(images_NHWC: np.ndarray, holdout_HHWC: np.ndarray, *, seed: int) -> CopyIndex | None:
    """A sketch of uint8 training images; ``None`` where held-out images are too few, or training images too many."""
    components = min(MAX_COMPONENTS, MAX_BYTES // (2 * len(images_NHWC)))
    if len(holdout_HHWC) < MIN_HOLDOUT or components < MIN_COMPONENTS:
        return None
    block = ceil(images_NHWC.shape[1] / _SIDE)
    summed_NP = block_sums(images_NHWC, block)
    held_HP = block_sums(holdout_HHWC[permutation(seed, stream=0, size=len(holdout_HHWC))[:_HOLDOUT_IMAGES]], block)
    distances_H = nearest_neighbours(held_HP, summed_NP).distances_QK[:, 0] / block
    fitted_FP = summed_NP[permutation(seed, stream=1, size=len(summed_NP))[:_FIT_IMAGES]]
    projection_PK = _components(fitted_FP.astype(np.float32), min(components, summed_NP.shape[1]))
    longest = (
        255.0 * block * block * sqrt(summed_NP.shape[1]) * _DIRECTION_LENGTH
    )  # of any projection, by Cauchy and Schwarz
    shift = max(0, ceil(np.log2(longest / np.iinfo(np.int16).max)))
    empty_0K = np.empty((0, projection_PK.shape[1]), dtype=np.int16)
    blank = CopyIndex(projection_PK, empty_0K, np.quantile(distances_H, QUANTILES), shift, block)
    parts = [
        blank.project(images_NHWC[begin : begin + _QUERY_BLOCK]) for begin in range(0, len(images_NHWC), _QUERY_BLOCK)
    ]
    return CopyIndex(projection_PK, np.concatenate(parts).astype(np.int16), blank.distance_Q, shift, block)


def load_copy_index(tensors: Mapping[str, np.ndarray], *, size: int, channels: int) -> CopyIndex:
    """The sketch of a bundle of images of ``size`` and ``channels``. Raises ``BundleError``."""
    field, block = "sketch.safetensors", ceil(size / _SIDE)
    if set(tensors) != {"projection", "rows", "distance", "scale"}:
        raise BundleError(field, "the tensors distance, projection, rows and scale", sorted(tensors))
    projection_PK, rows_NK, distance_Q, scale_2 = (
        tensors[name] for name in ("projection", "rows", "distance", "scale")
    )
    pixels = ceil(size / block) ** 2 * channels
    shapes = (projection_PK.shape[:1], projection_PK.shape[1:], distance_Q.shape, scale_2.shape)
    wanted = ((pixels,), rows_NK.shape[1:], QUANTILES.shape, (2,))
    dtypes = [str(array.dtype) for array in (projection_PK, rows_NK, distance_Q, scale_2)]
    if shapes != wanted or dtypes != ["int16", "int16", "float64", "int64"] or rows_NK.ndim != 2:
        raise BundleError(field, f"parts of shapes {wanted}", f"{shapes}, {dtypes}")
    shift, stated = (int(number) for number in scale_2)
    if stated != block or not 0 <= shift <= 40 or len(rows_NK) < 1 or not rows_NK.shape[1]:
        raise BundleError(field, f"rows, a shift of 0 .. 40 and blocks of {block}", f"{shift}, {stated}")
    return CopyIndex(projection_PK, rows_NK, distance_Q, shift, block)


def block_sums(images_NHWC: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of ``block`` x ``block`` pixels, flat: uint8 (N, P) as it is for one pixel, else int32.

    A last, incomplete block is filled with zeros.
    """
    count, height, width, channels = images_NHWC.shape
    if block == 1:
        return images_NHWC.reshape(count, height * width * channels)
    padding = ((0, 0), (0, -height % block), (0, -width % block), (0, 0))
    padded = np.pad(images_NHWC, padding)
    blocks = padded.reshape(count, padded.shape[1] // block, block, padded.shape[2] // block, block, channels)
    summed: np.ndarray = blocks.sum(axis=(2, 4), dtype=np.int32)
    return summed.reshape(count, blocks.shape[1] * blocks.shape[3] * channels)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _components(fitted_FP: np.ndarray, count: int) -> np.ndarray:
    """Principal components, P x K, in whole numbers; shortened a little so that none of their sums lengthens."""
    from scipy.linalg import eigh  # only who trains needs it

    centred_FP = fitted_FP - fitted_FP.mean(axis=0)
    covariance_PP = (centred_FP.T @ centred_FP).astype(np.float64)
    pixels = len(covariance_PP)
    _, vectors_PK = eigh(covariance_PP, subset_by_index=(pixels - count, pixels - 1))
    whole_PK = np.rint(vectors_PK[:, ::-1] * (_DIRECTION_LENGTH * 0.998))
    stretch = np.linalg.norm(whole_PK.T @ whole_PK, 2) / _DIRECTION_LENGTH**2
    assert stretch <= 1.0, stretch
    return np.asarray(whole_PK, dtype=np.int16)
