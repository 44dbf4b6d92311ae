"""Exact matrix products: the same result for every batch, order, number of threads, and BLAS.

A floating-point sum depends on the order of its terms only because every step is rounded. Here no step is rounded:
inputs are first rounded to multiples of 2^-20 within [-64, 64], and weights to multiples of 2^-b. b is the largest
number that the weights allow, such that every product and every partial sum is a multiple of 2^-(20 + b) below
2^(33 - b). Such a number has at most 53 binary digits, so a float64 holds it exactly, whatever BLAS does. The initial
rounding is about as coarse as float32; it is part of the definition of ``generator.models.latents.flow``.

Legend: I inputs, O outputs, T rows of a tile (stored as columns here).
"""

from __future__ import annotations

import math

import numpy as np

_INPUT_BITS, _BOUND_BITS, _MANTISSA_BITS = 20, 6, 53
_SCALE, _MAX_STEPS = 2.0**_INPUT_BITS, 2.0 ** (_INPUT_BITS + _BOUND_BITS)
_MIN_WEIGHT_BITS = 8


class ExactProduct:
    """``weight_OI @ x_IT`` for an x from ``round_inputs`` or ``round_relu``."""

    def __init__(self, weight_OI: np.ndarray) -> None:
        """Raises ``ValueError`` if weights are so large (absolute sum of a row 2^19) that too few digits are left."""
        largest = float(np.abs(weight_OI).sum(axis=1).max(initial=0.0)) + weight_OI.shape[1] * 2.0**-_MIN_WEIGHT_BITS
        bits = _MANTISSA_BITS - _INPUT_BITS - _BOUND_BITS - math.ceil(math.log2(max(largest, 1.0)))
        if bits < _MIN_WEIGHT_BITS:
            raise ValueError(f"weights whose absolute sum is below {2.0 ** (27 - _MIN_WEIGHT_BITS):g}, not {largest:g}")
        self._weight_OI = np.rint(weight_OI.astype(np.float64) * 2.0**bits) * 2.0 ** -(bits + _INPUT_BITS)

    def __call__(self, rounded_IT: np.ndarray) -> np.ndarray:
        """float64 (O, T)."""
        product_OT: np.ndarray = self._weight_OI @ rounded_IT
        return product_OT


def round_inputs(x_IT: np.ndarray) -> np.ndarray:
    """x clipped to [-64, 64], as an integer number of steps of 2^-20."""
    steps_IT = np.rint(x_IT * _SCALE)
    return np.clip(steps_IT, -_MAX_STEPS, _MAX_STEPS, out=steps_IT)


def round_relu(x_IT: np.ndarray) -> np.ndarray:
    """max(x, 0) (a rectified linear unit), at most 64, as an integer number of steps of 2^-20; overwrites ``x_IT``."""
    np.multiply(x_IT, _SCALE, out=x_IT)
    np.rint(x_IT, out=x_IT)
    return np.clip(x_IT, 0.0, _MAX_STEPS, out=x_IT)
