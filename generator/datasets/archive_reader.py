"""Reads samples out of the shards of a build: whole shards with their digest, or single samples by their place."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from generator.datasets.shard_cache import ShardCache
from generator.errors import IntegrityError
from generator.production.provenance.manifest import Manifest, StoredFile
from generator.production.provenance.sample_table import read_numbers_and_text, read_rows, sample_key
from generator.production.shards import ContiguousFormat, named_format, sample_places
from generator.spec.canonical import canonical_json, digest_of, sha256_hex
from generator.store.base import Store

if TYPE_CHECKING:
    import pyarrow as pa

_SHARDS_OF_PLACES = 256  # whose places are held; some 100 bytes a sample
_SHARDS_OF_FACTS = 64  # whose places and facts are held, where a shard has no facts beside its images; some 300 bytes
# Facts of a sample that its row in the table holds; the others are the same for the whole build.
_DRAW_COLUMNS = ("index", "attempt", "label", "class", "cluster", "log_density")
_FACT_COLUMNS = (*_DRAW_COLUMNS, "label_confidence", "likely_labels", "likely_probabilities")
_MARK_BYTES = 16
_OPEN_SHARDS = 64  # shards that are kept open: files of a process, where they are files
_DAMAGE_HINT = "latentmill verify lists all damage"

Files = dict[str, bytes]


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the samples of a shard begin and end, and the digest of each image (empty where it is not known).

    ``facts``: the columns of the table that a sample's facts are made of, in shards of formats that do not have them
    beside the image; there, ``begins_N`` and ``ends_N`` are those of the image file alone. ``marks_N``: in the other
    formats, what key, facts and label of each sample amount to by the table (``_mark``); version 1 builds have none.
    """

    begins_N: np.ndarray  # int64
    ends_N: np.ndarray
    hashes: tuple[str, ...]
    facts: pa.Table | None = None
    marks_N: np.ndarray | None = None  # bytes of length _MARK_BYTES


