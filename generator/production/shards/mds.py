"""MDS shards, the format of MosaicML Streaming, version 2, without compression.

Format: https://github.com/mosaicml/streaming, ``streaming/base/format/mds``. A shard is: the number N of samples
(uint32), N + 1 offsets from the beginning of the file (uint32), the configuration as JSON, and the samples. A sample
is: the sizes of its columns of variable size (uint32 each), and the columns, in the order of their names. All numbers
are little-endian. ``index.json`` lists the shards; it grows with shards, not with samples.

Columns: ``image`` (``png`` or ``jpeg``: readers decode it), ``json`` (the facts of the sample), ``key`` (text) and, in
a labelled build, ``label`` (int64).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, final

import numpy as np

from generator.errors import IntegrityError, InvalidOutput
from generator.production.shards.base import ContiguousFormat, Files, FinishedArchive, Member, PackedSample, ShardWriter
from generator.spec.canonical import canonical_json
from generator.spec.recipe import MAX_MDS_BYTES

MAX_SAMPLES = 100_000
_SIZES = struct.Struct("<III")  # of image, json and key
_LABEL = struct.Struct("<q")
_COUNT = struct.Struct("<I")
_MAX_KEY = 90  # characters
# What litdata makes of the columns. It would turn every image into an RGB tensor, with torchvision: bytes are exact.
_LITDATA_FORMATS = {"image": "bytes", "json": "str", "key": "str", "label": "int"}


@dataclass(frozen=True)
class ListedShard:
    """One shard of ``index.json``: its name beside that file, its samples, its size in bytes, its sha256 in hex."""

    name: str
    samples: int
    size: int
    sha256: str


@final
@dataclass(frozen=True)
class MdsFormat(ContiguousFormat):
    """MDS shards of images in ``image_format`` (``png`` or ``jpeg``), whose files end in ``extension``."""

    image_format: str
    extension: str
    labelled: bool

    media_type = "application/octet-stream"
    lead = _SIZES.size

    @property
    def config(self) -> dict[str, Any]:
        """What a shard and ``index.json`` say about the columns, as Streaming's own writer does."""
        columns: dict[str, tuple[str, int | None]] = {
            "image": (self.image_format, None),
            "json": ("json", None),
            "key": ("str", None),
        }
        columns |= {"label": ("int", _LABEL.size)} if self.labelled else {}
        return {
            "column_encodings": [encoding for encoding, _ in columns.values()],
            "column_names": list(columns),
            "column_sizes": [size for _, size in columns.values()],
            "compression": None,
            "format": "mds",
            "hashes": ["sha256"],
            "size_limit": None,
            "version": 2,
        }

    def pack(self, key: str, members: list[Member]) -> PackedSample:
        files = {member.extension: member.data for member in members}
        image, facts, name = files[self.extension], files["json"], key.encode("ascii")
        label = _LABEL.pack(int(files["cls"])) if self.labelled else b""
        block = b"".join((_SIZES.pack(len(image), len(facts), len(name)), image, facts, name, label))
        return PackedSample(key, block, _SIZES.size, len(image))

    def writer(self) -> ShardWriter:
        return MdsWriter(json.dumps(self.config, sort_keys=True).encode())

    def read_samples(self, data: bytes, *, field: str) -> Iterator[tuple[str, Files]]:
        for begin, end in self._places(data, field):
            yield self.read_sample(data[begin:end], field=field)

    def read_sample(self, block: bytes, *, field: str) -> tuple[str, Files]:
        fixed = _LABEL.size if self.labelled else 0
        sizes = _SIZES.unpack_from(block) if len(block) >= _SIZES.size else (0, 0, 0)
        if _SIZES.size + sum(sizes) + fixed != len(block) or not 0 < sizes[2] <= _MAX_KEY:
            raise IntegrityError(field, f"a sample of {len(block)} bytes", f"columns of {sizes} bytes")
        ends = np.cumsum((_SIZES.size, *sizes)).tolist()
        image, facts, name = (block[begin:end] for begin, end in pairwise(ends))
        if not name.isascii():
            raise IntegrityError(field, "a key of ASCII characters", repr(name[:40]))
        label = {"cls": b"%d" % _LABEL.unpack(block[ends[-1] :])[0]} if self.labelled else {}
        return name.decode("ascii"), {self.extension: image, **label, "json": facts}

    def _places(self, data: bytes, field: str) -> list[tuple[int, int]]:
        """Where each sample begins and ends. The head of the shard must be the one that ``MdsWriter`` writes."""
        count = _COUNT.unpack_from(data)[0] if len(data) >= _COUNT.size else 0
        config = json.dumps(self.config, sort_keys=True).encode()
        first = _COUNT.size * (count + 2) + len(config)
        if not 0 < count <= MAX_SAMPLES or first > len(data) or data[first - len(config) : first] != config:
            raise IntegrityError(
                field, "an MDS shard with the columns of this build", f"{count} samples or another head"
            )
        ends = np.frombuffer(data, "<u4", count + 1, _COUNT.size).astype(np.int64)
        if ends[0] != first or ends[-1] != len(data) or (np.diff(ends) <= 0).any():
            raise IntegrityError(field, f"ascending offsets from {first} to {len(data)}", "others")
        return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))

    def index(self, shards: list[ListedShard]) -> bytes:
        """``index.json`` as canonical JSON, in the words of both its readers, which give one another's terms no heed.

        Streaming reads ``shards``; litdata reads ``chunks`` and ``config``, since of ``shards`` it only
        reads compressed ones.
        """
        listed = [
            {
                **self.config,
                "raw_data": {"basename": shard.name, "bytes": shard.size, "hashes": {"sha256": shard.sha256}},
                "samples": shard.samples,
                "zip_data": None,
            }
            for shard in shards
        ]
        chunks = [
            {
                "chunk_bytes": shard.size,
                "chunk_size": shard.samples,
                "column_sizes": self.config["column_sizes"],
                "dim": None,
                "filename": shard.name,
            }
            for shard in shards
        ]
        return canonical_json({"chunks": chunks, "config": self._chunk_config(shards), "shards": listed, "version": 2})

    def _chunk_config(self, shards: list[ListedShard]) -> dict[str, Any]:
        names = self.config["column_names"]
        leaf: dict[str, Any] = {"children_spec": [], "context": None, "type": None}
        spec = {"children_spec": [leaf] * len(names), "context": json.dumps(names), "type": "builtins.dict"}
        return {
            "chunk_bytes": sum(shard.size for shard in shards),
            "chunk_size": sum(shard.samples for shard in shards),
            "compression": None,
            "data_format": [_LITDATA_FORMATS[name] for name in names],
            "data_spec": json.dumps([1, spec]),
            "encryption": None,
            "format": "mds",
        }


