"""Tables of encoded images in Parquet, as Hugging Face datasets store them.

An image is a struct of ``bytes`` and ``path``, or plain bytes; only bytes are read: ``path`` is an image's name in
messages, and no file is opened by it. Declared classes (ClassLabel) come from the ``huggingface`` key of the schema's
metadata.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from generator.errors import OutsideError, SourceError
from generator.sources.base import check_count, check_names
from generator.sources.files.content import BytesContent, FileContent
from generator.sources.files.file_set import FileSet, SourceFile
from generator.sources.kinds.image_labels import is_label_file
from generator.sources.label_column import Column, ColumnKind, find_label_column
from generator.sources.labels import UNLABELLED_SOURCE, Labels, read_labels
from generator.sources.listing import Listing, ListOptions, select_encoded
from generator.sources.pixels.decode import CHUNK, EncodedImage, EncodedImages
from generator.sources.pixels.formats import has_image_header, is_pointer, kind_of
from generator.sources.splits import SPLIT_COLUMN, SPLIT_WORDS, are_splits, choose_split, split_of_path
from generator.spec.canonical import read_json
from generator.spec.reading import MAX_CLASSES

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_COLUMNS = ("image", "img")
_POINTER_HINT = "Fetch the files: git lfs pull."
SUFFIX = ".parquet"


def list_parquet(found: FileSet, options: ListOptions) -> Listing:
    """The images of one split, in the order of the paths and of their rows. Raises ``SourceError``.

    Tables are read in small batches.
    """
    files = found.select(lambda file: file.suffix == SUFFIX and (found.single or not is_label_file(file)))
    splits_of = [split_of_path(file.path) for file in files]
    by_path = options.split if any(splits_of) else None  # else a column may say it
    chosen, split, splits = choose_split(
        files, splits_of, by_path, field=found.name, names=[file.file_name for file in files]
    )
    tables = [_Table(file, options.reading.image) for file in chosen]
    total = sum(table.rows for table in tables)
    check_count(total, name=found.name)
    labels, column, notices = _read_labels(tables, total, found.name, options)

    def chunks() -> Iterator[list[EncodedImage]]:
        for table in tables:
            yield from table.encoded_images()

    passed_over = Counter(found.passed_over)
    passed_over.update(kind_of(file) for file in found.files if file.suffix != SUFFIX)
    images = EncodedImages(found.name, total, chunks)
    if options.rules > 1 and not splits:
        rows, split, splits = _split_rows(tables, found.name, options.split)
        if len(rows) < total:
            images = select_encoded(images, np.array(rows, dtype=np.int64))
            labels = labels if labels.labels_N is None else Labels(labels.labels_N[rows], labels.names)
    return Listing(
        "parquet",
        images,
        labels,
        split=split if len(splits) > 1 else None,
        splits=splits,
        image_column=tables[0].image,
        label_column=column,
        passed_over=passed_over,
        notices=notices,
    )


def holds_images(file: SourceFile) -> bool:
    """Whether a table has a column of encoded images, or does not read, which its reader will say."""
    try:
        return bool(_Table(file, None).image)
    except SourceError as error:
        return not error.field.endswith(":image")


class _Table:
    """One file with a checked schema; each method opens it again."""

    def __init__(self, file: SourceFile, image: str | None) -> None:
        if is_pointer(file):
            raise SourceError(file.file_name, "a Parquet file", "a Git LFS pointer", _POINTER_HINT)
        self._file, self.name = file, file.file_name
        with self.open() as opened:
            self.rows = int(opened.metadata.num_rows)
            self.schema = opened.schema_arrow
            self.image = self._find_image(opened, image)

    def encoded_images(self) -> Iterator[list[EncodedImage]]:
        row = 0
        with self.open() as file:
            for batch in file.iter_batches(batch_size=CHUNK, columns=[self.image]):
                images = batch.column(0).to_pylist()
                yield [_to_encoded_image(image, f"{self.name} row {row + i}") for i, image in enumerate(images)]
                row += len(images)

    def columns(self) -> list[Column]:
        """The columns beside the image; different values are not counted yet."""
        declared = self._features()
        return [
            Column(field.name, _column_kind(field.type, declared.get(field.name)))
            for field in self.schema
            if field.name != self.image
        ]

    def values(self, column: str) -> pa.ChunkedArray:
        """A whole column. Raises ``SourceError`` for missing values."""
        field = f"{self.name}:{column}"
        if column not in self.schema.names:
            raise SourceError(field, "labels, as in the other files of the source", "none")
        with self.open() as file:
            values = file.read(columns=[column]).column(column)
        if values.null_count:
            raise SourceError(field, "a label for every image", f"{values.null_count} rows without one")
        return values

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Names of the column's ClassLabel in the metadata; ``None`` if it has none."""
        declared = self._features().get(column)
        if not _is_class_label(declared):
            return None
        field = f"{self.name}:huggingface.info.features.{column}.names"
        names = declared.get("names") if isinstance(declared, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SourceError(field, "a list of strings", f"{names!r:.100}")
        return check_names(names, field=field)

    def _features(self) -> dict[str, Any]:
        stored = (self.schema.metadata or {}).get(b"huggingface")
        field = f"{self.name}:huggingface"
        metadata = read_json(stored, field=field, error=SourceError) if stored is not None else None
        for key in ("info", "features"):
            metadata = metadata.get(key) if isinstance(metadata, dict) else None
        return metadata if isinstance(metadata, dict) else {}

    def _find_image(self, file: Any, asked: str | None) -> str:
        names = self.schema.names
        shown = ", ".join(names) or "none"
        if asked is not None:
            if asked not in names:
                raise SourceError("image", f"a column of {self.name}: {shown}", asked)
            found = [asked]
        else:
            found = [column for column in _IMAGE_COLUMNS if column in names][:1]
            found = found or [name for name in names if self._holds_images(file, name)]
        if not found:
            raise SourceError(f"{self.name}:image", "a column of images", f"only {shown}", "Name it: --image COLUMN.")
        if len(found) > 1:
            hint = f"Name it: --image {found[0]}."
            raise SourceError(f"{self.name}:image", "one column of images", ", ".join(found), hint)
        kind = self.schema.field(found[0]).type
        if not _is_encoded(kind):
            raise SourceError(f"{self.name}:{found[0]}", "struct<bytes: binary, path: string>, or binary", kind)
        return found[0]

    def _holds_images(self, file: Any, name: str) -> bool:
        if not _is_encoded(self.schema.field(name).type):
            return False
        first = next(file.iter_batches(batch_size=1, columns=[name]), None)
        value = first.column(0).to_pylist()[0] if first is not None and len(first) else None
        data = value.get("bytes") if isinstance(value, dict) else value
        return isinstance(data, bytes) and has_image_header(data)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The Parquet file; errors that pyarrow raises for damaged bytes while it is open become ``SourceError``."""
        import pyarrow as pa
        from pyarrow import parquet

        content = self._file.content
        try:
            if isinstance(content, FileContent):
                with parquet.ParquetFile(content.path) as file:
                    yield file
            else:
                with content.open() as stream, parquet.ParquetFile(stream) as file:
                    yield file
        except OutsideError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise SourceError(self.name, "a Parquet file", f"one that does not read ({error})") from error


def _split_rows(
    tables: Sequence[_Table], name: str, asked: str | None
) -> tuple[list[int], str | None, tuple[str, ...]]:
    """The rows of one split, where a column says to which each belongs; all rows where there is none."""
    total = sum(table.rows for table in tables)
    named = [each.name for each in tables[0].columns() if each.kind == "text" and each.name.lower() == SPLIT_COLUMN]
    column = next(iter(named), None)
    of_rows: list[str | None] = [None] * total
    if column is not None and all(column in table.schema.names for table in tables):
        values = [str(value) for table in tables for value in table.values(column).to_pylist()]
        if are_splits(values):
            of_rows = [SPLIT_WORDS[value.lower()] for value in values]
    return choose_split(range(total), of_rows, asked, field=name, names=[""] * total)


def _read_labels(
    tables: Sequence[_Table], total: int, name: str, options: ListOptions
) -> tuple[Labels, str | None, tuple[str, ...]]:
    asked = "label" if options.rules == 1 else options.reading.label
    columns = list({column.name: column for table in reversed(tables) for column in table.columns()}.values())
    if options.rules == 1:
        if "label" not in tables[0].schema.names:
            return UNLABELLED_SOURCE, None, ()
    elif asked is None:
        columns = [_count_distinct(column, tables) for column in columns if column.name.lower() != SPLIT_COLUMN]
    column, notices = find_label_column(columns, total, asked, field=name)
    if column is None:
        return UNLABELLED_SOURCE, None, notices
    names = tables[0].class_names(column.name)
    for table in tables:
        if column.name in table.schema.names and table.class_names(column.name) != names:
            expected = f"the class names of {tables[0].name}"
            raise SourceError(f"{table.name}:class_names", expected, "different names")
    values = np.concatenate([_to_numpy(table.values(column.name)) for table in tables])
    return read_labels(values, names, field=f"{name}:{column.name}"), column.name, notices


def _count_distinct(column: Column, tables: Sequence[_Table]) -> Column:
    """The column with the number of its different values: only until there are too many for classes."""
    if column.kind not in ("integer", "text", "boolean"):
        return column
    from pyarrow import compute

    seen: set[Any] = set()
    for table in tables:
        if column.name not in table.schema.names:
            continue
        with table.open() as file:
            for batch in file.iter_batches(columns=[column.name]):
                seen.update(compute.unique(batch.column(0)).to_pylist())
                if len(seen) > MAX_CLASSES:
                    return Column(column.name, column.kind, len(seen))
    return Column(column.name, column.kind, len(seen))


def _to_numpy(values: pa.ChunkedArray) -> np.ndarray:
    from pyarrow import types

    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    array = np.asarray(values.to_numpy())
    return array.astype(np.str_) if array.dtype == object else array


def _column_kind(kind: pa.DataType, declared: object) -> ColumnKind:
    from pyarrow import types

    if _is_class_label(declared) and types.is_integer(kind):
        return "class"
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        return "integer"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "list" if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) else "other"


def _is_class_label(declared: object) -> bool:
    return isinstance(declared, dict) and declared.get("_type") == "ClassLabel"


def _is_encoded(kind: pa.DataType) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _to_encoded_image(image: dict[str, Any] | bytes | None, row: str) -> EncodedImage:
    if isinstance(image, bytes):
        return EncodedImage(row, BytesContent(image))
    fields = image or {}
    file = f"{row} ({fields['path']})" if fields.get("path") else row
    return EncodedImage(file, BytesContent(fields.get("bytes") or b""))
