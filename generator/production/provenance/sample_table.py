"""The per-sample table of a shard: one row per image, with everything needed to make it again and to check it.

Columns: ``index`` int64, ``attempt`` int32, ``key`` string, ``label`` int32 (null when unlabelled), ``class`` string
(null when unlabelled), ``cluster`` int32, ``log_density`` float64 (natural logarithm, given the label),
``label_confidence`` float32 (the judge's probability of the label; null without a label check),
``likely_labels`` list of int32 and ``likely_probabilities`` list of float64 (the judge's most likely labels, at most
16, most likely first; null without a label check),
``image_sha256`` string (64 hex digits), and

- in builds of version 1 recipes: ``latent`` fixed-size list of float32: the exact input of the decoder.
- in builds of version 2 recipes: ``offset`` and ``size`` int64: the bytes ``offset .. offset + size - 1`` of the
  shard's archive are the image file; ``map_x`` and ``map_y`` float32: the latent point on the bundle's fixed map (null
  if the bundle has none; with a ``transport`` it is the base point); and, if the recipe's ``latents`` asks for it,
  ``latent`` fixed-size list: of float32 for codes of at most 512 numbers, else of float16, where numbers outside its
  range become the nearest one inside (-65504 or 65504).

``latent`` is for looking only: ``read_rows`` leaves it out, and replay computes the point anew.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import IntegrityError
from generator.models.screening.soft_labels import SoftLabels
from generator.spec.recipe import Recipe

MAX_ROWS = 100_000  # the maximum of samples in a shard
LATENT_COLUMN = "latent"
_MAX_SMALL_LATENT = 512  # numbers; larger latent points are stored by request only, as float16
_MAX_LATENT = 65_536  # numbers
_ROW_BYTES = 8192  # without a latent point: several times a class name, the likely labels, and a digest
_BATCH_ROWS = 1024  # rows that are read at once
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
    latents_ND: np.ndarray | None  # of the type ``latent_type``
    offsets_N: np.ndarray  # int64
    sizes_N: np.ndarray  # int64
    map_N2: np.ndarray  # float32, NaN without a map


def sample_key(index: int) -> str:
    """The key of sample ``index`` inside a shard: at least nine digits."""
    return f"{index:09d}"


def latent_type(recipe: Recipe, dims: int) -> type[np.float32 | np.float16] | None:
    """The type of the numbers in the column ``latent``, for codes of ``dims`` numbers; ``None`` without the column."""
    if recipe.recipe_version == 1:
        return np.float32
    if recipe.latents is False or (recipe.latents == "auto" and dims > _MAX_SMALL_LATENT):
        return None
    return np.float32 if dims <= _MAX_SMALL_LATENT else np.float16


def table_bytes(rows: SampleRows, image_sha256: list[str], classes: tuple[str, ...], recipe_version: int) -> bytes:
    """The rows as a Parquet file (zstd), a pure function of its arguments within one pyarrow release."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = rows.labels_N.tolist() if classes else [None] * len(image_sha256)
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
    }
    if recipe_version > 1:
        map_N2 = np.ascontiguousarray(rows.map_N2.T)
        columns |= {
            "offset": pa.array(rows.offsets_N, pa.int64()),
            "size": pa.array(rows.sizes_N, pa.int64()),
            "map_x": pa.array(map_N2[0], pa.float32(), mask=~np.isfinite(map_N2[0])),
            "map_y": pa.array(map_N2[1], pa.float32(), mask=~np.isfinite(map_N2[1])),
        }
    if rows.latents_ND is not None:
        flat_latents = pa.array(np.ascontiguousarray(rows.latents_ND).reshape(-1))
        columns[LATENT_COLUMN] = pa.FixedSizeListArray.from_arrays(flat_latents, rows.latents_ND.shape[1])
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()


def _nullable_lists(values_NK: np.ndarray) -> list[list[Any] | None]:
    return values_NK.tolist() if values_NK.shape[1] else [None] * len(values_NK)


def read_rows(data: bytes, *, field: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries, in order; ``columns`` limits what is read; ``latent`` is never read.

    Raises ``IntegrityError``.
    """
    return [row for batch in _read_batches(data, field, columns) for row in batch.to_pylist()]


def read_numbers_and_text(data: bytes, *, field: str, columns: list[str]) -> dict[str, np.ndarray | list[str]]:
    """Columns of a table: numbers as arrays, text as lists; faster than ``read_rows``.

    Raises ``IntegrityError``, also for a column that is neither, and for an empty value.
    """
    found: dict[str, np.ndarray | list[str]] = {}
    batches = list(_read_batches(data, field, columns))
    for name in columns:
        parts = [batch.column(name) for batch in batches]
        if any(part.null_count for part in parts):
            raise IntegrityError(f"{field}.{name}", "a value in every row", "none")
        read = [part.to_numpy(zero_copy_only=False) for part in parts]
        column: np.ndarray = np.concatenate(read) if read else np.empty(0, dtype=np.int64)
        if column.dtype.kind not in "iuO":
            raise IntegrityError(f"{field}.{name}", "whole numbers or text", column.dtype)
        found[name] = [str(value) for value in column] if column.dtype.kind == "O" else column
    return found


def _read_batches(data: bytes, field: str, columns: list[str] | None) -> list[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(data))
        _check_stated_size(file, field)
        names = [name for name in file.schema_arrow.names if name != LATENT_COLUMN]
        if missing := set(columns or ()) - set(names):
            raise IntegrityError(field, f"the columns {columns}", f"none called {', '.join(sorted(missing))}")
        return _checked_batches(file, names if columns is None else columns, field)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as broken:
        raise IntegrityError(field, "a Parquet table", f"bytes that do not parse ({broken})") from broken


def _checked_batches(file: Any, columns: list[str], field: str) -> list[Any]:
    """All rows. Guard against decompression bombs, as what a file states may be wrong: the size in memory is limited.

    Columns that are not read are not decompressed.
    """
    batches, size, limit = list[Any](), 0, _OVERHEAD_BYTES + file.metadata.num_rows * _ROW_BYTES
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        size += batch.nbytes
        if size > limit:
            raise IntegrityError(field, f"rows of at most {_ROW_BYTES} bytes", f"more than {limit} bytes in all")
        batches.append(batch)
    return batches


def _check_stated_size(file: Any, field: str) -> None:
    """The same guard before reading, by the stated number of rows and uncompressed size of all columns."""
    metadata, row_bytes = file.metadata, _ROW_BYTES + _latent_bytes(file.schema_arrow)
    groups = [metadata.row_group(number) for number in range(min(metadata.num_row_groups, MAX_ROWS))]
    rows, size = metadata.num_rows, sum(group.total_byte_size for group in groups)
    if not 0 <= rows <= MAX_ROWS or not 0 <= size <= _OVERHEAD_BYTES + rows * row_bytes:
        expected = f"at most {MAX_ROWS} rows of at most {row_bytes} bytes"
        raise IntegrityError(field, expected, f"{rows} rows of {size} bytes in all")


def _latent_bytes(schema: Any) -> int:
    """Twice the size of a latent point in a table of this schema; 0 without a valid column ``latent``."""
    import pyarrow as pa

    place = schema.get_field_index(LATENT_COLUMN)  # -1 also if there are several
    kind = schema.field(place).type if place >= 0 else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        return 0
    return 2 * min(int(kind.list_size), _MAX_LATENT) * int(kind.value_type.bit_width) // 8
