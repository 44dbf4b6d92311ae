"""The directory that an export is written to: whole or absent, and what is there of an interrupted one is kept.

Everything is written to ``<out>.partial``, which is renamed to ``<out>`` at the end. Its folder ``.export`` holds
``export.json`` (what is exported) and a mark for each finished shard, which lists its files with their digests. An
export that is started again checks the files of the marked shards, and makes the other shards.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, final

from pydantic import Field

from generator.errors import DatasetError, IntegrityError, SpecError
from generator.spec.canonical import FrozenModel, digest_of, read_json, validate
from generator.spec.recipe import Digest

_FOLDER = ".export"
_CHUNK_BYTES = 2**20
_MAX_DOCUMENT_BYTES = 2**28

Target = Literal["energon", "hf-folder", "lance", "mds"]
M = TypeVar("M", bound=FrozenModel)


class ExportIdentity(FrozenModel):
    """What an export holds. Two exports with equal identities hold the same samples."""

    kind: Literal["latentmill.export"] = "latentmill.export"
    export_version: Literal[1] = 1
    target: Target
    build: str
    recipe: Digest
    manifest: Digest
    signed: bool  # whether each image file has a C2PA manifest


class ShardMark(FrozenModel):
    """A finished shard: the digests of its files by path below the export, and what the end of the export needs.

    ``number``: ``None`` for the files of the whole, which are written last.
    """

    number: int | None
    samples: int
    files: dict[str, Digest]
    facts: dict[str, Any] = Field(default_factory=dict)


@dataclass
class ShardFiles:
    """The files of one shard, or of the whole, as they are written below ``root``; ``facts`` goes into the mark."""

    root: Path
    digests: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def write(self, path: str, data: bytes) -> None:
        """Write one file, replacing what an interrupted export left."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        self.digests[path] = digest_of(data)

    def add(self, path: str) -> None:
        """Note a file that another library wrote."""
        self.digests[path] = _digest_of_file(self.root / path)


@final
class ExportDirectory:
    """The directory ``out`` of one export. Made by ``open_directory``, which holds its lock."""

    def __init__(self, out: Path, identity: ExportIdentity) -> None:
        if not out.name:
            raise SpecError("out", "a directory with a name", str(out))
        self.out, self._identity = out, identity
        self.root = out.with_name(f"{out.name}.partial")

    @property
    def is_complete(self) -> bool:
        """Whether ``out`` holds this export. Raises ``SpecError`` if it holds anything else."""
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return False
        self._check_identity(self.out, "an export of this build, an empty directory or none", "choose another --out")
        return True

    def begin(self) -> None:
        """Begin or go on. Raises ``SpecError`` if an unfinished export of something else is there."""
        if (self.root / _FOLDER / "export.json").exists():
            self._check_identity(self.root, "an unfinished export of this build, or none", f"remove {self.root}")
            return
        (self.root / _FOLDER / "shards").mkdir(parents=True, exist_ok=True)
        _write_whole(self.root / _FOLDER / "export.json", self._identity.canonical())

    def intact_mark(self, number: int | None) -> ShardMark | None:
        """The mark of a shard whose files are all there as they were written; ``None`` for a shard to be made."""
        try:
            mark = _read_mark(self.root, number)
        except (DatasetError, OSError):
            return None
        return mark if _first_damage(self.root, mark) is None else None

    def finish_shard(self, number: int | None, samples: int, files: ShardFiles) -> ShardMark:
        """Mark a shard, or the whole, as finished."""
        mark = ShardMark(number=number, samples=samples, files=files.digests, facts=files.facts)
        _write_whole(_mark_path(self.root, number), mark.canonical())
        return mark

    def complete(self) -> None:
        """Flush everything to disk and give the directory its name."""
        os.sync()
        (self.root / _FOLDER / "lock").unlink(missing_ok=True)
        self.root.rename(self.out)
        os.sync()

    def check(self, shards: int) -> int:
        """Compare all files of a complete export with their digests. Returns the number of samples.

        Raises ``IntegrityError`` naming a file that is missing or altered.
        """
        samples = 0
        for number in (*range(shards), None):
            try:
                mark = _read_mark(self.out, number)
            except OSError as missing:
                raise IntegrityError(
                    str(_mark_path(self.out, number)), "the mark of a shard", "none", self._repair
                ) from missing
            if (damaged := _first_damage(self.out, mark)) is not None:
                expected = f"the file with digest {mark.files[damaged]}"
                raise IntegrityError(str(self.out / damaged), expected, "another one, or none", self._repair)
            samples += mark.samples
        return samples

    @property
    def _repair(self) -> str:
        return f"remove {self.out} and export again, or choose another --out"

    def _check_identity(self, root: Path, expected: str, hint: str) -> None:
        path = root / _FOLDER / "export.json"
        try:
            found = _read_model(ExportIdentity, path)
        except (OSError, DatasetError) as other:
            raise SpecError("out", expected, f"other files in {root}", hint) from other
        if found != self._identity:
            got = f"{root} with an export of build {found.build} to {found.target}"
            raise SpecError("out", expected, f"{got}{', signed' if found.signed else ''}", hint)


@contextmanager
def open_directory(out: Path, identity: ExportIdentity) -> Iterator[ExportDirectory]:
    """The directory of an export, which no other process writes to meanwhile. Raises ``SpecError``."""
    directory = ExportDirectory(out, identity)
    if directory.is_complete:
        yield directory
        return
    lock = directory.root / _FOLDER / "lock"
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as held:
                raise SpecError("out", "a directory that no other export writes to", str(out)) from held
            yield directory
    except OSError as refused:
        raise SpecError("out", "a directory that can be written", f"{out} ({refused.strerror or refused})") from refused


def remove_strays(root: Path, folder: str, known: Mapping[str, str]) -> None:
    """Remove files of ``folder`` below ``root`` that no mark lists: an interrupted export left them."""
    for path in (root / folder).rglob("*"):
        if path.is_file() and path.relative_to(root).as_posix() not in known:
            path.unlink()


def discard(root: Path, folder: str) -> None:
    """Remove ``folder`` below ``root`` with everything in it, if it is there."""
    shutil.rmtree(root / folder, ignore_errors=True)


def _read_mark(root: Path, number: int | None) -> ShardMark:
    mark = _read_model(ShardMark, _mark_path(root, number))
    if mark.number != number or any(Path(path).is_absolute() or ".." in Path(path).parts for path in mark.files):
        raise DatasetError(str(_mark_path(root, number)), f"the mark of shard {number}", f"that of {mark.number}")
    return mark


def _first_damage(root: Path, mark: ShardMark) -> str | None:
    """The first file of a mark that is missing or has another digest."""
    for path, digest in mark.files.items():
        try:
            if _digest_of_file(root / path) != digest:
                return path
        except OSError:
            return path
    return None


def _mark_path(root: Path, number: int | None) -> Path:
    return root / _FOLDER / ("whole.json" if number is None else f"shards/{number:06d}.json")


def _read_model(model: type[M], path: Path) -> M:
    data = path.read_bytes()
    document = read_json(data, field=str(path), error=DatasetError, limit=_MAX_DOCUMENT_BYTES)
    return validate(model, document, field=str(path), error=DatasetError)


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _digest_of_file(path: Path) -> str:
    import hashlib

    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return f"sha256:{found.hexdigest()}"
