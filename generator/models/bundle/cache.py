"""Bundles kept on the disk of a worker's host, up to a number of bytes; the least recently used one goes first."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from generator.errors import BundleError, BundleMissing, StoreError, StoreUnavailable
from generator.models.bundle.load import Bundle, load_bundle
from generator.models.bundle.save import write_atomically
from generator.models.bundle.transfer import bundle_store, fetch
from generator.store import open_store
from generator.store.base import Store

_ENTRY_NAME = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class BundleCache:
    """Bundles under ``directory``, named by digest, at most ``max_bytes`` together (one always fits).

    Processes of one host may share the directory without a lock: what was pulled is loaded under a name of its own
    before the others see it, entries come and go by renaming, and an entry that is damaged, or that another process
    takes away while it is read, is pulled again.
    """

    directory: Path
    max_bytes: int

    def load(self, digest: str, roots: Sequence[Store]) -> Bundle:
        """The bundle ``digest``, verified: from here, or else pulled from the first root that has it.

        Raises ``BundleMissing`` where no root has it, ``BundleError`` where a root's is altered, ``StoreError``.
        """
        home = self.directory / digest.removeprefix("sha256:")
        try:
            bundle = load_bundle(open_store(str(home)), digest)
        except (BundleError, StoreError):
            bundle = self._pull(digest, roots, home)
        with suppress(FileNotFoundError):  # another process needed the room
            os.utime(home)
        self._evict(keep=home)
        return bundle

    def _pull(self, digest: str, roots: Sequence[Store], home: Path) -> Bundle:
        self._remove(home)
        files = _fetch_from_roots(digest, roots)
        fresh = self.directory / self._hidden_name()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(fresh, files)
        except (OSError, BundleError) as refused:
            got = f"{self.directory} ({refused.__cause__ or refused})"
            raise StoreUnavailable("bundle cache", "a directory that can be written", got) from refused
        try:
            bundle = load_bundle(open_store(str(fresh)), digest)
            with suppress(OSError):  # another process of this host was faster
                fresh.rename(home)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return bundle

    def _evict(self, keep: Path) -> None:
        homes = [home for home in self.directory.iterdir() if _ENTRY_NAME.fullmatch(home.name) and home.is_dir()]
        used = _usage(keep)[1]
        for _, size, home in sorted(((*_usage(home), home) for home in homes if home != keep), reverse=True):
            used += size
            if used > self.max_bytes:
                self._remove(home)

    def _remove(self, home: Path) -> None:
        gone = self.directory / self._hidden_name()
        with suppress(OSError):  # another process was faster
            home.rename(gone)
            shutil.rmtree(gone)

    @staticmethod
    def _hidden_name() -> str:
        return f".{secrets.token_hex(8)}"


def _fetch_from_roots(digest: str, roots: Sequence[Store]) -> dict[str, bytes]:
    for root in roots:
        with suppress(BundleMissing):
            return fetch(bundle_store(root, digest), digest)
    known = ", ".join(root.url for root in roots) or "no root"
    raise BundleMissing("bundle", f"{digest} in a configured root", f"not found in {known}", "push it first")


def _usage(home: Path) -> tuple[float, int]:
    """When the entry was last used, and its bytes; nothing where another process has just taken it away."""
    try:
        return home.stat().st_mtime, sum(file.stat().st_size for file in home.iterdir())
    except OSError:
        return 0.0, 0
