"""Parquet shards: one row a sample, with the image file in ``image``, a struct of ``bytes`` and ``path``.

Hugging Face ``datasets`` reads that struct as an image, and the class names from the metadata of the schema. Further
columns: ``key``, ``label`` (int64, of labelled builds), ``class`` and the facts of a sample. Rows lie in groups
of 100, with an index of their pages, so that readers fetch a part of a shard. Image bytes are neither compressed nor
gathered in a dictionary: each image file is one run of bytes of the shard, and the per-sample table says where.

The writer's options are all stated here, so the bytes are a pure function of the samples within one pyarrow release.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from generator.errors import IntegrityError
from generator.production.shards.base import Files, FinishedArchive, Member, PackedSample, ShardFormat, ShardWriter
from generator.spec.canonical import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_IN_GROUP = 100
MAX_SAMPLES = 100_000
_ROW_BYTES = 8192  # of a row without its image, when read: several times a class name and the likely labels
_FACTS = {
    "index": "int64",
    "attempt": "int32",
    "class": "string",
    "cluster": "int32",
    "label_confidence": "float64",
    "likely_labels": "int32[]",
    "likely_probabilities": "float64[]",
    "log_density": "float64",
    "recipe": "string",
    "synthetic": "bool",
}  # facts of a sample, with their types; ``label`` is a column of its own


@final
@dataclass(frozen=True)
class ParquetFormat(ShardFormat):
    """Parquet shards of images whose files end in ``extension``, of ``classes`` (none: unlabelled)."""

    extension: str
    classes: tuple[str, ...]

    media_type = "application/x-parquet"

    def pack(self, key: str, members: list[Member]) -> PackedSample:
        files = {member.extension: member.data for member in members}
        image = files[self.extension]
        return PackedSample(key, image + files["json"], 0, len(image))

    def writer(self) -> ShardWriter:
        return ParquetShardWriter(self)

    def read_samples(self, data: bytes, *, field: str) -> Iterator[tuple[str, Files]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(pa.BufferReader(data))
            if file.schema_arrow.remove_metadata() != self.schema.remove_metadata():
                raise IntegrityError(field, f"the columns {self.schema.names}", str(file.schema_arrow.names)[:500])
            for row in _read_rows(file, len(data), field):
                yield self._files(row, field)
        except (pa.ArrowException, OSError, ValueError, NotImplementedError) as broken:  # as pyarrow says it of pages
            raise IntegrityError(field, "a Parquet shard", f"bytes that do not parse ({broken})"[:500]) from broken

    @property
    def schema(self) -> pa.Schema:
        """The columns, and what ``datasets`` makes of them."""
        import pyarrow as pa

        image = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
        label = [pa.field("label", pa.int64())] if self.classes else []
        metadata = {"huggingface": hugging_face_features(self.classes, {"key": "string", "image": "Image"})}
        return pa.schema([pa.field("key", pa.string()), pa.field("image", image), *label, *facts_schema()], metadata)

    def row(self, sample: PackedSample) -> dict[str, Any]:
        """The row of a sample that ``pack`` made."""
        facts = json.loads(sample.block[sample.size :])
        image = {"bytes": sample.block[: sample.size], "path": f"{sample.key}.{self.extension}"}
        return {"key": sample.key, "image": image, **facts}

    def _files(self, row: dict[str, Any], field: str) -> tuple[str, Files]:
        key, image, label = row["key"], (row["image"] or {}).get("bytes"), row.get("label")
        if key is None or image is None or (self.classes and label is None):
            raise IntegrityError(field, "a key, an image and, in a labelled build, a label in each row", "a null")
        facts = {name: row[name] for name in _FACTS} | {"label": label}
        labels = {"cls": str(label).encode()} if self.classes else {}
        try:
            return key, {self.extension: image, **labels, "json": canonical_json(facts)}
        except ValueError as odd:
            raise IntegrityError(field, "finite numbers in each row", f"others ({odd})") from odd


@final
class ParquetShardWriter(ShardWriter):
    """Writes a row group whenever it has its rows; holds the file written so far."""

    def __init__(self, shard_format: ParquetFormat) -> None:
        import pyarrow.parquet as pq

        self._format, self._schema, self._sink = shard_format, shard_format.schema, io.BytesIO()
        self._waiting, self._offsets, self._sizes = list[PackedSample](), list[int](), list[int]()
        plain = [name for name in _leaf_columns(self._schema) if name != "image.bytes"]
        self._file = pq.ParquetWriter(
            self._sink,
            self._schema,
            version="2.6",
            data_page_version="1.0",
            compression=dict.fromkeys(plain, "zstd") | {"image.bytes": "none"},
            compression_level=dict.fromkeys(plain, 3),
            use_dictionary=["class", "recipe"],
            write_statistics=[name for name in plain if not name.startswith("image.")],
            data_page_size=2**20,
            write_batch_size=1024,
            dictionary_pagesize_limit=2**20,
            write_page_index=True,
            write_page_checksum=False,
            store_schema=True,
            sorting_columns=None,
        )

    def append(self, sample: PackedSample) -> None:
        self._waiting.append(sample)
        if len(self._waiting) == ROWS_IN_GROUP:
            self._write_group()

    def finish(self) -> FinishedArchive:
        if self._waiting:
            self._write_group()
        self._file.close()
        data = self._sink.getvalue()
        offsets_N, sizes_N = np.array(self._offsets, dtype=np.int64), np.array(self._sizes, dtype=np.int64)
        return FinishedArchive(data, hashlib.sha256(data).hexdigest(), offsets_N, sizes_N)

    def _write_group(self) -> None:
        """Write the waiting samples as one group, and find their images in its bytes, where they lie in order."""
        import pyarrow as pa

        begin, place = self._sink.tell(), 0
        rows = [self._format.row(sample) for sample in self._waiting]
        self._file.write_table(pa.Table.from_pylist(rows, schema=self._schema), row_group_size=ROWS_IN_GROUP)
        written = bytes(self._sink.getbuffer()[begin:])
        for row in rows:
            image = row["image"]["bytes"]
            place = written.index(image, place)  # whole, as there is neither compression nor a dictionary
            self._offsets.append(begin + place)
            self._sizes.append(len(image))
            place += len(image)
        self._waiting = []


def facts_schema() -> list[pa.Field]:
    """The columns of a sample's facts, for tables of samples of any kind."""
    import pyarrow as pa

    return [pa.field(name, _arrow_type(kind)) for name, kind in _FACTS.items()]


