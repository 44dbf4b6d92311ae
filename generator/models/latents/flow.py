"""A normalizing flow of affine couplings, conditional on the label: Real NVP (Dinh, Sohl-Dickstein, Bengio, ICLR 2017).

A code z of class y is first standardised by the Gaussian of its class, u = L_y^-1 (z - m_y). Then come the couplings.
Each leaves the dimensions of its mask unchanged, and scales and shifts each of the others (equation 7 of the paper); a
small network computes scale and shift from the unchanged dimensions and the label. The result is standard normal:

    log p(z | y) = log N(f(u; y); 0, 1) + sum log-scales - log det L_y

Sampling inverts the couplings in reverse order, in one pass. The weights are trained with zuko (``fitting.flow``); this
module evaluates them without torch: float64, exact matrix products (``exact_product``), and loops for all other sums,
so that a row's result does not depend on batch, order, threads, or BLAS.

Legend: B rows, T rows of a tile, D dimensions, A masked (unchanged) dimensions, F free (transformed) dimensions, H
hidden units, C classes (1 if unlabelled), N couplings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from generator.errors import BundleError
from generator.models.latents import kernels, state_checks
from generator.models.latents.base import LatentDistribution, SampledCodes
from generator.models.latents.covariances import FullCovariances
from generator.models.latents.exact_product import ExactProduct, round_inputs, round_relu
from generator.models.latents.quantiles import QUANTILE_GRID, density_floors
from generator.models.latents.threads import run_in_tiles
from generator.spec.canonical import FrozenModel, validate
from generator.spec.seeding import Noise

MIN_SCALE = 1e-3  # minimum scale of a coupling; 1 / MIN_SCALE is the maximum
_LOG_SCALE_LIMIT = -math.log(MIN_SCALE)
_TILE = 256  # rows at a time: the working set of a tile stays in the cache


class FlowConfig(FrozenModel):
    """The JSON part of a stored flow. ``classes`` is 0 if unlabelled."""

    family: Literal["flow"] = "flow"
    dims: int = Field(ge=2, le=512, strict=True)
    classes: int = Field(ge=0, le=100_000, strict=True)
    transforms: int = Field(ge=1, le=64, strict=True)
    hidden: int = Field(ge=1, le=1024, strict=True)

    @property
    def label_count(self) -> int:
        """C: number of classes, 1 if unlabelled."""
        return max(1, self.classes)


class Coupling:
    """One coupling: its mask, and the network with two hidden layers that computes shifts and scales."""

    def __init__(self, mask_D: np.ndarray, weights: Mapping[str, np.ndarray]) -> None:
        """``weights``: as in ``weight_shapes``. Raises ``ValueError`` if they are too large for exact products."""
        self._kept_A, self._free_F = np.flatnonzero(mask_D), np.flatnonzero(~mask_D)
        kept, first_HI = len(self._kept_A), weights["0.weight"]
        self._first, self._second = ExactProduct(first_HI[:, :kept]), ExactProduct(weights["1.weight"])
        self._label_HC = first_HI[:, kept:].astype(np.float64) + weights["0.bias"].astype(np.float64)[:, None]
        self._bias_H1 = weights["1.bias"].astype(np.float64)[:, None]
        self._last, self._bias_O1 = ExactProduct(weights["2.weight"]), weights["2.bias"].astype(np.float64)[:, None]

    def forward(self, u_DT: np.ndarray, labels_T: np.ndarray) -> np.ndarray:
        """From codes to noise: overwrites ``u_DT`` and returns log_scale_T, the log-determinant of the Jacobian."""
        shift_FT, log_scale_FT = self._shift_and_log_scale(u_DT, labels_T)
        u_DT[self._free_F] = u_DT[self._free_F] * np.exp(log_scale_FT) + shift_FT
        total_T = np.zeros(u_DT.shape[1])
        for log_scale_T in log_scale_FT:
            total_T += log_scale_T
        return total_T

    def inverse(self, u_DT: np.ndarray, labels_T: np.ndarray) -> None:
        """From noise to codes: overwrites ``u_DT``."""
        shift_FT, log_scale_FT = self._shift_and_log_scale(u_DT, labels_T)
        u_DT[self._free_F] = (u_DT[self._free_F] - shift_FT) * np.exp(-log_scale_FT)

    def _shift_and_log_scale(self, u_DT: np.ndarray, labels_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(shift_FT, log_scale_FT); scales are within [``MIN_SCALE``, 1 / ``MIN_SCALE``]."""
        hidden_HT = self._first(round_inputs(u_DT[self._kept_A]))
        hidden_HT += self._label_HC[:, labels_T]
        hidden_HT = self._second(round_relu(hidden_HT))
        hidden_HT += self._bias_H1
        raw_OT = self._last(round_relu(hidden_HT))
        raw_OT += self._bias_O1
        scale_FT = np.ascontiguousarray(
            raw_OT[1::2]
        )  # stored interleaved: shift and scale of one dimension, then of the next
        return raw_OT[0::2], scale_FT / (1.0 + np.abs(scale_FT) / _LOG_SCALE_LIMIT)


