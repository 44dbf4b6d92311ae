"""Bundles kept on the disk of a worker's host, up to a number of bytes; the least recently used one goes first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.bundle.format import INFO_FILE
from generator.bundle.transfer import bundle_store, pull
from generator.errors import BundleError
from generator.store import open_store
from generator.store.base import Store


@dataclass(frozen=True)
class BundleCache:
    """Bundles under ``directory``, named by digest, at most ``max_bytes`` together (one always fits).

    What is found here is verified again when it is loaded, so a damaged cache is an error and never a wrong image.
    """

    directory: Path
    max_bytes: int

    def find(self, digest: str, roots: Sequence[Store]) -> Store:
        """The bundle ``digest``, pulled from the first root that has it. Raises ``BundleError`` where none has."""
        home = self.directory / digest.removeprefix("sha256:")
        if not home.is_dir():
            self._pull(digest, roots, home)
        os.utime(home)
        self._evict(keep=home)
        return open_store(str(home))

    def _pull(self, digest: str, roots: Sequence[Store], home: Path) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = next((root for root in roots if bundle_store(root, digest).head(INFO_FILE) is not None), None)
        if root is None:
            known = ", ".join(root.url for root in roots) or "no root"
            raise BundleError("bundle", f"{digest} in a configured root", f"not found in {known}", "push it first")
        try:
            pull(root, digest, home)
        except BundleError:
            if not home.is_dir():  # otherwise another process of this host was faster
                raise

    def _evict(self, keep: Path) -> None:
        whole = [home for home in self.directory.iterdir() if not home.name.startswith(".")]
        homes = sorted(whole, key=lambda home: home.stat().st_mtime, reverse=True)
        homes = [keep, *(home for home in homes if home != keep)]
        used = 0
        for home in homes:
            used += sum(file.stat().st_size for file in home.iterdir())
            if used > self.max_bytes and home != keep:
                shutil.rmtree(home, ignore_errors=True)
