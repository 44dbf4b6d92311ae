"""What latentmill asks of an object store, and nothing more.

Three stores keep this contract: ``memory`` (the twin for tests), ``local`` (a directory) and ``s3``. Objects are
whole byte strings; a key is a relative path of plain segments. Every failure is a ``StoreError``; the errors of the
library underneath are translated inside the store, with ``from``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from generator.errors import SpecError

_SEGMENT = re.compile(r"^(?!\.{1,2}$)[A-Za-z0-9._=@+-]{1,255}$")


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows of an object without reading it."""

    key: str
    size: int  # bytes
    etag: str  # opaque; changes whenever the content changes
    modified: datetime  # timezone-aware, UTC


class Store(ABC):
    """A flat space of keys below one URL."""

    url: str  # without a trailing slash; ``f"{url}/{key}"`` names an object to a person

    @abstractmethod
    def get(self, key: str) -> bytes:
        """The whole object. Raises ``ObjectMissing``."""

    @abstractmethod
    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the object's end. Raises ``ObjectMissing``."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """The object's facts, or ``None`` where there is no object."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write a new object, atomically and durably; its etag. Raises ``AlreadyExists`` (``If-None-Match: *``)."""

    @abstractmethod
    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Overwrite exactly the version ``etag``; the new etag. Raises ``Changed`` (``If-Match``)."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write whatever is there now; the etag. Only for objects outside the commit."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in ascending order of their keys."""

    @abstractmethod
    def children(self, prefix: str = "") -> Iterator[str]:
        """Names of the 'directories' right below ``prefix`` (which ends with '/' or is empty), ascending."""

    @abstractmethod
    def check_writable(self) -> None:
        """Prove with a probe object that writing works. Raises ``BucketMissing``, ``AccessDenied``, ..."""

    @abstractmethod
    def at(self, prefix: str) -> Store:
        """The same store seen from ``prefix``: keys are relative to it."""


def check_key(key: str) -> str:
    """``key``, if each of its segments is plain; ``SpecError`` if it could climb, hide or surprise a store."""
    if len(key) > 900 or not all(_SEGMENT.match(segment) for segment in key.split("/")):
        raise SpecError("key", "plain segments of letters, digits and ._=@+- joined by '/'", repr(key[:120]))
    return key
