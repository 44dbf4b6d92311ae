"""Parses store URLs: ``s3://bucket/prefix`` (also ``gs://`` and ``az://``), ``file:///path``, a plain path,
``memory://name/prefix``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from generator.errors import SpecError
from generator.store.base import check_key

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")  # two letters or more
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_EXPECTED_FORMS = "s3://bucket/prefix (or gs://, az://), file:///path, a path, or memory://name"

RemoteScheme = Literal["s3", "gs", "az"]
Scheme = Literal["s3", "gs", "az", "file", "memory"]
REMOTE = ("s3://", "gs://", "az://")  # the beginnings of the URLs of services


class StoreLocation(NamedTuple):
    """A parsed store URL; ``root`` is a bucket or container, an absolute path, or the name of a memory store."""

    scheme: Scheme
    root: str
    prefix: str = ""


def parse_url(url: str) -> StoreLocation:
    """Parse ``url``. Plain paths may be relative or begin with ``~``. Raises ``SpecError('url', ...)``."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return StoreLocation("file", _absolute(url, url))
    rest = url[scheme.end() :]
    if scheme[0] == "file://":
        return StoreLocation("file", _absolute(_file_path(rest, url), url))
    if scheme[0] not in (*REMOTE, "memory://"):
        raise SpecError(
            "url", _EXPECTED_FORMS, _redact(url), "write ./ before a path that has a colon in its first part"
        )
    root, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    if scheme[0] == "memory://":
        return StoreLocation("memory", check_key(root, "url"), check_key(prefix, "url") if prefix else "")
    name = _check_bucket(scheme[0], root, url)
    return StoreLocation(name, root, check_key(prefix, "url") if prefix else "")


def split_url(url: str) -> tuple[RemoteScheme, str, str]:
    """Scheme, bucket (or container) and key of the URL of a service; the key may be of any form, or empty.

    Raises ``SpecError('url', ...)`` for any other URL.
    """
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[0] not in REMOTE:
        raise SpecError("url", "s3://bucket/key (or gs://, az://)", _redact(url))
    bucket, _, key = url[scheme.end() :].partition("/")
    return _check_bucket(scheme[0], bucket, url), bucket, key


def _check_bucket(scheme: str, bucket: str, url: str) -> RemoteScheme:
    if scheme == "az://" and _CONTAINER.fullmatch(bucket) is None:
        expected = "az:// and a container of 3 to 63 lower-case letters and digits, with single '-' between them"
        raise SpecError("url", expected, _redact(url))
    if scheme != "az://" and _BUCKET.fullmatch(bucket) is None:
        raise SpecError("url", f"{scheme} and a bucket of 3 to 63 letters, digits, '.', '_' and '-'", _redact(url))
    return "s3" if scheme == "s3://" else "gs" if scheme == "gs://" else "az"


def is_remote(url: str) -> bool:
    """Whether ``url`` is one of a service, that is neither of this machine nor of this process."""
    return url.startswith(REMOTE)


def _file_path(rest: str, url: str) -> str:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise SpecError("url", "file:/// and an absolute path", _redact(url), "a file URL cannot name another host")
    return os.fsdecode(unquote_to_bytes(slash + path)) or "/"


def _absolute(path: str, url: str) -> str:
    if not path or "\0" in path:
        raise SpecError("url", _EXPECTED_FORMS, _redact(url))
    try:
        home = Path(path).expanduser()
    except RuntimeError as homeless:
        raise SpecError("url", "a home directory that exists", _redact(url)) from homeless
    # Links are not resolved: their owner may change them, and they may differ on the worker's machine.
    return "/" + os.path.abspath(home).lstrip("/")  # noqa: PTH100


def _redact(url: str) -> str:
    """``url`` for an error: without credentials, and without the query of a signed link."""
    return repr(re.sub(r"//[^/@]*@", "//***@", url.partition("?")[0])[:120])
