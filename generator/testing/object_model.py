"""The expected content of a store as a dictionary; the state machine compares the store with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class Version(NamedTuple):
    """One version of an object."""

    data: bytes
    etag: str


@dataclass
class ObjectModel:
    """The objects by key, and all versions of each."""

    objects: dict[str, Version] = field(default_factory=dict)
    history: dict[str, list[Version]] = field(default_factory=lambda: defaultdict(list))

    def write(self, key: str, data: bytes, etag: str) -> None:
        self.objects[key] = version = Version(data, etag)
        self.history[key].append(version)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def forget_history(self, key: str) -> None:
        """Keep the current version only."""
        self.history[key] = [self.objects[key]]

    def stale_etags(self, key: str) -> list[str]:
        """Etags of versions with other content than the current one: S3's etag of equal content may be the same."""
        current = self.objects.get(key)
        return [old.etag for old in self.history[key] if current is None or old.data != current.data]

    def keys(self, prefix: str = "") -> list[str]:
        """What ``list`` gives."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def children(self, prefix: str = "") -> list[str]:
        """What ``children`` gives."""
        below = [key.removeprefix(prefix) for key in self.keys(prefix)]
        return sorted({key.split("/")[0] for key in below if "/" in key})
