"""A bundle's fixed map: a linear map from codes to the plane, for pictures of builds that stay comparable.

Coordinates are batch-invariant: products and sums are elementwise operations in an order that depends on the number of
dimensions alone (see ``kernels``).

Legend: B rows, T rows of a tile, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from generator.errors import BundleError

_TILE_NUMBERS = 65_536  # numbers at a time: the working set of a tile stays in the cache


@final
@dataclass(frozen=True, eq=False)
class CodeMap:
    """``centre_D`` and ``axes_2D``, float64: coordinate a of a code z is the sum of axes[a] * (z - centre)."""

    centre_D: np.ndarray
    axes_2D: np.ndarray

    def coordinates(self, z_BD: np.ndarray) -> np.ndarray:
        """float32 (B, 2) of float64 codes, added up in float64; infinite where a coordinate exceeds float32."""
        found_B2 = np.empty((len(z_BD), 2))
        tile = max(1, _TILE_NUMBERS // max(1, len(self.centre_D)))
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, len(z_BD), tile):
                centred_TD = z_BD[begin : begin + tile] - self.centre_D
                for axis, axis_D in enumerate(self.axes_2D):
                    found_B2[begin : begin + tile, axis] = _row_sums(centred_TD * axis_D)
            return found_B2.astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """The arrays of ``map.safetensors``."""
        return {"centre": self.centre_D, "axes": self.axes_2D}


def load_code_map(tensors: Mapping[str, np.ndarray], dims: int) -> CodeMap:
    """The stored map of a bundle whose codes have ``dims`` numbers. Raises ``BundleError``."""
    shapes = {"centre": (dims,), "axes": (2, dims)}
    found = {name: (array.shape, str(array.dtype)) for name, array in tensors.items()}
    if found != {name: (shape, "float64") for name, shape in shapes.items()}:
        raise BundleError("map.safetensors", f"float64 tensors of the shapes {shapes}", found)
    return CodeMap(np.array(tensors["centre"]), np.array(tensors["axes"]))


def _row_sums(value_TD: np.ndarray) -> np.ndarray:
    """(T,): the sum of each row, by adding its second half to its first until one number is left; overwrites."""
    width = value_TD.shape[1]
    while width > 1:
        half = (width + 1) // 2
        value_TD[:, : width - half] += value_TD[:, half:width]
        width = half
    return value_TD[:, 0]