@final
class ArchiveReader:
    """The archives of one build. Safe to use from several threads, and to pickle."""

    def __init__(self, store: Store, manifest: Manifest, image_extension: str, cache: ShardCache | None) -> None:
        self._store, self._manifest, self._extension, self._cache = store, manifest, image_extension, cache
        # Not the whole recipe: builds of later releases may have fields that this one does not know.
        name = manifest.recipe.get("format", "webdataset")
        self._format = named_format(name, manifest.image.format, manifest.classes)
        self._lock = threading.Lock()
        self._places: OrderedDict[int, _Places] = OrderedDict()
        self._part_readers: OrderedDict[int, Callable[[int, int], bytes]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_lock", "_places", "_part_readers")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._places, self._part_readers = threading.Lock(), OrderedDict(), OrderedDict()

    def shard(self, number: int) -> list[tuple[str, Files]]:
        """All samples of a shard, whose digest is checked. Raises ``IntegrityError``."""
        file = self._manifest.shards[number].shard
        field = f"{self._store.url}/{file.key}"
        samples = list(self._format.read_samples(self._whole(file), field=field))
        if len(samples) != self._manifest.shards[number].samples:
            raise IntegrityError(field, f"{self._manifest.shards[number].samples} samples", len(samples))
        return samples

    def sample(self, number: int, row: int) -> tuple[str, Files]:
        """One sample of a shard, by a read of its bytes alone; the digest of its image is checked, and its key, facts
        and label are compared with its row in the table.

        Raises ``IntegrityError``.
        """
        file = self._manifest.shards[number].shard
        places = self._places_of(number)
        begin, end = int(places.begins_N[row]), int(places.ends_N[row])
        block = self._part(number, begin, end - begin)
        field = f"{self._store.url}/{file.key} at byte {begin}"
        if isinstance(self._format, ContiguousFormat):
            key, files = self._format.read_sample(block, field=field)
        else:
            assert places.facts is not None
            key, facts, label = self._facts(places.facts, row)
            files = {self._extension: block, "json": facts, **label}
        stated = places.hashes[row]
        found = sha256_hex(files.get(self._extension, b""))
        if stated and found != stated:
            raise IntegrityError(f"{field}:{key}", f"an image with sha256 {stated}", found, _DAMAGE_HINT)
        if places.marks_N is not None and _mark(key, files) != places.marks_N[row].tobytes():
            raise IntegrityError(
                f"{field}:{key}", "key, facts and label of its row in the table", "others", _DAMAGE_HINT
            )
        return key, files

    def table(self, number: int) -> bytes:
        """The table of a shard, whose digest is checked. Raises ``IntegrityError``."""
        file = self._manifest.shards[number].table
        data = self._store.get(file.key, file.size)
        _check_digest(f"{self._store.url}/{file.key}", data, file)
        return data

    def _whole(self, file: StoredFile) -> bytes:
        if self._cache is not None:
            return self._cache.whole(self._store, file)
        data = self._store.get(file.key, file.size)
        _check_digest(f"{self._store.url}/{file.key}", data, file)
        return data

    def _part(self, number: int, start: int, length: int) -> bytes:
        file = self._manifest.shards[number].shard
        if self._cache is not None:
            return self._cache.part(self._store, file, start, length)
        with self._lock:
            if (read := self._part_readers.get(number)) is None:
                read = self._part_readers[number] = self._store.part_reader(file.key)
                while len(self._part_readers) > _OPEN_SHARDS:
                    self._part_readers.popitem(last=False)
        return read(start, length)

    def _places_of(self, number: int) -> _Places:
        with self._lock:
            if number in self._places:
                self._places.move_to_end(number)
                return self._places[number]
        places = self._find_places(number)
        with self._lock:
            self._places[number] = places
            while len(self._places) > (_SHARDS_OF_PLACES if places.facts is None else _SHARDS_OF_FACTS):
                self._places.popitem(last=False)
        return places

    def _find_places(self, number: int) -> _Places:
        """From the table of a version 2 build; of a version 1 build, whose tables lack them, by one scan."""
        receipt = self._manifest.shards[number]
        field = f"{self._store.url}/{receipt.table.key}"
        table = self.table(number)
        spans = ["offset", "size"] if self._manifest.recipe.get("recipe_version", 1) > 1 else []
        rows = read_numbers_and_text(table, field=field, columns=["image_sha256", *spans])
        hashes = tuple(rows["image_sha256"])
        if not spans:
            places = sample_places(self._whole(receipt.shard), field=f"{self._store.url}/{receipt.shard.key}")
            begins_N, ends_N = np.array(places, dtype=np.int64).reshape(-1, 2).T
        else:
            offsets_N, sizes_N = (np.asarray(rows[name]).astype(np.int64) for name in spans)
            begins_N, ends_N = self._spans(offsets_N, sizes_N, receipt.shard.size)
        if len(begins_N) != receipt.samples or len(hashes) != receipt.samples:
            raise IntegrityError(field, f"{receipt.samples} rows", len(begins_N))
        if (begins_N < 0).any() or (ends_N <= begins_N).any() or (ends_N > receipt.shard.size).any():
            raise IntegrityError(f"{field}.offset", f"ascending places within {receipt.shard.size} bytes", "others")
        if not isinstance(self._format, ContiguousFormat):
            return _Places(begins_N, ends_N, hashes, self._read_facts(table, field))
        return _Places(begins_N, ends_N, hashes, marks_N=self._read_marks(table, field) if spans else None)

    def _spans(self, offsets_N: np.ndarray, sizes_N: np.ndarray, shard_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where what is read of each sample begins and ends: the whole sample, or where it is scattered its image."""
        if not isinstance(self._format, ContiguousFormat):
            return offsets_N, offsets_N + sizes_N
        begins_N = offsets_N - self._format.lead
        return begins_N, np.append(begins_N[1:], shard_size)

    def _read_facts(self, table: bytes, field: str) -> pa.Table:
        """The columns of the table that facts are made of."""
        import pyarrow as pa

        return pa.Table.from_pylist(read_rows(table, field=field, columns=list(_FACT_COLUMNS)))

    def _read_marks(self, table: bytes, field: str) -> np.ndarray:
        rows = map(self._facts_of, read_rows(table, field=field, columns=list(_FACT_COLUMNS)))
        marks = [_mark(key, {"json": facts, **label}) for key, facts, label in rows]
        return np.frombuffer(b"".join(marks), dtype=np.dtype((np.void, _MARK_BYTES)))

    def _facts(self, facts: pa.Table, row: int) -> tuple[str, bytes, Files]:
        return self._facts_of(facts.slice(row, 1).to_pylist()[0])

    def _facts_of(self, found: dict[str, Any]) -> tuple[str, bytes, Files]:
        """The key of a sample, its facts as canonical JSON, and its label as a file if it has one."""
        data = canonical_json(found | {"recipe": self._manifest.recipe_digest, "synthetic": True})
        label = found["label"]
        return sample_key(int(found["index"])), data, {} if label is None else {"cls": b"%d" % label}


def _mark(key: str, files: Files) -> bytes:
    """Tells whether a sample's key, facts and label are those of its row."""
    parts = (key.encode(), files.get("json", b""), files.get("cls", b""))
    return hashlib.blake2b(b"\0".join(parts), digest_size=_MARK_BYTES).digest()


def _check_digest(field: str, data: bytes, file: StoredFile) -> None:
    if (digest := digest_of(data)) != file.digest:
        raise IntegrityError(field, f"bytes with digest {file.digest}", digest, _DAMAGE_HINT)
