"""Labels that a file beside the images states.

``metadata.csv``, ``metadata.jsonl`` and ``metadata.parquet`` of the image folders of Hugging Face datasets: a column
``file_name`` with paths relative to the file, and a column with labels. ``dataset.json`` of StyleGAN: ``{"labels":
[["00000/img00000000.png", 6], ...]}``.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from generator.errors import SourceError
from generator.sources.files.file_set import FileSet, SourceFile, composed_parts
from generator.sources.label_column import Column, ColumnKind, find_label_column
from generator.sources.loose_json import read_loose_json
from generator.sources.pixels.formats import is_pointer
from generator.spec.reading import MAX_CLASSES, UNLABELLED

_TABLES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
_STYLEGAN = "dataset.json"
_FILE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_path", "file_path")
_MAX_BYTES = 2**30

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_MAX_COLUMNS = 1000

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class StatedLabels:
    """Images with a stated label, in their order, and the labels; ``values`` is ``None`` if there are none."""

    file: str
    column: str
    images: tuple[SourceFile, ...]
    values: np.ndarray | None
    notices: tuple[str, ...] = ()
    by_folder: bool = True  # whether class folders count where there are no values


def is_label_file(file: SourceFile) -> bool:
    """Whether a file beside images states their labels, by its name."""
    return file.file_name in _TABLES or file.path == _STYLEGAN


def read_image_labels(
    files: Sequence[SourceFile], found: FileSet, images: Sequence[SourceFile], asked: str | None
) -> StatedLabels:
    """The labels that ``files`` state for ``images``; images that they do not name are left out.

    ``asked``: the column, by default found (``find_label_column``). Raises ``SourceError`` for a file that does not
    read, an image named twice, or one that is not there.
    """
    by_path = {composed_parts(image.path): image for image in found.files}
    rows: dict[SourceFile, Record] = {}
    records = {file: _records(file, found) for file in files}
    files = [file for file in files if records[file] is not None]
    if not files:
        names = ", ".join(file.path for file in records)
        passed = () if asked == UNLABELLED else (f"{names} names no images, and is passed over",)
        return StatedLabels(names, "", tuple(images), None, passed)
    for file in files:
        for name, record in records[file] or ():
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), name))
            image = by_path.get(composed_parts(path))
            if image is None:
                where = found.label(file)
                raise SourceError(where, "names of images that are there", repr(name[:120]), "Is the copy complete?")
            if image in rows:
                raise SourceError(found.label(file), "every image once", f"{name!r} twice")
            rows[image] = record
    stated = [(image, rows[image]) for image in images if image in rows]
    table = files[0].path if len(files) == 1 else files[0].file_name
    columns = _columns([record for _, record in stated])
    column, notices = find_label_column(columns, len(stated), asked, field=f"{found.name}/{table}")
    if column is None:
        told = () if asked == UNLABELLED else tuple(f"{notice} of {table}" for notice in notices)
        by_folder = all(file.path != _STYLEGAN for file in files)
        return StatedLabels(table, "", tuple(images), None, told, by_folder)
    values = [record.get(column.name) for _, record in stated]
    if any(value is None for value in values):
        got = f"{sum(value is None for value in values)} rows without one"
        raise SourceError(f"{found.name}/{table}:{column.name}", "a label for every image", got)
    told = (*notices, f"labels are read from {table}")
    return StatedLabels(table, column.name, tuple(image for image, _ in stated), _array(values, column.kind), told)


def _records(file: SourceFile, found: FileSet) -> list[tuple[str, Record]] | None:
    """The name of each image and the other columns of its row; ``None`` for a file that is of another kind."""
    where = found.label(file)
    if file.size > _MAX_BYTES:
        raise SourceError(where, f"at most {_MAX_BYTES} bytes", f"{file.size} bytes")
    if is_pointer(file):
        raise SourceError(where, "a table of images", "a Git LFS pointer", "Fetch the files: git lfs pull.")
    try:
        data = file.content.read()
    except OSError as error:
        raise SourceError(where, "a readable file", error.strerror or error) from error
    if file.path == _STYLEGAN:
        return _stylegan_records(data, where)
    rows = _read_table(file.file_name, data, where)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    key = next((name for name in _FILE_COLUMNS if name in columns), None)
    key = key or next((name for name in columns if name.endswith("_file_name")), None)
    if key is None:
        return None
    named = [(row.get(key), {name: value for name, value in row.items() if name != key}) for row in rows]
    return [(_file_name(name, where), record) for name, record in named]


def _file_name(name: object, where: str) -> str:
    if not isinstance(name, str) or not name or "\0" in name:
        raise SourceError(where, "the name of an image in every row", repr(name)[:120])
    return name.replace("\\", "/")


def _read_table(name: str, data: bytes, where: str) -> list[Record]:
    try:
        if name.endswith(".parquet"):
            return _parquet_rows(data, where)
        text = data.decode("utf-8-sig")
    except (UnicodeDecodeError, OSError, ValueError) as error:
        raise SourceError(where, "a table of images", f"one that does not read ({error})") from error
    if name.endswith(".jsonl"):
        lines = [line for line in text.split("\n") if line.strip()]
        parsed = [read_loose_json(line.encode(), field=f"{where} line {n}") for n, line in enumerate(lines, 1)]
        for number, row in enumerate(parsed, 1):
            if not isinstance(row, dict):
                raise SourceError(f"{where} line {number}", "a JSON object", type(row).__name__)
        return parsed
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True, dialect=_dialect(text), skipinitialspace=True)
        if len(set(reader.fieldnames or ())) != len(reader.fieldnames or ()):
            raise SourceError(where, "each column once", "two of one name")
        return [_csv_row(row, where, reader.line_num) for row in reader]
    except csv.Error as error:
        raise SourceError(where, "comma-separated values", error) from error


def _parquet_rows(data: bytes, where: str) -> list[Record]:
    """Rows of a table, with class names in place of the numbers of a ClassLabel."""
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(data))
    stored = (table.schema.metadata or {}).get(b"huggingface")
    document = read_loose_json(stored, field=f"{where}:huggingface") if stored is not None else {}
    info = document.get("info") if isinstance(document, dict) else None
    features = info.get("features") if isinstance(info, dict) else None
    rows: list[Record] = table.to_pylist()
    for name, declared in features.items() if isinstance(features, dict) else ():
        names = declared.get("names") if isinstance(declared, dict) else None
        if isinstance(names, list) and name in table.column_names:
            for row in rows:
                if _is_integer(row[name]) and 0 <= row[name] < len(names):
                    row[name] = names[row[name]]
    return rows


def _dialect(text: str) -> type[csv.Dialect]:
    """Comma, semicolon or tab, whichever the first line has most of."""
    first = text.partition("\n")[0]

    class Found(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return Found


def _csv_row(row: dict[Any, Any], where: str, line: int) -> Record:
    if None in row or None in row.values():
        raise SourceError(f"{where} line {line}", "as many fields as there are columns", "another number")
    return {name: _number(value) for name, value in row.items()}


def _number(text: str) -> Any:
    """An integer if ``text`` is one in its plain form ('7', not '007', which is a name); else the text."""
    return int(text) if _INTEGER.fullmatch(text) and str(int(text)) == text else text or None


def _stylegan_records(data: bytes, where: str) -> list[tuple[str, Record]] | None:
    document = read_loose_json(data, field=where, limit=_MAX_BYTES)
    if not isinstance(document, dict) or "labels" not in document:
        return None
    labels = document["labels"]
    if labels is None:
        return []
    if not isinstance(labels, list) or not all(isinstance(entry, list) and len(entry) == 2 for entry in labels):
        return None
    return [(_file_name(name, where), {"label": label}) for name, label in labels]


def _columns(records: Sequence[Record]) -> list[Column]:
    names = list(dict.fromkeys(name for record in records for name in record))
    if len(names) > _MAX_COLUMNS:
        raise SourceError("label", f"a table of at most {_MAX_COLUMNS} columns", f"{len(names)} of them")
    return [_column(name, [record.get(name) for record in records]) for name in names]


def _column(name: str, values: Sequence[Any]) -> Column:
    present = [value for value in values if value is not None]
    kind: ColumnKind = "other"
    if present and all(isinstance(value, bool) for value in present):
        kind = "boolean"
    elif present and all(_is_integer(value) for value in present):
        kind = "integer"
    elif present and all(isinstance(value, str | int) for value in present):
        kind = "text"
    elif present and all(isinstance(value, list) for value in present):
        kind = "list"
    if kind in ("other", "list"):
        return Column(name, kind)
    distinct = len({str(value) for value in present})
    return Column(name, kind, min(distinct, MAX_CLASSES + 1))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _array(values: Sequence[Any], kind: ColumnKind) -> np.ndarray:
    if kind == "integer":
        return np.array(values, dtype=np.int64)
    if kind == "boolean":
        return np.array(values, dtype=bool)
    return np.array([str(value) for value in values], dtype=np.str_)
