"""The object store contract: the base class of all stores, and the checks of keys, prefixes and sizes.

The stores of this contract: ``memory`` (for tests), ``local`` (a directory), ``s3``, and ``cloud`` (services of Google
and Azure). Objects are byte strings; a key is a relative path of plain segments. Every failure is a ``StoreError``;
stores translate the errors of the libraries they use, with ``from``. Stores may be shared between threads, and pickled
into other processes (where a memory store starts empty).

The stores differ in one point: a directory cannot hold both the object ``a`` and the object ``a/b``; the second of the
two is refused there with ``AccessDenied``. No key of latentmill is a prefix path of another.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from generator.errors import IntegrityError, SpecError
from generator.spec.canonical import digest_of

# No leading dot: such names are reserved for the stores (temporary files, locks, probes) and are never listed.
_SEGMENT = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9._=@+-]{0,254}")
MAX_KEY_LENGTH = 900  # the limit of S3 is 1024 bytes
MAX_OBJECT_BYTES = 5 * 10**9  # the limit of S3 for one request


@dataclass(frozen=True)
class ObjectInfo:
    """The metadata of an object."""

    key: str
    size: int  # bytes
    etag: str  # opaque; changes whenever the content changes
    modified: datetime  # timezone-aware, UTC


class Store(ABC):
    """A flat space of keys below one URL. Every method with a key raises ``SpecError`` if the key is not plain."""

    url: str  # without a trailing slash; ``f"{url}/{key}"`` names an object in messages

    @abstractmethod
    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        """The whole object. Raises ``ObjectMissing``; ``IntegrityError``, unread, if it is over ``limit`` bytes."""

    def digest(self, key: str, limit: int = MAX_OBJECT_BYTES) -> tuple[str, int]:
        """Digest (``sha256:`` and 64 hexadecimal digits) and size in bytes of what ``get`` returns. Raises as it."""
        data = self.get(key, limit)
        return digest_of(data), len(data)

    @abstractmethod
    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the object's end, none after it. Raises ``ObjectMissing``."""

    def part_reader(self, key: str) -> Callable[[int, int], bytes]:
        """``read`` of one object, for many small parts: it may go on reading the object as it was when this was called.

        Raises ``ObjectMissing``, now or when it is called.
        """
        return partial(self.read, key)

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """The object's metadata; ``None`` if there is no object."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> str:
        """Write a new object, atomically and durably; its etag. Raises ``AlreadyExists`` (``If-None-Match: *``).

        ``AlreadyExists`` may be caused by this very call: a retry after a lost answer finds its own object. Callers
        read it back and compare (``generator.store.put_once.put_once``).
        """

    @abstractmethod
    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Overwrite the version ``etag`` and no other; the new etag. Raises ``Changed`` (``If-Match``).

        A deleted object counts as changed. As with ``create``, ``Changed`` may be caused by this very call.
        """

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write unconditionally; the etag. Only for objects outside the commit."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the object; does nothing if there is none."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in no particular order: services differ.

        Foreign objects whose names are not valid keys are omitted, so every listed key can be read.
        """

    @abstractmethod
    def children(self, prefix: str = "") -> Iterator[str]:
        """Names of the 'directories' directly below ``prefix`` (which ends with '/' or is empty), ascending.

        Directories without an object below them are omitted.
        """

    @abstractmethod
    def check_writable(self) -> None:
        """Check that writing works, with a hidden probe object that is removed again.

        Raises ``BucketMissing``, ``AccessDenied``, ``StoreUnavailable``.
        """

    @abstractmethod
    def at(self, prefix: str) -> Store:
        """The store below ``prefix`` (a key, or a key and '/'): keys are relative to it."""


def check_key(key: str, field: str = "key") -> str:
    """``key`` itself. Raises ``SpecError`` if it is too long or a segment is not plain (hidden, special characters)."""
    if len(key) > MAX_KEY_LENGTH or not all(map(is_segment, key.split("/"))):
        expected = f"at most {MAX_KEY_LENGTH} characters, plain segments of letters, digits and ._=@+- joined by '/'"
        raise SpecError(
            field, expected, repr(key[:120]), "a segment must not begin with a dot and has at most 255 characters"
        )
    return key


def check_prefix(prefix: str) -> str:
    """``prefix`` itself. Raises ``SpecError`` unless it is empty, a key, or a key and '/'."""
    if prefix:
        check_key(prefix.removesuffix("/"), "prefix")
    return prefix


def check_directory(prefix: str) -> str:
    """``prefix`` itself. Raises ``SpecError`` unless it is empty or a key and '/'."""
    if prefix and not prefix.endswith("/"):
        raise SpecError("prefix", "an empty prefix, or one that ends with '/'", repr(prefix[:120]))
    return check_prefix(prefix)


def check_range(start: int, length: int) -> None:
    """Raises ``SpecError`` unless both are at least 0: stores would treat negative offsets differently."""
    if start < 0 or length < 0:
        raise SpecError("range", "a start and a length of at least 0", f"start {start}, length {length}")


def check_size(where: str, size: int, limit: int) -> None:
    """Raises ``IntegrityError`` if an object of ``size`` bytes exceeds ``limit``."""
    if size > limit:
        hint = "it was not read, because it is not an object of latentmill"
        raise IntegrityError(where, f"an object of at most {limit} bytes", f"{size} bytes", hint)


def join_key(prefix: str, key: str) -> str:
    """``prefix`` and ``key`` joined, and checked as one key; either may be empty."""
    joined = "/".join(part for part in (prefix, key) if part)
    return check_key(joined) if joined else joined


def is_segment(name: str) -> bool:
    """Whether ``name`` is a valid segment of a key."""
    return _SEGMENT.fullmatch(name) is not None


def is_key(key: str) -> bool:
    """Whether ``check_key`` accepts ``key``."""
    return len(key) <= MAX_KEY_LENGTH and all(map(is_segment, key.split("/")))
