"""Object stores: one contract, and implementations in memory, in a directory, and on services: S3, Google, Azure."""

from __future__ import annotations

import os
from pathlib import Path

from generator.store.base import ObjectInfo, Store
from generator.store.local import LocalStore
from generator.store.memory import MemoryStore
from generator.store.s3_settings import S3Settings
from generator.store.url import REMOTE, is_remote, parse_url

__all__ = ["open_store", "absolute_url", "is_below", "is_remote", "Store", "ObjectInfo", "S3Settings"]


def open_store(url: str, s3: S3Settings | None = None) -> Store:
    """The store at ``url``: ``s3://bucket[/prefix]``, ``gs://bucket[/prefix]``, ``az://container[/prefix]``,
    ``file:///abs/path``, a plain path, ``memory://name[/prefix]``.

    Nothing is read or written yet, so a missing bucket is an error of the first use (or of ``check_writable``).
    ``s3``: how the S3 service is reached; the others are reached as their variables say (GOOGLE_..., AZURE_...).
    Raises ``SpecError('url', ...)`` for any other URL, ``SettingsError`` where the package for a service is missing.
    """
    place = parse_url(url)
    if place.scheme == "file":
        return LocalStore(Path(place.root))
    if place.scheme == "memory":
        return MemoryStore(place.root, place.prefix)
    if place.scheme in ("gs", "az"):
        from generator.store.cloud import CloudStore

        return CloudStore(place.scheme, place.root, place.prefix)
    from generator.store.s3 import S3Store  # boto3 takes half a second to import

    return S3Store(place.root, place.prefix, s3 or S3Settings())


def absolute_url(url: str) -> str:
    """``url`` in canonical form, independent of the working directory. Raises ``SpecError('url', ...)``."""
    place = parse_url(url)
    if place.scheme == "file":
        return LocalStore(Path(place.root)).url
    return f"{place.scheme}://{place.root}" + (f"/{place.prefix}" if place.prefix else "")


def is_below(url: str, place: str) -> bool:
    """Whether ``url`` is ``place`` or lies below it, symbolic links resolved; the places ``s3://``, ``gs://`` and ``az://``
    are every bucket.

    Raises ``SpecError('url', ...)`` if ``url`` is not a store URL.
    """
    inner = parse_url(url)
    if place in REMOTE:
        return f"{inner.scheme}://" == place
    outer = parse_url(place)
    if inner.scheme != outer.scheme:
        return False
    if inner.scheme == "file":
        return Path(os.path.realpath(inner.root)).is_relative_to(os.path.realpath(outer.root))
    parts, wanted = (
        [each for each in inner.prefix.split("/") if each],
        [each for each in outer.prefix.split("/") if each],
    )
    return inner.root == outer.root and parts[: len(wanted)] == wanted
