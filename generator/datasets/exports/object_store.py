"""An export in an object store: shard after shard is written to a temporary directory and uploaded.

An object store renames no directories. So the files of the whole, with which readers begin, are uploaded after all
shards, and ``_export/whole.json`` after those: an export without it is unfinished. ``_export`` also holds what is
exported and a mark for each uploaded shard, so that an export that is started again makes the other shards. One process
at a time may export to a place.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar, final

from generator.datasets.exports.directory import ExportIdentity, ShardFiles, ShardMark
from generator.errors import BuildConflict, DatasetError, IntegrityError, ObjectMissing, SpecError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.store import S3Settings, Store, open_store
from generator.store.put_once import put_once

_FOLDER = "_export"
_IDENTITY = f"{_FOLDER}/export.json"
_MAX_DOCUMENT_BYTES = 2**28
_UPLOADS = 8  # at the same time; hf-folder has an object for each image

M = TypeVar("M", bound=FrozenModel)


@final
class StoreExport:
    """One export at the place of ``store``; files lie below ``root``, on this machine, until they are uploaded."""

    def __init__(self, store: Store, identity: ExportIdentity, root: Path) -> None:
        self._store, self._identity, self.root = store, identity, root

    @property
    def is_complete(self) -> bool:
        """Whether the place holds this export. Raises ``SpecError`` if it holds anything else."""
        self._check_identity()
        return self._store.head(_mark_key(None)) is not None

    def begin(self) -> None:
        """Begin or go on."""
        try:
            put_once(self._store, _IDENTITY, self._identity.canonical())
        except BuildConflict as other:
            raise SpecError("out", "a place that no other export writes to", self._store.url) from other

    def intact_mark(self, number: int | None) -> ShardMark | None:
        """The mark of a shard whose objects are all there as they were uploaded; ``None`` for one to be made."""
        try:
            mark = self._read_mark(number)
        except (DatasetError, ObjectMissing):
            return None
        return mark if self._first_damage(mark) is None else None

    def finish_shard(self, number: int | None, samples: int, files: ShardFiles) -> ShardMark:
        """Upload the files of a shard, or of the whole, read them back, and mark them as finished.

        Raises ``IntegrityError`` if an object holds other bytes than were uploaded.
        """
        mark = ShardMark(number=number, samples=samples, files=files.digests, facts=files.facts)
        if number is None:
            self._remove_strays(mark)
        with ThreadPoolExecutor(_UPLOADS) as pool:
            for _ in pool.map(self._upload, mark.files.items()):
                pass
        self._store.put(_mark_key(number), mark.canonical())
        return mark

    def complete(self) -> None:
        """Nothing more is to do: the mark of the whole was the last object."""

    def check(self, shards: int) -> int:
        """Compare all objects of a complete export with their digests. Returns the number of samples.

        Raises ``IntegrityError`` naming an object that is missing or altered.
        """
        samples = 0
        for number in (*range(shards), None):
            try:
                mark = self._read_mark(number)
            except ObjectMissing as missing:
                where = f"{self._store.url}/{_mark_key(number)}"
                raise IntegrityError(where, "the mark of a shard", "none", self._repair) from missing
            if (damaged := self._first_damage(mark)) is not None:
                expected = f"the object with digest {mark.files[damaged]}"
                raise IntegrityError(f"{self._store.url}/{damaged}", expected, "another one, or none", self._repair)
            samples += mark.samples
        return samples

    @property
    def _repair(self) -> str:
        return f"remove the objects below {self._store.url} and export again, or choose another --out"

    def _upload(self, file: tuple[str, str]) -> None:
        key, digest = file
        path = self.root / key
        self._store.put(key, path.read_bytes())
        found, _ = self._store.digest(key)
        if found != digest:
            raise IntegrityError(f"{self._store.url}/{key}", f"the bytes that were uploaded, {digest}", found)
        path.unlink()

    def _remove_strays(self, whole: ShardMark) -> None:
        """Delete what an interrupted export uploaded, and no mark names: files of Lance have names of their own."""
        marked = set(whole.files)
        for info in self._store.list(f"{_FOLDER}/shards/"):
            marked |= set(self._read_model(ShardMark, info.key).files)
        for info in list(self._store.list()):
            if info.key not in marked and not info.key.startswith(f"{_FOLDER}/"):
                self._store.delete(info.key)

    def _check_identity(self) -> None:
        expected = "an export of this build, or a place without objects"
        try:
            found = self._read_model(ExportIdentity, _IDENTITY)
        except ObjectMissing:
            if (other := next(iter(self._store.list()), None)) is None:
                return
            raise SpecError("out", expected, f"{self._store.url} with {other.key}", "choose another --out") from None
        except DatasetError as damaged:
            raise SpecError("out", expected, f"other objects at {self._store.url}", "choose another --out") from damaged
        if found != self._identity:
            got = f"{self._store.url} with an export of build {found.build} to {found.target}"
            raise SpecError("out", expected, f"{got}{', signed' if found.signed else ''}", "choose another --out")

    def _first_damage(self, mark: ShardMark) -> str | None:
        with ThreadPoolExecutor(_UPLOADS) as pool:
            intact = pool.map(self._is_intact, mark.files.items())
            return next((key for key, holds in zip(mark.files, intact, strict=True) if not holds), None)

    def _is_intact(self, file: tuple[str, str]) -> bool:
        try:
            return self._store.digest(file[0])[0] == file[1]
        except ObjectMissing:
            return False

    def _read_mark(self, number: int | None) -> ShardMark:
        mark = self._read_model(ShardMark, _mark_key(number))
        if mark.number != number:
            raise DatasetError(_mark_key(number), f"the mark of shard {number}", f"that of {mark.number}")
        return mark

    def _read_model(self, model: type[M], key: str) -> M:
        where = f"{self._store.url}/{key}"
        data = self._store.get(key, _MAX_DOCUMENT_BYTES)
        document = read_json(data, field=where, error=DatasetError, limit=_MAX_DOCUMENT_BYTES)
        return validate(model, document, field=where, error=DatasetError)


@contextmanager
def open_export_store(url: str, identity: ExportIdentity, s3: S3Settings | None) -> Iterator[StoreExport]:
    """The export at the URL ``url``. Raises ``SpecError``, ``StoreError``."""
    if identity.target == "energon":
        expected = "a local directory for energon, whose files have hidden names (.nv-meta)"
        raise SpecError("out", expected, url, "export to a directory, and copy it")
    store = open_store(url, s3)
    store.check_writable()
    with TemporaryDirectory(prefix="latentmill-export-") as folder:
        yield StoreExport(store, identity, Path(folder))


def _mark_key(number: int | None) -> str:
    return f"{_FOLDER}/whole.json" if number is None else f"{_FOLDER}/shards/{number:06d}.json"
