"""The real images whose codes are nearest to the latent point of a sample, among those that the bundle keeps."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from generator.errors import IntegrityError
from generator.models.bundle.format import CODES_FILE, BundleInfo
from generator.models.bundle.load import load_codes, load_thumbnails
from generator.models.bundle.thumbnails import Thumbnails
from generator.production.provenance.sample_table import LATENT_COLUMN
from generator.store.base import Store

NEIGHBOURS = 8
_BLOCK = 4096  # codes that are compared at a time


@dataclass(frozen=True, eq=False)
class RealCodes:
    """The codes of training images of a bundle, float32 (N, D), their labels, and pictures of them if it has some."""

    codes_ND: np.ndarray
    labels_N: np.ndarray | None
    classes: tuple[str, ...]
    thumbnails: Thumbnails | None

    def nearest(self, z_D: np.ndarray, count: int = NEIGHBOURS) -> list[RealNeighbour]:
        """The ``count`` codes at the smallest Euclidean distance, nearest first."""
        point_D = np.asarray(z_D, dtype=np.float64)
        distance_N = np.concatenate(
            [
                np.linalg.norm(self.codes_ND[begin : begin + _BLOCK] - point_D, axis=1)
                for begin in range(0, len(self.codes_ND), _BLOCK)
            ]
        )
        rows = np.argsort(distance_N, kind="stable")[:count]
        return [
            RealNeighbour(row, float(distance_N[row]), None if self.labels_N is None else int(self.labels_N[row]))
            for row in rows.tolist()
        ]


@dataclass(frozen=True)
class RealNeighbour:
    """A training image: the row of its code in the bundle, its distance, its label."""

    row: int
    distance: float
    label: int | None


def read_real_codes(bundle: Store, info: BundleInfo) -> RealCodes | None:
    """The codes of a bundle, ``None`` if it keeps none. Raises ``BundleError``, ``StoreError``."""
    if CODES_FILE not in info.files:
        return None
    codes = load_codes(bundle, info)
    thumbnails = load_thumbnails(bundle, info)
    return RealCodes(codes.codes_ND.astype(np.float32), codes.labels_N, info.classes, thumbnails)


def read_latent(table: bytes, row: int, *, field: str) -> np.ndarray | None:
    """The latent point of a row of a table, float64 (D); ``None`` if it holds none. Raises ``IntegrityError``."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        file = parquet.ParquetFile(io.BytesIO(table))
        if LATENT_COLUMN not in file.schema_arrow.names:
            return None
        point = file.read(columns=[LATENT_COLUMN])[LATENT_COLUMN][row].as_py()
        return np.array(point, dtype=np.float64)
    except (pa.ArrowException, OSError, IndexError, ValueError, TypeError) as broken:
        raise IntegrityError(field, "a Parquet table with latent points", f"{broken!r:.200}") from broken
