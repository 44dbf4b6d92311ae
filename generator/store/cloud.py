"""The stores of Google Cloud Storage and Azure Blob Storage, through obstore.

An etag is that of the service. Google's conditions are generations instead: a replacement asks for the generation of
the version with the etag, and replaces that one alone. Objects are written in one request, so writers leave nothing
unfinished. A store does not hold its client (``generator.store.cloud_client`` does), so stores may be pickled.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC
from functools import partial
from typing import Any, final

from generator.errors import AlreadyExists, Changed, ObjectMissing, StoreError, StoreUnavailable
from generator.store.base import (
    MAX_OBJECT_BYTES,
    ObjectInfo,
    Store,
    check_directory,
    check_key,
    check_prefix,
    check_range,
    check_size,
    is_key,
    is_segment,
    join_key,
)
from generator.store.cloud_client import (
    CloudScheme,
    bucket_missing,
    client_of,
    is_after_end,
    require_container,
    translate_errors,
)
from generator.store.media_types import content_type
from generator.store.partial_writes import PROBE_PREFIX, PartialWrite

_ASKED_AT_ONCE = 8  # directories
_CONDITIONS_HINT = "latentmill needs conditional writes; use a service, or a version of it, that supports them"


@final
class CloudStore(Store):
    """The objects of ``container`` (a bucket of Google's) whose keys lie below ``prefix``."""

    def __init__(self, scheme: CloudScheme, container: str, prefix: str) -> None:
        self._scheme, self._container, self._prefix = scheme, container, prefix
        self._key_prefix = f"{prefix}/" if prefix else ""
        self.url = f"{scheme}://{container}" + (f"/{prefix}" if prefix else "")

    def __repr__(self) -> str:
        return f"CloudStore({self.url!r})"

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        full = self._full_key(key)
        with self._translate_errors(key):
            answer = self._client.get(full)
            check_size(f"{self.url}/{key}", answer.meta["size"], limit)
            return bytes(answer.bytes())

    def read(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        full = self._full_key(key)
        if length == 0:  # HTTP has no empty range
            if self.head(key) is None:
                raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
            return b""
        with self._translate_errors(key):
            try:
                return bytes(self._client.get_range(full, start=start, length=length))
            except Exception as error:
                if is_after_end(error):
                    return b""
                raise

    def head(self, key: str) -> ObjectInfo | None:
        facts = self._facts(key)
        return None if facts is None else self._object_info(facts)

    def create(self, key: str, data: bytes) -> str:
        exists = AlreadyExists(f"{self.url}/{key}", "no object yet", "an object")
        return self._write(self._full_key(key), data, exists, "create")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        full = self._full_key(key)
        changed = Changed(f"{self.url}/{key}", f"version {etag}", "another version, or none")
        if self._scheme == "az":
            return self._write(full, data, changed, {"e_tag": f'"{etag}"'})
        found = self._facts(key)
        if found is None or _plain_etag(found) != etag:
            raise changed
        return self._write(full, data, changed, {"e_tag": found["e_tag"], "version": found["version"]})

    def put(self, key: str, data: bytes) -> str:
        return self._write(self._full_key(key), data, None, "overwrite")

    def delete(self, key: str) -> None:
        full = self._full_key(key)
        with self._translate_errors(key), suppress(FileNotFoundError):
            self._client.delete(full)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._list_below(check_prefix(prefix))

    def children(self, prefix: str = "") -> Iterator[str]:
        above = self._key_prefix + check_directory(prefix)
        with self._translate_errors(prefix):
            found = self._client.list_with_delimiter(above)["common_prefixes"]
        names = sorted(filter(is_segment, (full.rstrip("/").rpartition("/")[2] for full in found)))
        return self._with_objects(prefix, names)

    def check_writable(self) -> None:
        """Write and delete a hidden object, and check that the service enforces the conditions of writes (law 4).

        Raises ``StoreUnavailable`` for a service that ignores them, or that accepts no replacement.
        """
        full = f"{self._key_prefix}{PROBE_PREFIX}{secrets.token_hex(8)}"
        refused = StoreUnavailable(self.url, "a refusal", "one", _CONDITIONS_HINT)
        self._write(full, b"probe", None, "overwrite")
        try:
            with self._translate_errors(""):
                found = self._client.head(full)
            wrong = {"e_tag": '"0x0"'} if self._scheme == "az" else {"e_tag": '"0"', "version": "1"}
            for name, condition in (("creations", "create"), ("replacements", wrong)):
                try:
                    self._write(full, b"again", refused, condition)
                except StoreUnavailable as error:
                    if error is refused:
                        continue
                    raise
                expected = f"a service that honours the conditions of {name}"
                raise StoreUnavailable(self.url, expected, "a write that violated one", _CONDITIONS_HINT)
            right = {name: found[name] for name in ("e_tag", "version") if found[name] is not None}
            self._write(full, b"replaced", refused, right)
        finally:
            with self._translate_errors(""), suppress(FileNotFoundError):
                self._client.delete(full)

    def partial_writes(self) -> Iterator[PartialWrite]:
        """Probes directly below this store's prefix. Raises ``StoreError``."""
        for info in self._list_below(PROBE_PREFIX, include_hidden=True):
            remove = partial(self._client.delete, f"{self._key_prefix}{info.key}")
            yield PartialWrite("temporary", f"{self.url}/{info.key}", info.size, info.modified, remove)

    def at(self, prefix: str) -> CloudStore:
        below = join_key(self._prefix, check_key(prefix.removesuffix("/"), "prefix"))
        return CloudStore(self._scheme, self._container, below)

    @property
    def _client(self) -> Any:
        return client_of(self._scheme, self._container)

    def _full_key(self, key: str) -> str:
        return join_key(self._prefix, check_key(key))

    def _facts(self, key: str) -> Any:
        """What the service tells of an object; ``None`` if there is none."""
        full = self._full_key(key)
        with self._translate_errors(key):
            try:
                return self._client.head(full)
            except FileNotFoundError:  # a HEAD response does not say whether the container is missing
                require_container(self._scheme, self._container)
                return None

    def _list_below(self, prefix: str, *, include_hidden: bool = False) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with ``prefix``, whose last part is compared here: obstore lists directories."""
        start = self._key_prefix + prefix
        directory = start.rpartition("/")[0]
        with self._translate_errors(prefix):
            for chunk in self._client.list(directory or None):
                for facts in chunk:
                    info = self._object_info(facts)
                    if facts["path"].startswith(start) and (include_hidden or is_key(info.key)):
                        yield info

    def _with_objects(self, prefix: str, names: Sequence[str]) -> Iterator[str]:
        """Those of ``names`` below ``prefix`` that hold objects: Azure may have directories without any."""

        def holds(name: str) -> bool:
            return next(self._list_below(f"{prefix}{name}/"), None) is not None

        with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
            yield from (name for name, found in zip(names, threads.map(holds, names), strict=True) if found)

    def _object_info(self, facts: Any) -> ObjectInfo:
        key = facts["path"].removeprefix(self._key_prefix)
        modified = facts["last_modified"].astimezone(UTC).replace(microsecond=0)  # all that HTTP headers tell
        return ObjectInfo(key, facts["size"], _plain_etag(facts), modified)

    def _write(self, full: str, data: bytes, refused: StoreError | None, mode: Any) -> str:
        """Write an object in one request and return its etag; ``refused`` is raised if the condition did not hold."""
        key = full.removeprefix(self._key_prefix)
        attributes = {"Content-Type": content_type(key)}
        with self._translate_errors(key, refused):
            try:
                written = self._client.put(full, data, attributes=attributes, mode=mode, use_multipart=False)
            except FileNotFoundError as missing:  # nothing can be missing but the container
                raise bucket_missing(self._scheme, self._container) from missing
        return _plain_etag(written)

    def _translate_errors(self, key: str, refused: StoreError | None = None) -> AbstractContextManager[None]:
        where = f"{self.url}/{key}" if key else self.url
        return translate_errors(self._scheme, self._container, where, refused)


def _plain_etag(facts: Any) -> str:
    """Lists give etags without quotes."""
    return str(facts["e_tag"]).strip('"')
