"""The S3 store: S3 and compatible services through boto3.

Writes are conditional (``If-None-Match: *``, ``If-Match``) and go through ``put_object``, because ``upload_file``
cannot send conditions, so an object has at most 5 GB. botocore retries a request whose answer was lost; if it was a
conditional write that had succeeded, the retry finds its own object. A 412 may therefore be caused by this very call,
and is left to the caller (``generator.store.put_once``). Truncated bodies are read again, which botocore does not do.

A store does not hold its client (``generator.store.s3_client`` does), so stores may be pickled, with their credentials,
and processes may be forked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any, final

from botocore.exceptions import ClientError

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
from generator.store.media_types import content_type
from generator.store.partial_writes import PROBE_PREFIX, PartialWrite
from generator.store.s3_client import (
    abort_upload,
    back_off,
    client_of,
    head_object,
    holds_objects,
    make_bucket,
    read_body,
    require_bucket,
    translate_errors,
    unfinished_uploads,
)
from generator.store.s3_dialect import if_match, keeps_versions, normal_etag, rejects_bad_checksum, write_options
from generator.store.s3_errors import CONDITIONS_HINT, status_of
from generator.store.s3_settings import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectTypeDef, PutObjectOutputTypeDef

_ASKED_AT_ONCE = 8  # directories


@final
class S3Store(Store):
    """The objects of ``bucket`` whose keys lie below ``prefix``."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket, self._prefix, self._settings = bucket, prefix, settings
        self._key_prefix = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}" + (f"/{prefix}" if prefix else "")

    def __repr__(self) -> str:
        return f"S3Store({self.url!r}, endpoint_url={self._settings.endpoint_url!r})"

    def get(self, key: str, limit: int = MAX_OBJECT_BYTES) -> bytes:
        full = self._full_key(key)

        def ask() -> GetObjectOutputTypeDef:
            answer = self._client.get_object(Bucket=self._bucket, Key=full)
            if answer["ContentLength"] > limit:
                answer["Body"].close()
            check_size(f"{self.url}/{key}", answer["ContentLength"], limit)
            return answer

        with self._translate_errors(key):
            return read_body(ask, self.url, self._settings)

    def read(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        full = self._full_key(key)
        if length == 0:  # HTTP has no empty range
            if self.head(key) is None:
                raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
            return b""
        span = f"bytes={start}-{start + length - 1}"
        with self._translate_errors(key):
            try:
                return read_body(
                    lambda: self._client.get_object(Bucket=self._bucket, Key=full, Range=span), self.url, self._settings
                )
            except ClientError as error:
                if status_of(error) == 416:  # after the end
                    return b""
                raise

    def head(self, key: str) -> ObjectInfo | None:
        full = self._full_key(key)
        with self._translate_errors(key):
            try:
                facts = head_object(self._bucket, full, self._settings)
            except ClientError as error:
                if status_of(error) != 404:
                    raise
                require_bucket(
                    self._bucket, self._settings
                )  # a HEAD response does not say whether key or bucket is missing
                return None
        return ObjectInfo(
            key, facts["ContentLength"], normal_etag(facts["ETag"]), facts["LastModified"].astimezone(UTC)
        )

    def create(self, key: str, data: bytes) -> str:
        exists = AlreadyExists(f"{self.url}/{key}", "no object yet", "an object")
        return self._write(key, data, exists, IfNoneMatch="*")

    def replace(self, key: str, data: bytes, etag: str) -> str:
        changed = Changed(f"{self.url}/{key}", f"version {etag}", "another version, or none")
        return self._write(key, data, changed, IfMatch=if_match(etag, self._settings))

    def put(self, key: str, data: bytes) -> str:
        return self._write(key, data)

    def delete(self, key: str) -> None:
        full = self._full_key(key)
        with self._translate_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=full)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._list_below(check_prefix(prefix))

    def children(self, prefix: str = "") -> Iterator[str]:
        above = self._key_prefix + check_directory(prefix)
        with self._translate_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=above, Delimiter="/"
            )
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
        names = sorted(filter(is_segment, (full.removeprefix(above).removesuffix("/") for full in found)))
        return self._with_objects(prefix, names)

    def check_writable(self) -> None:
        """Write and delete a hidden object, and check that the service enforces the conditions of writes.

        Law 4 depends on these conditions; a service that ignores them, or that accepts no replacement, is refused with
        ``StoreUnavailable``.
        """
        full = self._probe_key()
        with self._translate_errors(""):
            client, bucket = self._client, self._bucket

            def send(data: bytes, **conditions: Any) -> str:
                return client.put_object(
                    Bucket=bucket, Key=full, Body=data, **conditions, **write_options(data, self._settings)
                )["ETag"]

            # Unconditional: a retried conditional put would fail on its own object.
            etag = send(b"probe")
            try:
                self._expect_refusal("If-None-Match", lambda: send(b"again", IfNoneMatch="*"))
                wrong = if_match("0" * 32, self._settings)
                self._expect_refusal("If-Match", lambda: send(b"again", IfMatch=wrong))
                right = if_match(normal_etag(etag), self._settings)
                self._expect_acceptance(full, lambda: send(b"replaced", IfMatch=right))
            finally:
                client.delete_object(Bucket=bucket, Key=full)

    def make_bucket(self) -> bool:
        """Create the bucket of this store; ``False`` if it exists already. Raises ``StoreError``."""
        return make_bucket(self._bucket, self._settings)

    def rejects_bad_checksum(self) -> bool:
        """Whether the service refuses bytes with a wrong checksum. Raises ``StoreError``."""
        return rejects_bad_checksum(self._bucket, self._probe_key(), self._settings)

    def keeps_versions(self) -> bool:
        """Whether deleted objects stay as versions. Raises ``StoreError``."""
        return keeps_versions(self._bucket, self._probe_key(), self._settings)

    def partial_writes(self) -> Iterator[PartialWrite]:
        """Unfinished uploads below this store's prefix, and probes directly below it. Raises ``StoreError``."""
        bucket, settings = self._bucket, self._settings
        for upload in unfinished_uploads(bucket, self._key_prefix, settings):
            where = f"s3://{bucket}/{upload.key} (upload {upload.upload_id})"
            yield PartialWrite("upload", where, 0, upload.started, partial(abort_upload, bucket, upload, settings))
        for info in self._list_below(PROBE_PREFIX, include_hidden=True):
            remove = partial(self._client.delete_object, Bucket=bucket, Key=f"{self._key_prefix}{info.key}")
            yield PartialWrite("temporary", f"{self.url}/{info.key}", info.size, info.modified, remove)

    def at(self, prefix: str) -> S3Store:
        below = join_key(self._prefix, check_key(prefix.removesuffix("/"), "prefix"))
        return S3Store(self._bucket, below, self._settings)

    @property
    def _client(self) -> S3Client:
        return client_of(self._settings)

    def _probe_key(self) -> str:
        return f"{self._key_prefix}{PROBE_PREFIX}{secrets.token_hex(8)}"

    def _full_key(self, key: str) -> str:
        return join_key(self._prefix, check_key(key))

    def _list_below(self, prefix: str, *, include_hidden: bool = False) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with ``prefix``; by default only those whose keys are valid (``is_key``)."""
        with self._translate_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._key_prefix + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    if include_hidden or is_key(item["Key"]):
                        yield self._object_info(item)

    def _with_objects(self, prefix: str, names: Sequence[str]) -> Iterator[str]:
        """Those of ``names`` below ``prefix`` that hold objects, asked some at a time as they are taken."""

        def holds(name: str) -> bool:
            with self._translate_errors(prefix):
                return holds_objects(self._bucket, f"{self._key_prefix}{prefix}{name}/", self._settings)

        with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
            for begin in range(0, len(names), _ASKED_AT_ONCE):
                some = names[begin : begin + _ASKED_AT_ONCE]
                yield from (name for name, found in zip(some, threads.map(holds, some), strict=True) if found)

    def _object_info(self, item: ObjectTypeDef) -> ObjectInfo:
        key = item["Key"].removeprefix(self._key_prefix)
        return ObjectInfo(key, item["Size"], normal_etag(item["ETag"]), item["LastModified"].astimezone(UTC))

    def _write(self, key: str, data: bytes, refused: StoreError | None = None, **conditions: Any) -> str:
        """Write an object and return its etag; ``refused`` is raised if the service says that a condition failed."""
        full, kind, options = self._full_key(key), content_type(key), write_options(data, self._settings)
        with self._translate_errors(key, refused):
            return self._send_write(
                lambda: self._client.put_object(
                    Bucket=self._bucket, Key=full, Body=data, ContentType=kind, **conditions, **options
                )
            )

    def _send_write(self, send: Callable[[], PutObjectOutputTypeDef]) -> str:
        """Send a write and return its etag; retried while another conditional write is in progress (HTTP 409)."""
        attempt = 1
        while True:
            try:
                return normal_etag(send()["ETag"])
            except ClientError as error:
                if status_of(error) != 409 or attempt == self._settings.max_attempts:
                    raise
            back_off(attempt)
            attempt += 1

    def _expect_refusal(self, condition: str, send: Callable[[], str]) -> None:
        try:
            send()
        except ClientError as error:
            if status_of(error) == 412:
                return
            if status_of(error) != 501:
                raise
            raise StoreUnavailable(
                self.url, f"a service that honours {condition}", f"HTTP 501: {error}", CONDITIONS_HINT
            ) from error
        raise StoreUnavailable(
            self.url, f"a service that honours {condition}", "a write that violated the condition", CONDITIONS_HINT
        )

    def _expect_acceptance(self, full: str, send: Callable[[], str]) -> None:
        try:
            send()
        except ClientError as error:
            if status_of(error) != 412:
                raise
            if self._client.get_object(Bucket=self._bucket, Key=full)["Body"].read() == b"replaced":
                return  # the answer of the first attempt was lost
            other = "bare" if self._settings.if_match == "quoted" else "quoted"
            hint = f"set if_match (LATENTMILL_S3_IF_MATCH) to {other}; if that does not help, use another service"
            expected = "a service that replaces the current version"
            raise StoreUnavailable(
                self.url, expected, f"HTTP 412 for its etag, sent {self._settings.if_match}", hint
            ) from error

    def _translate_errors(self, key: str, refused: StoreError | None = None) -> AbstractContextManager[None]:
        where = f"{self.url}/{key}" if key else self.url
        return translate_errors(self._bucket, where, self._settings, refused)
