"""A cache of bundles on the disk of a worker's host, with a size limit; the least recently used are removed first."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from generator.errors import BundleError, BundleMissing, StoreError, StoreUnavailable
from generator.models.bundle.load import Bundle, load_bundle, load_codes, read_info
from generator.models.bundle.save import write_atomically
from generator.models.bundle.transfer import bundle_store, fetch
from generator.models.latents.codes import Codes
from generator.store import open_store
from generator.store.base import Store

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BundleCache:
    """Bundles in ``directory``, named by digest, at most ``max_bytes`` in total (but always at least one bundle).

    Processes of one host may share the directory without a lock: a pulled bundle is verified under a hidden name before
    it becomes an entry; entries are added and removed by renaming; and an entry that is damaged, or removed by another
    process while it is read, is pulled again.
    """

    directory: Path
    max_bytes: int

    def load(self, digest: str, roots: Sequence[Store]) -> Bundle:
        """The bundle ``digest``, verified: from the cache, or else pulled from the first root that has it.

        Raises ``BundleMissing`` if no root has it, ``BundleError`` if a root's copy is altered, and ``StoreError``.
        """
        entry = self.directory / digest.removeprefix("sha256:")
        try:
            bundle = load_bundle(open_store(str(entry)), digest)
        except (BundleError, StoreError):
            bundle = self._pull(digest, roots, entry)
        with suppress(FileNotFoundError):  # another process has evicted it
            os.utime(entry)
        self._evict(keep=entry)
        return replace(bundle, read_codes=bundle.read_codes and partial(self._read_codes, digest, roots))

    def _read_codes(self, digest: str, roots: Sequence[Store]) -> Codes:
        """The codes of a bundle that was loaded before; its entry may have been removed since, and is pulled again."""
        entry = self.directory / digest.removeprefix("sha256:")
        try:
            return _codes_at(entry, digest)
        except (BundleError, StoreError):
            self._pull(digest, roots, entry)
        return _codes_at(entry, digest)

    def _pull(self, digest: str, roots: Sequence[Store], entry: Path) -> Bundle:
        self._remove(entry)
        files = _fetch_from_roots(digest, roots)
        temporary = self.directory / self._hidden_name()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(temporary, files)
        except (OSError, BundleError) as refused:
            got = f"{self.directory} ({refused.__cause__ or refused})"
            raise StoreUnavailable("bundle cache", "a directory that can be written", got) from refused
        try:
            bundle = load_bundle(open_store(str(temporary)), digest)
            with suppress(OSError):  # another process of this host was faster
                temporary.rename(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return bundle

    def _evict(self, keep: Path) -> None:
        entries = [entry for entry in self.directory.iterdir() if _ENTRY_NAME.fullmatch(entry.name) and entry.is_dir()]
        used = _usage(keep)[1]
        for _, size, entry in sorted(((*_usage(entry), entry) for entry in entries if entry != keep), reverse=True):
            used += size
            if used > self.max_bytes:
                self._remove(entry)

    def _remove(self, entry: Path) -> None:
        hidden = self.directory / self._hidden_name()
        with suppress(OSError):  # another process was faster
            entry.rename(hidden)
            shutil.rmtree(hidden)

    @staticmethod
    def _hidden_name() -> str:
        return f".{secrets.token_hex(8)}"


def _codes_at(entry: Path, digest: str) -> Codes:
    store = open_store(str(entry))
    return load_codes(store, read_info(store, digest)[1])


def _fetch_from_roots(digest: str, roots: Sequence[Store]) -> dict[str, bytes]:
    for root in roots:
        with suppress(BundleMissing):
            return fetch(bundle_store(root, digest), digest)
    known = ", ".join(root.url for root in roots) or "no root"
    raise BundleMissing("bundle", f"{digest} in a configured root", f"not found in {known}", "push it first")


def _usage(entry: Path) -> tuple[float, int]:
    """Time of the last use and size in bytes; zeros if another process has just removed the entry."""
    try:
        return entry.stat().st_mtime, sum(file.stat().st_size for file in entry.iterdir())
    except OSError:
        return 0.0, 0
