"""Hugging Face image Parquet: ``image`` (struct of bytes and path) and optionally ``label``.

Class names come from the ``huggingface`` key of the schema's metadata. Only ``bytes`` are read: ``path`` is an image's
name in messages, and no file is opened by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generator.errors import SourceError
from generator.sources.base import (
    ProgressCallback,
    Source,
    check_count,
    check_labels,
    check_names,
    make_source,
    numbered_names,
)
from generator.sources.decode import CHUNK, EncodedImage, EncodedImages, decode_images
from generator.spec.canonical import read_json

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_COLUMNS = ("image", "img")
_SPLIT_WORDS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


def load_parquet(
    paths: Sequence[Path],
    name: str,
    *,
    size: int | None,
    channels: int | None,
    skip_bad: bool,
    progress: ProgressCallback | None,
) -> Source:
    """The images of one split, in the order of ``paths`` and of their rows.

    Without ``size`` all images must be squares of one size. Tables are read in small batches. Raises ``SourceError``.
    """
    _check_one_split(paths, name)
    tables = [_Table(path) for path in paths]
    total = sum(table.rows for table in tables)
    check_count(total, name=name)
    labels_N, names = _read_labels(tables, total, name)

    def chunks() -> Iterator[list[EncodedImage]]:
        for table in tables:
            yield from table.encoded_images()

    encoded = EncodedImages(name, total, chunks)
    decoded = decode_images(encoded, size=size, channels=channels, skip_bad=skip_bad, progress=progress)
    labels_N = labels_N[decoded.kept_N] if labels_N is not None else None
    return make_source(decoded.images_NHWC, labels_N, names, name=name, skipped=decoded.skipped)


class _Table:
    """One file with a checked schema; each method opens it again."""

    def __init__(self, path: Path) -> None:
        with _open_parquet(path) as file:
            self.path = path
            self.rows = int(file.metadata.num_rows)
            self.schema = file.schema_arrow
        self.image = _image_column(self.schema, path)
        self.labelled = "label" in self.schema.names

    def encoded_images(self) -> Iterator[list[EncodedImage]]:
        row = 0
        with _open_parquet(self.path) as file:
            for batch in file.iter_batches(batch_size=CHUNK, columns=[self.image]):
                images = batch.column(0).to_pylist()
                yield [_to_encoded_image(image, f"{self.path.name} row {row + i}") for i, image in enumerate(images)]
                row += len(images)

    def labels(self) -> np.ndarray:
        """The label column, of any integer type."""
        from pyarrow import types

        field = f"{self.path.name}:label"
        if not types.is_integer(self.schema.field("label").type):
            raise SourceError(field, "integers", f"{self.schema.field('label').type} values")
        with _open_parquet(self.path) as file:
            column = file.read(columns=["label"]).column("label")
        if column.null_count:
            raise SourceError(field, "a label for every image", f"{column.null_count} rows without one")
        return np.asarray(column.to_numpy())

    def class_names(self) -> tuple[str, ...] | None:
        """Names of the ClassLabel in the metadata; ``None`` if there is no ClassLabel."""
        stored = (self.schema.metadata or {}).get(b"huggingface")
        field = f"{self.path.name}:huggingface"
        metadata = read_json(stored, field=field, error=SourceError) if stored is not None else None
        for key in ("info", "features", "label"):
            metadata = metadata.get(key) if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or metadata.get("_type") != "ClassLabel":
            return None
        names = metadata.get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SourceError(f"{field}.info.features.label.names", "a list of strings", f"{names!r:.100}")
        return check_names(names, field=f"{field}.info.features.label.names")


def _read_labels(tables: Sequence[_Table], total: int, name: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    if not any(table.labelled for table in tables):
        return None, ()
    for table in tables:
        if not table.labelled:
            raise SourceError(f"{table.path.name}:label", "labels, as in the other files of the source", "none")
        if table.class_names() != tables[0].class_names():
            expected = f"the class names of {tables[0].path.name}"
            raise SourceError(f"{table.path.name}:class_names", expected, "different names")
    labels_N = np.concatenate([table.labels() for table in tables])
    names = tables[0].class_names()
    if names is None:
        names = numbered_names(labels_N, field=f"{name}:label")
    return check_labels(labels_N, names, count=total, field=f"{name}:label"), names


def _image_column(schema: pa.Schema, path: Path) -> str:
    column = next((column for column in _IMAGE_COLUMNS if column in schema.names), None)
    if column is None:
        raise SourceError(f"{path.name}:image", "a column of this name", f"only {', '.join(schema.names) or 'none'}")
    kind = schema.field(column).type
    if not str(kind).startswith("struct<") or "bytes" not in [kind.field(i).name for i in range(kind.num_fields)]:
        raise SourceError(f"{path.name}:{column}", "struct<bytes: binary, path: string>", kind)
    return column


def _to_encoded_image(image: dict[str, Any] | None, row: str) -> EncodedImage:
    fields = image or {}
    file = f"{row} ({fields['path']})" if fields.get("path") else row
    return EncodedImage(file, fields.get("bytes") or b"")


def _check_one_split(paths: Sequence[Path], name: str) -> None:
    """A Hugging Face repository has train and test files in one folder; without this check both would be trained on."""
    split_words = {path: _SPLIT_WORDS.intersection(re.split(r"[^a-z]+", path.stem.lower())) for path in paths}
    if len({frozenset(words) for words in split_words.values()}) > 1:
        got = ", ".join(path.name for path in paths[:4]) + (", ..." if len(paths) > 4 else "")
        raise SourceError(name, "Parquet files of one split", got, "Give a pattern, such as 'data/train-*.parquet'.")


@contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    """The Parquet file; errors that pyarrow raises for damaged bytes while it is open become ``SourceError``."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(path.name, "a Parquet file", f"one that does not read ({error})") from error
