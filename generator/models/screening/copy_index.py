"""The copy check: an index of the training images that finds near copies without storing the images.

The index stores the principal components of every training image, as integers. Projection never lengthens a distance:
two projections at distance ``d`` belong to images at a distance of at least ``d``. So an image whose projection is far
from every stored one is far from every training image. Some images that are no copies are rejected as well. The
threshold is a quantile of the distances of held-out real images to their nearest training images.

Decisions use exact integer arithmetic, so they depend on the image alone, not on batch or device. Distances are
Euclidean over pixel values 0 .. 255. Images of more than 32 x 32 pixels are first reduced by sums over square blocks to
about as many numbers a channel, or fewer: squares to at most 32 a side.

Legend: N training images, B batch, P pixels (times channels) after reduction, K components, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil, isqrt, prod, sqrt

import numpy as np
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from generator.errors import BundleError
from generator.models.features.neighbours import nearest_neighbours
from generator.sources.pixels.storage import ImageRows, is_on_disk, map_rows
from generator.spec.image_size import AnySize, ImageSize, as_size, size_of
from generator.spec.seeding import permutation

QUANTILES = np.linspace(0.0, 0.1, 1001)  # of held-out images; a higher floor would reject a tenth of real images
MAX_COMPONENTS, MIN_COMPONENTS = 256, 16
MAX_BYTES = 32 * 1024 * 1024
MIN_HOLDOUT = 100  # held-out images, enough to estimate a small quantile of their distances
_SIDE = 32
_DIRECTION_LENGTH = 1 << 14  # integer length of a component's direction
_COARSE_COMPONENTS = 24  # components that are compared first, to find candidates
_FIT_IMAGES, _HOLDOUT_IMAGES, _QUERY_BLOCK, _INDEX_BLOCK = 8192, 5000, 256, 2048


@dataclass(frozen=True, eq=False)
class CopyIndex:
    """``projection_PK`` int16, ``rows_NK`` int16, ``distance_Q`` float64: held-out distances at ``QUANTILES``.

    One unit of a row is a pixel distance of ``2 ** shift / (_DIRECTION_LENGTH * block)``; ``block``: side of the summed
    blocks.
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
        """Bytes in memory, including the derived arrays that queries use."""
        derived = 8 * self.projection_PK.size + 4 * len(self.rows_NK) * (_COARSE_COMPONENTS + 1)
        return self.projection_PK.nbytes + self.rows_NK.nbytes + derived

    def project(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Projections of uint8 images, int64 (B, K). All sums are integers below 2**53, so exact in any order."""
        summed_BP = block_sums(images_BHWC, self.block).astype(np.float64)
        projected_BK: np.ndarray = np.rint(summed_BP @ self._directions / 2.0**self.shift).astype(np.int64)
        return projected_BK

    def distance_floor(self, quantile: float) -> float:
        """This quantile of the held-out images' distances to their nearest training images."""
        return float(np.interp(quantile, QUANTILES, self.distance_Q))

    def is_copy(self, images_BHWC: np.ndarray, quantile: float) -> np.ndarray:
        """bool (B,): whether an image may be nearer to a training image than ``distance_floor(quantile)``; misses none.

        Rounding moves a projection by at most half a unit per component, so a distance by at most sqrt(K) units.
        """
        radius = self.distance_floor(quantile) / self.unit + sqrt(self.rows_NK.shape[1])
        is_copy_B = np.zeros(len(images_BHWC), dtype=bool)
        with _controller().limit(limits=1, user_api="blas"):  # BLAS threads slow down products this small
            for begin in range(0, len(images_BHWC), _QUERY_BLOCK):
                rows = slice(begin, begin + _QUERY_BLOCK)
                is_copy_B[rows] = self._is_near(self.project(images_BHWC[rows]), radius)
        return is_copy_B

    def _is_near(self, projected_BK: np.ndarray, radius: float) -> np.ndarray:
        """The first components find candidates (float32, with a margin for rounding); all of them decide, exactly."""
        near_B = np.zeros(len(projected_BK), dtype=bool)
        query_BE = np.ones((len(projected_BK), self._coarse_rows.shape[1]), dtype=np.float32)
        query_BE[:, :-1] = projected_BK[:, :_COARSE_COMPONENTS] - self._centre
        squared_length_B = np.einsum("be,be->b", query_BE[:, :-1], query_BE[:, :-1])
        limit_B = radius**2 - squared_length_B + 1e-5 * (squared_length_B + self._coarse_rows[:, -1].max())
        query_BE[:, :-1] *= -2.0
        for begin in range(0, len(self.rows_NK), _INDEX_BLOCK):
            partial_BT = query_BE @ self._coarse_rows[begin : begin + _INDEX_BLOCK].T
            open_C = np.flatnonzero((partial_BT.min(axis=1) <= limit_B) & ~near_B)
            queries, rows = np.nonzero(partial_BT[open_C] <= limit_B[open_C, None])
            for start in range(0, len(queries), _INDEX_BLOCK):
                part = slice(start, start + _INDEX_BLOCK)
                difference_MK = projected_BK[open_C[queries[part]]] - self.rows_NK[begin + rows[part]]
                is_near_M = np.einsum("mk,mk->m", difference_MK, difference_MK) < radius**2
                near_B[open_C[queries[part][is_near_M]]] = True
        return near_B

    @cached_property
    def _directions(self) -> np.ndarray:
        """float64 (P, K)."""
        return self.projection_PK.astype(np.float64)

    @cached_property
    def _centre(self) -> np.ndarray:
        """int64: mean of the first components, subtracted to keep the float32 values small."""
        centre_C: np.ndarray = np.rint(self.rows_NK[:, :_COARSE_COMPONENTS].mean(axis=0)).astype(np.int64)
        return centre_C

    @cached_property
    def _coarse_rows(self) -> np.ndarray:
        """float32 (N, C + 1): the first components, centred, and their squared length as the last column."""
        centred_NC = (self.rows_NK[:, :_COARSE_COMPONENTS] - self._centre).astype(np.float32)
        return np.column_stack([centred_NC, np.einsum("nc,nc->n", centred_NC, centred_NC)])

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays that a bundle stores."""
        scale = np.array([self.shift, self.block], dtype=np.int64)
        return {"projection": self.projection_PK, "rows": self.rows_NK, "distance": self.distance_Q, "scale": scale}


def fit_copy_index(images_NHWC: np.ndarray, holdout_HHWC: np.ndarray, *, seed: int) -> CopyIndex | None:
    """The index of uint8 training images; ``None`` for too few held-out images, or for too many training images."""
    components = min(MAX_COMPONENTS, MAX_BYTES // (2 * len(images_NHWC)))
    if len(holdout_HHWC) < MIN_HOLDOUT or components < MIN_COMPONENTS:
        return None
    block = _block_side(size_of(images_NHWC.shape))
    summed_NP = _reduce(images_NHWC, block)
    holdout_HP = block_sums(holdout_HHWC[permutation(seed, stream=0, size=len(holdout_HHWC))[:_HOLDOUT_IMAGES]], block)
    distances_H = nearest_neighbours(holdout_HP, summed_NP).distances_QK[:, 0] / block
    sample_FP = summed_NP[permutation(seed, stream=1, size=len(summed_NP))[:_FIT_IMAGES]]
    projection_PK = _components(sample_FP.astype(np.float32), min(components, summed_NP.shape[1]))
    max_length = (
        255.0 * block * block * sqrt(summed_NP.shape[1]) * _DIRECTION_LENGTH
    )  # of any projection, by the Cauchy-Schwarz inequality
    shift = max(0, ceil(np.log2(max_length / np.iinfo(np.int16).max)))
    empty_0K = np.empty((0, projection_PK.shape[1]), dtype=np.int16)
    empty_index = CopyIndex(projection_PK, empty_0K, np.quantile(distances_H, QUANTILES), shift, block)
    rows_NK = np.empty((len(images_NHWC), projection_PK.shape[1]), dtype=np.int16)
    for begin in range(0, len(images_NHWC), _QUERY_BLOCK):
        rows_NK[begin : begin + _QUERY_BLOCK] = empty_index.project(images_NHWC[begin : begin + _QUERY_BLOCK])
    return CopyIndex(projection_PK, rows_NK, empty_index.distance_Q, shift, block)


def load_copy_index(tensors: Mapping[str, np.ndarray], *, size: AnySize, channels: int) -> CopyIndex:
    """The stored index of a bundle with images of ``size`` and ``channels``. Raises ``BundleError``."""
    field, block = "sketch.safetensors", _block_side(as_size(size))
    if set(tensors) != {"projection", "rows", "distance", "scale"}:
        raise BundleError(field, "the tensors distance, projection, rows and scale", sorted(tensors))
    projection_PK, rows_NK, distance_Q, scale_2 = (
        tensors[name] for name in ("projection", "rows", "distance", "scale")
    )
    pixels = prod(ceil(side / block) for side in as_size(size)) * channels
    shapes = (projection_PK.shape[:1], projection_PK.shape[1:], distance_Q.shape, scale_2.shape)
    expected = ((pixels,), rows_NK.shape[1:], QUANTILES.shape, (2,))
    dtypes = [str(array.dtype) for array in (projection_PK, rows_NK, distance_Q, scale_2)]
    if shapes != expected or dtypes != ["int16", "int16", "float64", "int64"] or rows_NK.ndim != 2:
        raise BundleError(field, f"parts of shapes {expected}", f"{shapes}, {dtypes}")
    shift, stored_block = (int(number) for number in scale_2)
    if stored_block != block or not 0 <= shift <= 40 or len(rows_NK) < 1 or not rows_NK.shape[1]:
        raise BundleError(field, f"rows, a shift of 0 .. 40 and blocks of {block}", f"{shift}, {stored_block}")
    return CopyIndex(projection_PK, rows_NK, distance_Q, shift, block)


def _block_side(size: ImageSize) -> int:
    """The smallest side of blocks of which ``_SIDE`` x ``_SIDE`` have as many pixels as an image, or more."""
    return -(-(isqrt(size.pixels - 1) + 1) // _SIDE)


def block_sums(images_NHWC: np.ndarray, block: int) -> np.ndarray:
    """Sums over blocks of ``block`` x ``block`` pixels, flattened: uint8 (N, P) unchanged for ``block`` 1, else int32.

    An incomplete last block is padded with zeros.
    """
    count, height, width, channels = images_NHWC.shape
    if block == 1:
        return images_NHWC.reshape(count, height * width * channels)
    padded = np.pad(images_NHWC, ((0, 0), (0, -height % block), (0, -width % block), (0, 0)))
    blocks = padded.reshape(count, -(-height // block), block, -(-width // block), block, channels)
    summed_NP: np.ndarray = blocks.sum(axis=(2, 4), dtype=np.int32).reshape(count, -1)
    return summed_NP


def _reduce(images_NHWC: np.ndarray, block: int) -> np.ndarray:
    """``block_sums``, in parts; of images on disk as an ``ImageRows`` that sums when asked."""
    count, height, width, channels = images_NHWC.shape
    numbers = -(-height // block) * -(-width // block) * channels
    dtype = np.uint8 if block == 1 else np.int32
    if isinstance(images_NHWC, ImageRows) or is_on_disk(images_NHWC):
        return map_rows(images_NHWC, lambda some: block_sums(some, block), (numbers,), dtype)
    if block == 1:
        return block_sums(images_NHWC, block)
    summed_NP = np.empty((count, numbers), dtype=dtype)
    for begin in range(0, count, _QUERY_BLOCK):
        summed_NP[begin : begin + _QUERY_BLOCK] = block_sums(images_NHWC[begin : begin + _QUERY_BLOCK], block)
    return summed_NP


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def _components(sample_FP: np.ndarray, count: int) -> np.ndarray:
    """Principal components, P x K, as integers, scaled down slightly so that projection never lengthens a distance.
    Overwrites ``sample_FP`` (float32)."""
    from scipy.linalg import eigh  # needed for training only

    sample_FP -= sample_FP.mean(axis=0)
    covariance_PP = (sample_FP.T @ sample_FP).astype(np.float64)
    pixels = len(covariance_PP)
    _, vectors_PK = eigh(covariance_PP, subset_by_index=(pixels - count, pixels - 1), overwrite_a=True)
    integer_PK = np.rint(vectors_PK[:, ::-1] * (_DIRECTION_LENGTH * 0.998))
    stretch = np.linalg.norm(integer_PK.T @ integer_PK, 2) / _DIRECTION_LENGTH**2
    assert stretch <= 1.0, stretch
    return np.asarray(integer_PK, dtype=np.int16)
