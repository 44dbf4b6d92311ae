"""Gathers the tables of a build into columns: each table is read once, checked against its digest, and let go."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.exploration.columns import (
    MAX_SAMPLES,
    SHA_BYTES,
    TYPES,
    Axis,
    create_column,
    write_info,
)
from generator.datasets.exploration.frame import NO_CELL, Frame, frame_around
from generator.errors import IntegrityError, SpecError
from generator.production.provenance.manifest import Manifest
from generator.spec.plan import Plan
from generator.spec.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

_THREADS = 6  # tables that are read at a time
_PLAIN = {"label": -1, "cluster": -1, "attempt": -1, "log_density": np.nan, "label_confidence": np.nan}
_OF_VERSION_2 = {"map_x": np.nan, "map_y": np.nan, "offset": -1, "size": -1}
_DERIVED = ("cell", "density_bin", "confidence_bin", "by_density", "by_confidence")

OnShard = Callable[[int], None]  # called with the number of tables that have been read


def check_size(manifest: Manifest) -> None:
    """Raise ``SpecError`` for a build with more samples than can be looked at."""
    if manifest.samples > MAX_SAMPLES:
        raise SpecError(
            "build",
            f"at most {MAX_SAMPLES:,} samples",
            f"{manifest.samples:,}",
            "look at a smaller build of the bundle, or read it with open_dataset(..., where=...)",
        )


def gather_columns(reader: ArchiveReader, manifest: Manifest, folder: Path, on_shard: OnShard = lambda _: None) -> None:
    """Write the columns of the build into ``folder``, which exists and is empty.

    Memory holds a few tables at a time, and for the orders one column. Raises ``SpecError`` for a build that is too
    large, ``IntegrityError`` for a table that is damaged, ``StoreError``.
    """
    check_size(manifest)
    arrays = {name: create_column(folder, name, manifest.samples) for name in TYPES if name not in _DERIVED}
    plan, done, lock = Plan(Recipe.model_validate(manifest.recipe)), 0, threading.Lock()

    def read(number: int) -> None:
        nonlocal done
        _copy_table(reader, manifest, number, plan.start(number), arrays)
        with lock:
            done += 1
            on_shard(done)

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for _ in pool.map(read, range(len(manifest.shards))):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _derive(folder, manifest, arrays)


def _copy_table(
    reader: ArchiveReader, manifest: Manifest, number: int, start: int, arrays: dict[str, np.ndarray]
) -> None:
    """Copy the table of one shard to its place in the columns."""
    receipt = manifest.shards[number]
    table, key = _read_table(reader.table(number), receipt.table.key, receipt.samples), receipt.table.key
    rows = slice(start, start + receipt.samples)
    if not np.array_equal(table["index"].to_numpy(), np.arange(rows.start, rows.stop)):
        raise IntegrityError(f"{key}.index", f"{rows.start} .. {rows.stop - 1} in order", "others")
    for name, missing in (_PLAIN | _OF_VERSION_2).items():
        if name in table.column_names:
            arrays[name][rows] = table[name].fill_null(missing).to_numpy()
        elif name in _OF_VERSION_2:
            arrays[name][rows] = missing
        else:
            raise IntegrityError(key, f"a column {name}", ", ".join(table.column_names))
    arrays["image_sha256"][rows] = _digests(table["image_sha256"].to_pylist(), key)


def _read_table(data: bytes, key: str, samples: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    wanted = ("index", *_PLAIN, *_OF_VERSION_2, "image_sha256")
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows != samples:
            raise IntegrityError(key, f"{samples} rows", file.metadata.num_rows)
        return file.read(columns=[name for name in wanted if name in file.schema_arrow.names])
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(key, "a Parquet table", f"bytes that do not parse ({error})") from error


def _digests(texts: list[Any], key: str) -> np.ndarray:
    """uint8 (N, 32) of sha256 as 64 hexadecimal digits."""
    try:
        data = bytes.fromhex("".join(texts))
    except (ValueError, TypeError) as broken:
        raise IntegrityError(f"{key}.image_sha256", "64 hexadecimal digits a row", f"{broken!r:.100}") from broken
    if len(data) != SHA_BYTES * len(texts):
        raise IntegrityError(f"{key}.image_sha256", "64 hexadecimal digits a row", f"{len(data)} bytes in all")
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, SHA_BYTES)


def _derive(folder: Path, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
    """The columns that follow from the others, and ``columns.json``."""
    derived = {name: create_column(folder, name, manifest.samples) for name in _DERIVED}
    frame = frame_around(arrays["map_x"], arrays["map_y"])
    derived["cell"][:] = NO_CELL if frame is None else frame.cells(arrays["map_x"], arrays["map_y"])
    density = _axis(arrays["log_density"])
    confidence = None if np.isnan(arrays["label_confidence"]).all() else Axis(0.0, 1.0)
    for name, column, axis in (("density", "log_density", density), ("confidence", "label_confidence", confidence)):
        derived[f"{name}_bin"][:] = (axis or Axis(0.0, 1.0)).bins(arrays[column])
        derived[f"by_{name}"][:] = np.argsort(arrays[column], kind="stable")
    for array in (*arrays.values(), *derived.values()):
        assert isinstance(array, np.memmap)
        array.flush()
    _write(folder, manifest, frame, density, confidence)


def _write(
    folder: Path, manifest: Manifest, frame: Frame | None, density: Axis | None, confidence: Axis | None
) -> None:
    write_info(
        folder,
        samples=manifest.samples,
        classes=manifest.classes,
        frame=frame,
        density=density,
        confidence=confidence,
    )


def _axis(values_N: np.ndarray) -> Axis | None:
    finite_N = values_N[np.isfinite(values_N)]
    if not len(finite_N):
        return None
    low, high = float(finite_N.min()), float(finite_N.max())
    return Axis(low, high) if low < high else Axis(low - 0.5, low + 0.5)