class Flow(LatentDistribution):
    """See the module. Built from checked arrays by ``from_state`` or by the fit; immutable afterwards.

    ``tensors``: float64 mean (C, D), factor (C, D, D) lower triangular with a positive diagonal, quantile (C, Q) as in
    ``generator.models.latents.quantiles``; uint8 mask (N, D); float32 weights: ``{n}.`` + name in ``weight_shapes``.
    """

    def __init__(self, config: FlowConfig, tensors: Mapping[str, np.ndarray]) -> None:
        """Raises ``ValueError`` if weights are too large for exact products."""
        self._config, self._tensors = config, dict(tensors)
        self._covariances = FullCovariances(tensors["mean"], tensors["factor"])
        log_normal = 0.5 * config.dims * math.log(2.0 * math.pi)
        self._log_scale_C = -self._covariances.log_determinants() - log_normal
        self._couplings = [
            Coupling(mask_D.astype(bool), _coupling_weights(n, tensors)) for n, mask_D in enumerate(tensors["mask"])
        ]

    @property
    def dims(self) -> int:
        return self._config.dims

    @property
    def classes(self) -> int:
        return self._config.classes

    def sample(self, noise: Noise, labels_B: np.ndarray) -> SampledCodes:
        z_BD = np.empty_like(noise.normal_BD)

        def tile(rows: slice) -> None:
            u_DT, labels_T = noise.normal_BD[rows].T.copy(), labels_B[rows]
            for coupling in reversed(self._couplings):
                coupling.inverse(u_DT, labels_T)
            z_BD[rows] = self._covariances.affine(labels_T, np.ascontiguousarray(u_DT.T))

        run_in_tiles(tile, len(labels_B), _TILE)
        return SampledCodes(z_BD=z_BD, cluster_B=np.zeros(len(labels_B), dtype=np.int32))

    def log_prob(self, z_BD: np.ndarray, labels_B: np.ndarray) -> np.ndarray:
        log_density_B = np.empty(len(z_BD))

        def tile(rows: slice) -> None:
            normal_TD, log_scale_T = self._to_normals(z_BD[rows], labels_B[rows])
            squares_T = kernels.sum_of_squares(normal_TD)
            log_density_B[rows] = self._log_scale_C[labels_B[rows]] + log_scale_T - 0.5 * squares_T

        run_in_tiles(tile, len(z_BD), _TILE)
        return log_density_B

    def to_noise(self, z_BD: np.ndarray, labels_B: np.ndarray) -> Noise:
        normal_BD = np.empty(z_BD.shape)

        def tile(rows: slice) -> None:
            normal_BD[rows], _ = self._to_normals(z_BD[rows], labels_B[rows])

        run_in_tiles(tile, len(z_BD), _TILE)
        return Noise(choice_B=np.full(len(z_BD), 0.5), normal_BD=normal_BD)

    def _to_normals(self, z_TD: np.ndarray, labels_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(normal_TD, log_scale_T): the noise of these codes, and the log-determinant of the couplings' Jacobian."""
        u_DT = self._covariances.whiten(labels_T, z_TD).T.copy()
        log_scale_T = np.zeros(len(z_TD))
        for coupling in self._couplings:
            log_scale_T += coupling.forward(u_DT, labels_T)
        return u_DT.T, log_scale_T

    def density_floor(self, quantile: float) -> np.ndarray:
        return density_floors(self._tensors["quantile"], quantile)

    def with_quantiles(self, quantile_CQ: np.ndarray) -> Flow:
        """This flow with other stored quantiles."""
        return Flow(self._config, {**self._tensors, "quantile": quantile_CQ})

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return self._config.model_dump(mode="json"), dict(self._tensors)


def weight_shapes(config: FlowConfig, kept: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one coupling's weights, by name; ``kept``: masked dimensions. Inputs: these, then the one-hot label."""
    hidden, outputs = config.hidden, 2 * (config.dims - kept)
    return {
        "0.weight": (hidden, kept + config.label_count),
        "0.bias": (hidden,),
        "1.weight": (hidden, hidden),
        "1.bias": (hidden,),
        "2.weight": (outputs, hidden),
        "2.bias": (outputs,),
    }


def from_state(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Flow:
    """A flow from untrusted stored values. Raises ``BundleError`` for values that do not describe one."""
    checked = validate(FlowConfig, dict(config), field="latents", error=BundleError)
    kept_N = _mask_counts(checked, tensors)
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (checked.label_count, checked.dims),
        "factor": (checked.label_count, checked.dims, checked.dims),
        "quantile": (checked.label_count, len(QUANTILE_GRID)),
        "mask": (checked.transforms, checked.dims),
    }
    types: dict[str, type] = {"mask": np.uint8}
    for n, kept in enumerate(kept_N):
        coupling_shapes = {f"{n}.{name}": shape for name, shape in weight_shapes(checked, kept).items()}
        shapes |= coupling_shapes
        types |= dict.fromkeys(coupling_shapes, np.float32)
    arrays = state_checks.check_arrays(tensors, shapes, types)
    state_checks.check_factors(arrays["factor"])
    state_checks.check_quantiles(arrays["quantile"])
    try:
        return Flow(checked, arrays)
    except ValueError as error:
        raise BundleError("latents", "weights of a usable size", error) from error


def _mask_counts(config: FlowConfig, tensors: Mapping[str, np.ndarray]) -> list[int]:
    """The number of dimensions in each mask: at least one, and not all. Raises ``BundleError``."""
    mask_ND = tensors.get("mask", np.zeros(0))
    shape = (config.transforms, config.dims)
    if mask_ND.dtype != np.uint8 or mask_ND.shape != shape:
        raise BundleError("latents.mask", f"uint8 of shape {shape}", f"{mask_ND.dtype} of shape {mask_ND.shape}")
    kept_N = [int(kept) for kept in mask_ND.sum(axis=1)]
    if mask_ND.max() > 1 or min(kept_N) < 1 or max(kept_N) >= config.dims:
        raise BundleError("latents.mask", "ones and zeros, both in each row", "other values")
    return kept_N


def _coupling_weights(coupling: int, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    prefix = f"{coupling}."
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
