"""Gathered columns of builds on a local disk: bounded, shared by processes, gathered by one of them at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from generator.datasets.archive_reader import ArchiveReader
from generator.datasets.exploration.columns import INFO_FILE, Columns, open_columns
from generator.datasets.exploration.gather import OnShard, gather_columns
from generator.errors import IntegrityError, SettingsError
from generator.production.provenance.manifest import Manifest
from generator.spec.canonical import digest_of

_LOCKS = 64
_ABANDONED_SECONDS = 86_400  # then a folder that is being written belongs to a process that died


@final
@dataclass(frozen=True)
class ColumnCache:
    """A directory of at most ``limit`` bytes; the columns that were used least recently leave first.

    The columns that were gathered last stay even if they alone take more: without them, nothing could be shown.
    """

    directory: Path
    limit: int

    def find(self, manifest: Manifest) -> Columns | None:
        """The columns of the build, if they have been gathered."""
        folder = self._folder(manifest)
        try:
            columns = open_columns(folder)
        except FileNotFoundError:
            return None
        except IntegrityError:  # a full disk, or another release: gathered again
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(folder / INFO_FILE)
        return columns

    def get(self, reader: ArchiveReader, manifest: Manifest, on_shard: OnShard = lambda _: None) -> Columns:
        """The columns of the build, gathered now unless they are there. Raises as ``gather_columns``, and
        ``SettingsError`` if the directory cannot be written."""
        folder = self._folder(manifest)
        with self._locked(folder.name):
            found = self.find(manifest)
            return found if found is not None else self._gather(reader, manifest, folder, on_shard)

    def _gather(self, reader: ArchiveReader, manifest: Manifest, folder: Path, on_shard: OnShard) -> Columns:
        temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir(parents=True)
            gather_columns(reader, manifest, temporary, on_shard)
            temporary.rename(folder)
        except OSError as error:
            raise SettingsError("LATENTMILL_COLUMN_CACHE", "a directory with room", error.strerror or error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._make_room(folder)
        return open_columns(folder)

    def _make_room(self, kept: Path) -> None:
        found = []
        for folder in kept.parent.iterdir():
            with suppress(OSError):
                if folder.name.startswith(".") and time.time() - folder.stat().st_mtime > _ABANDONED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                    continue
                size = sum(each.stat().st_size for each in folder.iterdir())
                found.append(((folder / INFO_FILE).stat().st_mtime_ns, folder, size))
        total = sum(size for _, _, size in found)
        for _, folder, size in sorted(found):
            if total <= self.limit:
                break
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        path = self.directory / "locks" / str(int(name[:8], 16) % _LOCKS)
        try:
            for folder in (path.parent, self.directory / "columns"):
                folder.mkdir(parents=True, exist_ok=True)
            file = path.open("ab")
        except OSError as error:
            raise SettingsError(
                "LATENTMILL_COLUMN_CACHE", "a directory that can be written", error.strerror or error
            ) from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _folder(self, manifest: Manifest) -> Path:
        return self.directory / "columns" / digest_of(manifest.canonical()).removeprefix("sha256:")
