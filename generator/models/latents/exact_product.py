"""Matrix products that are exact, and so the same for every batch, order, number of threads, and BLAS.

A sum of floating-point numbers depends on the order in which it is taken only because its steps are rounded. Here
none is: inputs are rounded to multiples of 2^-20 within [-64, 64], weights to multiples of 2^-b, with b so large as the
weights allow that every product, and every sum of any of them, is a multiple of 2^-(20 + b) below 2^(33 - b), and has
53 binary digits at most: a float64, exactly. What BLAS makes of it is then beside the point. Rounding costs as much as
float32 does; the functions of ``generator.models.latents.flow`` are defined with it.

Legend: I inputs, O outputs, T rows of a tile, which are columns here.
"""

from __future__ import annotations

import math

import numpy as np

_INPUT_BITS, _BOUND_BITS, _MANTISSA_BITS = 20, 6, 53
_SCALE, _MAX_STEPS = 2.0**_INPUT_BITS, 2.0 ** (_INPUT_BITS + _BOUND_BITS)
_LEAST_WEIGHT_BITS = 8


class ExactProduct:
    """``weight_OI @ x_IT`` with x as made by ``rounded`` or ``rounded_positive``."""

    def __init__(self, weight_OI: np.ndarray) -> None:
        """Raises ``ValueError`` where weights are so large (absolute sum of a row 2^19) that few digits are left."""
        largest = float(np.abs(weight_OI).sum(axis=1).max(initial=0.0)) + weight_OI.shape[1] * 2.0**-_LEAST_WEIGHT_BITS
        bits = _MANTISSA_BITS - _INPUT_BITS - _BOUND_BITS - math.ceil(math.log2(max(largest, 1.0)))
        if bits < _LEAST_WEIGHT_BITS:
            raise ValueError(
                f"weights whose absolute sum is below {2.0 ** (27 - _LEAST_WEIGHT_BITS):g}, not {largest:g}"
            )
        self._weight_OI = np.rint(weight_OI.astype(np.float64) * 2.0**bits) * 2.0 ** -(bits + _INPUT_BITS)

    def __call__(self, rounded_IT: np.ndarray) -> np.ndarray:
        """float64 (O, T)."""
        product_OT: np.ndarray = self._weight_OI @ rounded_IT
        return product_OT


def round_inputs(x_IT: np.ndarray) -> np.ndarray:
    """x within [-64, 64] in whole steps of 2^-20."""
    steps_IT = np.rint(x_IT * _SCALE)
    return np.clip(steps_IT, -_MAX_STEPS, _MAX_STEPS, out=steps_IT)


def round_relu(x_IT: np.ndarray) -> np.ndarray:
    """max(x, 0) (a rectified linear unit) up to 64 in whole steps of 2^-20; overwrites ``x_IT``."""
    np.multiply(x_IT, _SCALE, out=x_IT)
    np.rint(x_IT, out=x_IT)
    return np.clip(x_IT, 0.0, _MAX_STEPS, out=x_IT)