@final
class MdsWriter(ShardWriter):
    """Collects samples; ``config``: the JSON between offsets and samples."""

    def __init__(self, config: bytes) -> None:
        self._config, self._samples = config, list[PackedSample]()

    def append(self, sample: PackedSample) -> None:
        self._samples.append(sample)

    def finish(self) -> FinishedArchive:
        samples, self._samples = self._samples, []
        sizes_N = np.array([len(sample.block) for sample in samples], dtype=np.int64)
        first = _COUNT.size * (len(samples) + 2) + len(self._config)
        ends_N = first + np.concatenate([[0], np.cumsum(sizes_N)]).astype(np.int64)
        if ends_N[-1] > MAX_MDS_BYTES:
            raise InvalidOutput("shard_size", f"a shard of at most {MAX_MDS_BYTES} bytes", f"{ends_N[-1]} bytes")
        head = _COUNT.pack(len(samples)) + ends_N.astype("<u4").tobytes() + self._config
        data = b"".join((head, *(sample.block for sample in samples)))
        offsets_N = ends_N[:-1] + np.array([sample.offset for sample in samples], dtype=np.int64)
        image_sizes_N = np.array([sample.size for sample in samples], dtype=np.int64)
        return FinishedArchive(data, hashlib.sha256(data).hexdigest(), offsets_N, image_sizes_N)
