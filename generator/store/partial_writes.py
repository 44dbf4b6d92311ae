"""Finds what interrupted writes leave in a store: temporary files, probes, unfinished bundles and uploads.

Listings do not show them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from generator.store.atomic_files import ABSENT_ERRORS
from generator.store.base import Store

PROBE_PREFIX = ".latentmill-probe-"
_TEMPORARY_FILE = re.compile(r"\.(tmp|latentmill-probe)-[0-9a-f]{16}|\.doctor-\d+")
# A bundle that enters or leaves the cache (``.<16 digits>``), and one that is being saved (``.<name>-<8 letters>``).
_UNFINISHED_BUNDLE = re.compile(r"\.[0-9a-f]{16}|\..+-[a-z0-9_]{8}")
_BUNDLE_FILE = re.compile(r"[a-z]+\.(safetensors|json)")


@dataclass(frozen=True)
class PartialWrite:
    """A hidden remainder of an interrupted write. ``remove`` deletes it, or does nothing if it is gone already."""

    kind: Literal["temporary", "upload"]
    where: str
    bytes: int  # 0 if unknown
    modified: datetime  # UTC
    remove: Callable[[], object] = field(repr=False, compare=False)


@runtime_checkable
class HasPartialWrites(Protocol):
    """A store in which interrupted writes can leave remainders."""

    def partial_writes(self) -> Iterator[PartialWrite]:
        """All partial writes, of any age. Raises ``StoreError``."""


@runtime_checkable
class HasEmptyDirectories(Protocol):
    """A store in which empty directories can be left."""

    def prune_directories(self) -> None:
        """Remove empty directories. Raises ``StoreError``."""


def prune_directories(store: Store) -> None:
    """Remove the empty directories of a store, if it is one that can have them."""
    if isinstance(store, HasEmptyDirectories):
        store.prune_directories()


def find_partial_writes(directory: Path) -> Iterator[PartialWrite]:
    """Temporary files and directories of unfinished bundles below ``directory``; symbolic links are not followed."""
    waiting = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    if not entry.name.startswith("."):
                        waiting += [Path(entry.path)] if entry.is_dir(follow_symlinks=False) else []
                    elif (hidden := _partial_write(entry)) is not None:
                        yield hidden
        except ABSENT_ERRORS:  # deleted meanwhile
            continue


def _partial_write(entry: os.DirEntry[str]) -> PartialWrite | None:
    path = Path(entry.path)
    try:
        facts = entry.stat(follow_symlinks=False)
        if entry.is_file(follow_symlinks=False) and _TEMPORARY_FILE.fullmatch(entry.name):
            return PartialWrite("temporary", path.as_uri(), facts.st_size, _modified(facts), partial(_unlink, path))
        if entry.is_dir(follow_symlinks=False) and _UNFINISHED_BUNDLE.fullmatch(entry.name):
            parts = list(os.scandir(path))
            if all(part.is_file(follow_symlinks=False) and _BUNDLE_FILE.fullmatch(part.name) for part in parts):
                all_facts = [facts, *(part.stat(follow_symlinks=False) for part in parts)]
                size = sum(each.st_size for each in all_facts[1:])
                newest = max(map(_modified, all_facts))
                return PartialWrite(
                    "temporary", path.as_uri(), size, newest, partial(shutil.rmtree, path, ignore_errors=True)
                )
    except ABSENT_ERRORS:
        return None
    return None


def _modified(facts: os.stat_result) -> datetime:
    return datetime.fromtimestamp(facts.st_mtime, UTC)


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