def hugging_face_features(classes: tuple[str, ...], head: dict[str, str]) -> str:
    """What ``datasets`` reads in the metadata of a schema: the columns ``head`` (types by name), label and facts."""
    first = {name: {"_type": "Image"} if kind == "Image" else _feature(kind) for name, kind in head.items()}
    label = {"label": {"_type": "ClassLabel", "names": list(classes)}} if classes else {}
    return json.dumps({"info": {"features": first | label | {name: _feature(kind) for name, kind in _FACTS.items()}}})


def _read_rows(file: Any, size: int, field: str) -> Iterator[dict[str, Any]]:
    """All rows. Guard against decompression bombs: the rows in memory are limited by the ``size`` of the shard."""
    metadata = file.metadata
    rows, limit = metadata.num_rows, size + metadata.num_rows * _ROW_BYTES
    groups = range(min(metadata.num_row_groups, MAX_SAMPLES))
    stated = sum(metadata.row_group(number).total_byte_size for number in groups)
    if not 0 <= rows <= MAX_SAMPLES or not 0 <= stated <= limit:
        raise IntegrityError(field, f"at most {MAX_SAMPLES} rows of {limit} bytes", f"{rows} rows of {stated} bytes")
    read = 0
    for batch in file.iter_batches(batch_size=ROWS_IN_GROUP):
        read += batch.nbytes
        if read > limit:
            raise IntegrityError(field, f"rows of at most {limit} bytes in all", "more")
        yield from batch.to_pylist()


def _leaf_columns(schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    leaves = list[str]()
    for field in schema:
        if pa.types.is_struct(field.type):
            leaves += [f"{field.name}.{child.name}" for child in field.type]
        else:
            leaves.append(f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name)
    return leaves


def _arrow_type(kind: str) -> pa.DataType:
    import pyarrow as pa

    plain = {
        "bool": pa.bool_(),
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
    }
    return pa.list_(plain[kind.removesuffix("[]")]) if kind.endswith("[]") else plain[kind]


def _feature(kind: str) -> dict[str, Any]:
    value = {"_type": "Value", "dtype": kind.removesuffix("[]")}
    return {"_type": "List", "feature": value} if kind.endswith("[]") else value
