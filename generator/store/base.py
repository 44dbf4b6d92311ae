"""What latentmill asks of an object store, and nothing more.

Three stores keep this contract: ``memory`` (the twin for tests), ``local`` (a directory) and ``s3``. Objects are
whole byte strings; a key is a relative path of plain segments. Every failure is a ``StoreError``; the errors of the
library underneath are translated inside the store, with ``from``. Stores may be shared between threads, and pickled
into other processes (where a memory store starts empty).

One difference is left: a directory cannot hold the object ``a`` beside the object ``a/b``; the second of the two is
refused there with ``AccessDenied``. No key of latentmill is a prefix path of another.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from generator.errors import IntegrityError, SpecError

# No leading dot: such names belong to the stores themselves (temporary files, locks, probes) and are never listed.
_SEGMENT = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]{0,254}")
MAX_KEY_LENGTH = 900  # S3 ends at 1024 bytes
MAX_OBJECT_BYTES = 5 * 10**9  # bytes; what S3 takes in one request


@dataclass(frozen=True)
class ObjectInfo:
    """What a store knows of an object without reading it."""

    key: str
    size: int  # bytes
    etag: str  # opaque; changes whenever the content changes
    modified: datetime  # timezone-aware, UTC


class Store(ABC):
    """A flat space of keys below one URL. Every method with a key raises ``SpecError`` for one that is not plain."""

    url: str  # without a trailing slash; ``f"{url}/{key}"`` names an object to a person

    @abstractmethod
    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        """The whole object. Raises ``ObjectMissing``; ``IntegrityError``, unread, for one of over ``limit`` bytes."""

    @abstractmethod
    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the object's end, none beyond it. Raises ``ObjectMissing``."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """The object's facts, or ``None`` where there is no object."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write a new object, atomically and durably; its etag. Raises ``AlreadyExists`` (``If-None-Match: *``).

        ``AlreadyExists`` may speak of this very call: a write whose answer was lost is sent again and meets itself.
        Read back and compare (``generator.store.put_once.put_once``).
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Overwrite exactly the version ``etag``; the new etag. Raises ``Changed`` (``If-Match``).

        An object that is gone has changed too. As with ``create``, ``Changed`` may speak of this very call.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write whatever is there now; the etag. Only for objects outside the commit."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in ascending order of their keys.

        Foreign objects whose names are no keys are left out, so every listed key can be read.
        """

    @abstractmethod
    def children(self, prefix: str = "") -> Iterator[str]:
        """Names of the 'directories' right below ``prefix`` (which ends with '/' or is empty), ascending.

        A directory without any object below it does not count.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Prove with a hidden probe object that writing works, and leave nothing behind.

        Raises ``BucketMissing``, ``AccessDenied``, ``StoreUnavailable``.
        """

    @abstractmethod
    def at(self, prefix: str) -> Store:
        """The same store seen from ``prefix`` (a key, or a key and '/'): keys are relative to it."""


def check_key(key: str, field: str = "key") -> str:
    """``key``, if each of its segments is plain; ``SpecError`` if it could climb, hide or surprise a store."""
    if len(key) > MAX_KEY_LENGTH or not all(map(is_segment, key.split("/"))):
        expected = f"at most {MAX_KEY_LENGTH} characters, plain segments of letters, digits and ._=@+- joined by '/'"
        raise SpecError(field, expected, repr(key[:120]), "a segment begins with no dot and has up to 255 characters")
    return key


def check_prefix(prefix: str) -> str:
    """``prefix``, if it is empty, a key, or a key and '/'. Raises ``SpecError``."""
    if prefix:
        check_key(prefix.removesuffix("/"), "prefix")
    return prefix


def check_directory(prefix: str) -> str:
    """``prefix``, if it is empty or a key and '/'. Raises ``SpecError``."""
    if prefix and not prefix.endswith("/"):
        raise SpecError("prefix", "an empty prefix, or one that ends with '/'", repr(prefix[:120]))
    return check_prefix(prefix)


def check_range(start: int, length: int) -> None:
    """Raises ``SpecError`` unless both are at least 0: stores read a negative offset in different ways."""
    if start < 0 or length < 0:
        raise SpecError("range", "a start and a length of at least 0", f"start {start}, length {length}")


def check_size(where: str, size: int, limit: int) -> None:
    """Raises ``IntegrityError`` for an object that is larger than what can rightly be there."""
    if size > limit:
        hint = "something else was written there; it was not read"
        raise IntegrityError(where, f"an object of at most {limit} bytes", f"{size} bytes", hint)


def join_key(prefix: str, key: str) -> str:
    """The key below ``prefix``, checked as a whole; either may be empty."""
    whole = "/".join(part for part in (prefix, key) if part)
    return check_key(whole) if whole else whole


def is_segment(name: str) -> bool:
    """Whether ``name`` may stand between the slashes of a key."""
    return _SEGMENT.fullmatch(name) is not None


def is_key(key: str) -> bool:
    """Whether ``key`` is one that ``check_key`` lets pass."""
    return len(key) <= MAX_KEY_LENGTH and all(map(is_segment, key.split("/")))
