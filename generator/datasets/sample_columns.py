"""Columns of all samples of a build, read from its tables without an image; and which samples a filter selects."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.sample_filter import column_kinds, parse_filter
from generator.errors import IntegrityError, SpecError
from generator.production.provenance.manifest import Manifest
from generator.production.provenance.sample_table import LATENT_COLUMN

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

_THREADS = 8


def read_columns(
    reader: ArchiveReader, manifest: Manifest, columns: list[str] | None = None, where: str | None = None
) -> pa.Table:
    """Columns of the samples that ``where`` selects, in the order of the build; without images and, unless it is named,
    without ``latent``. Raises ``SpecError`` for an unknown column, ``IntegrityError``."""
    import pyarrow as pa

    if not manifest.shards:
        return pa.table({})
    names = _names(reader, columns)
    expression = None if where is None else parse_filter(where, column_kinds(_schema(reader)))

    def read(number: int) -> pa.Table:
        table = _table(reader, manifest, number, None if expression is not None else names)
        return (table if expression is None else _filter(table, expression)).select(names)

    with ThreadPoolExecutor(_THREADS) as pool:
        return pa.concat_tables(pool.map(read, range(len(manifest.shards))))


def select_rows(reader: ArchiveReader, manifest: Manifest, where: str) -> tuple[np.ndarray, ...]:
    """For each shard the rows (int64, ascending) of the samples that ``where`` selects. Raises as ``read_columns``."""
    import pyarrow as pa

    expression = parse_filter(where, column_kinds(_schema(reader)) if manifest.shards else {})

    def rows(number: int) -> np.ndarray:
        table = _table(reader, manifest, number, None)
        numbered = table.append_column(_ROW, pa.array(np.arange(len(table)), pa.int64()))
        found: np.ndarray = _filter(numbered, expression).column(_ROW).to_numpy()
        return found

    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(pool.map(rows, range(len(manifest.shards))))


def filter_shard(
    reader: ArchiveReader, manifest: Manifest, number: int, where: str | None = None
) -> list[tuple[int, dict[str, Any]]]:
    """The rows of one shard that ``where`` selects, without ``latent``, each after its place in the shard.

    Raises as ``read_columns``.
    """
    import pyarrow as pa

    expression = None if where is None else parse_filter(where, column_kinds(_schema(reader)))
    table = _table(reader, manifest, number, None)
    numbered = table.append_column(_ROW, pa.array(np.arange(len(table)), pa.int64()))
    found = numbered if expression is None else _filter(numbered, expression)
    return [(row.pop(_ROW), row) for row in found.to_pylist()]


_ROW = "row of the shard"


def _filter(table: pa.Table, expression: pc.Expression) -> pa.Table:
    import pyarrow as pa

    try:
        return table.filter(expression)
    except (pa.ArrowException, TypeError) as error:
        text = str(error).partition("\n")[0]
        raise SpecError("where", "values of the types of their columns", text) from error


def _names(reader: ArchiveReader, columns: list[str] | None) -> list[str]:
    known = list(_schema(reader).names)
    if columns is None:
        return [name for name in known if name != LATENT_COLUMN]
    for name in columns:
        if name not in known:
            raise SpecError("columns", f"some of {', '.join(known)}", name)
    return list(columns)


def _schema(reader: ArchiveReader) -> pa.Schema:
    import pyarrow.parquet as parquet

    return parquet.read_schema(io.BytesIO(reader.table(0)))


def _table(reader: ArchiveReader, manifest: Manifest, number: int, columns: list[str] | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    field = manifest.shards[number].table.key
    try:
        file = parquet.ParquetFile(io.BytesIO(reader.table(number)))
        names = [name for name in file.schema_arrow.names if name != LATENT_COLUMN] if columns is None else columns
        table = file.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(field, "a Parquet table", f"bytes that do not parse ({error})") from error
    if len(table) != manifest.shards[number].samples:
        raise IntegrityError(field, f"{manifest.shards[number].samples} rows", len(table))
    return table
