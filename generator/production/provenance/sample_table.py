"""The per-sample table of a shard: one row per image, with everything needed to make it again and to check it.

Columns: ``index`` int64, ``attempt`` int32, ``key`` string, ``label`` int32 (null when unlabelled), ``class`` string
(null when unlabelled), ``cluster`` int32, ``log_density`` float64 (natural logarithm, given the label),
``label_confidence`` float32 (the judge's probability of the label; null without a label check),
``likely_labels`` list of int32 and ``likely_probabilities`` list of float64 (the judge's most likely labels, at most
16, most likely first; null without a label check),
``image_sha256`` string (64 hex digits), ``latent`` fixed-size list of float32: the exact input of the decoder.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import IntegrityError
from generator.models.screening.soft_labels import SoftLabels

MAX_ROWS = 100_000  # the maximum of samples in a shard
_ROW_BYTES = 8192  # twice the size of a latent point with 512 numbers, a class name, and a digest
_OVERHEAD_BYTES = 2**20


@dataclass(frozen=True)
class SampleRows:
    """The rows of some samples, by column, in the order of the shard."""

    indices_N: np.ndarray  # int64
    attempts_N: np.ndarray  # int64
    labels_N: np.ndarray  # int64
    clusters_N: np.ndarray  # int32
    log_density_N: np.ndarray  # float64
    confidence_N: np.ndarray  # float32, NaN without a label check
    likely_NK: SoftLabels  # K is 0 without a label check
    latents_ND: np.ndarray  # float32


def sample_key(index: int) -> str:
    """The key of sample ``index`` inside a shard: at least nine digits."""
    return f"{index:09d}"


def table_bytes(rows: SampleRows, image_sha256: list[str], classes: tuple[str, ...]) -> bytes:
    """The rows as a Parquet file (zstd), a pure function of its arguments within one pyarrow release."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = rows.labels_N.tolist() if classes else [None] * len(image_sha256)
    dims = rows.latents_ND.shape[1]
    flat_latents = pa.array(np.ascontiguousarray(rows.latents_ND, dtype=np.float32).reshape(-1))
    columns = {
        "index": pa.array(rows.indices_N, pa.int64()),
        "attempt": pa.array(rows.attempts_N, pa.int32()),
        "key": pa.array([sample_key(index) for index in rows.indices_N.tolist()], pa.string()),
        "label": pa.array(labels, pa.int32()),
        "class": pa.array([None if label is None else classes[label] for label in labels], pa.string()),
        "cluster": pa.array(rows.clusters_N, pa.int32()),
        "log_density": pa.array(rows.log_density_N, pa.float64()),
        "label_confidence": pa.array(rows.confidence_N, pa.float32(), mask=np.isnan(rows.confidence_N)),
        "likely_labels": pa.array(_nullable_lists(rows.likely_NK.labels_NK), pa.list_(pa.int32())),
        "likely_probabilities": pa.array(_nullable_lists(rows.likely_NK.probability_NK), pa.list_(pa.float64())),
        "image_sha256": pa.array(image_sha256, pa.string()),
        "latent": pa.FixedSizeListArray.from_arrays(flat_latents, dims),
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def _nullable_lists(values_NK: np.ndarray) -> list[list[Any] | None]:
    return values_NK.tolist() if values_NK.shape[1] else [None] * len(values_NK)


def read_rows(data: bytes, *, field: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries, in order; ``columns`` limits what is read. Raises ``IntegrityError``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        _check_table_size(file.metadata, field)
        if missing := set(columns or ()) - set(file.schema_arrow.names):
            raise IntegrityError(field, f"the columns {columns}", f"none called {', '.join(sorted(missing))}")
        rows: list[dict[str, Any]] = file.read(columns=columns).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as broken:
        raise IntegrityError(field, "a Parquet table", f"bytes that do not parse ({broken})") from broken
    return rows


def _check_table_size(metadata: Any, field: str) -> None:
    """Guard against decompression bombs: check the number of rows and the uncompressed size before reading."""
    groups = [metadata.row_group(number) for number in range(min(metadata.num_row_groups, MAX_ROWS))]
    rows, size = metadata.num_rows, sum(group.total_byte_size for group in groups)
    if not 0 <= rows <= MAX_ROWS or not 0 <= size <= _OVERHEAD_BYTES + rows * _ROW_BYTES:
        expected = f"at most {MAX_ROWS} rows of at most {_ROW_BYTES} bytes"
        raise IntegrityError(field, expected, f"{rows} rows of {size} bytes in all")
