"""S3 and its relatives through boto3: the only file that imports it.

Writes are conditional (``If-None-Match: *``, ``If-Match``) and go through ``put_object``, because ``upload_file``
cannot send conditions; so an object has at most 5 GB. botocore repeats a request whose answer was lost, and a
conditional write that had arrived then meets itself: 412 may speak of this very call, and is left to the caller
(``generator.store.once``). A body that was cut is read again, which botocore does not do by itself.

A store holds no client: there is one per process and settings, made at the first use, so stores may be pickled
(with their credentials) and processes may be forked.
"""

from __future__ import annotations

import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, final

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
)
from pydantic import SecretStr
from urllib3.exceptions import HTTPError

from generator.errors import (
    AccessDenied,
    AlreadyExists,
    BucketMissing,
    Changed,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from generator.store.base import (
    MAX_OBJECT,
    ObjectInfo,
    Store,
    check_directory,
    check_key,
    check_prefix,
    check_range,
    check_size,
    is_key,
    is_segment,
    joined,
)
from generator.store.settings import S3Settings

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectTypeDef, PutObjectOutputTypeDef

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)
_BAD_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}  # HTTP 400
_LONGEST_PAUSE = 2.0  # seconds


@final
class S3Store(Store):
    """The objects of ``bucket`` whose keys lie below ``prefix``."""

    def __init__(self, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket, self._prefix, self._settings = bucket, prefix, settings
        self._own = f"{prefix}/" if prefix else ""
        self.url = f"s3://{bucket}" + (f"/{prefix}" if prefix else "")

    def __repr__(self) -> str:
        return f"S3Store({self.url!r}, endpoint_url={self._settings.endpoint_url!r})"

    def get(self, key: str, limit: int = MAX_OBJECT) -> bytes:
        full = self._full(key)

        def ask() -> GetObjectOutputTypeDef:
            answer = self._client.get_object(Bucket=self._bucket, Key=full)
            if answer["ContentLength"] > limit:
                answer["Body"].close()
            check_size(f"{self.url}/{key}", answer["ContentLength"], limit)
            return answer

        with self._translated(key):
            return self._whole(ask)

    def read(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        full = self._full(key)
        if length == 0:  # HTTP has no empty range
            if self.head(key) is None:
                raise ObjectMissing(f"{self.url}/{key}", "an object", "nothing")
            return b""
        span = f"bytes={start}-{start + length - 1}"
        with self._translated(key):
            try:
                return self._whole(lambda: self._client.get_object(Bucket=self._bucket, Key=full, Range=span))
            except ClientError as error:
                if _status(error) == 416:  # beyond the end
                    return b""
                raise

    def head(self, key: str) -> ObjectInfo | None:
        full = self._full(key)
        with self._translated(key):
            try:
                facts = self._client.head_object(Bucket=self._bucket, Key=full)
            except ClientError as error:
                if _status(error) != 404:
                    raise
                _require_bucket(self._bucket, self._settings)  # a HEAD without a body does not say what is missing
                return None
        return ObjectInfo(key, facts["ContentLength"], facts["ETag"], facts["LastModified"].astimezone(UTC))

    def create(self, key: str, data: bytes) -> str:
        full = self._full(key)
        there = AlreadyExists(f"{self.url}/{key}", "no object yet", "an object")
        with self._translated(key, there):
            return self._settled(
                lambda: self._client.put_object(Bucket=self._bucket, Key=full, Body=data, IfNoneMatch="*")
            )

    def replace(self, key: str, data: bytes, etag: str) -> str:
        full = self._full(key)
        changed = Changed(f"{self.url}/{key}", f"version {etag}", "another version, or none")
        with self._translated(key, changed):
            return self._settled(
                lambda: self._client.put_object(Bucket=self._bucket, Key=full, Body=data, IfMatch=etag)
            )

    def put(self, key: str, data: bytes) -> str:
        full = self._full(key)
        with self._translated(key):
            return self._settled(lambda: self._client.put_object(Bucket=self._bucket, Key=full, Body=data))

    def delete(self, key: str) -> None:
        full = self._full(key)
        with self._translated(key):
            self._client.delete_object(Bucket=self._bucket, Key=full)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self._listed(check_prefix(prefix))

    def children(self, prefix: str = "") -> Iterator[str]:
        above = self._own + check_directory(prefix)
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=above, Delimiter="/"
            )
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
        names = (full.removeprefix(above).removesuffix("/") for full in found)
        return iter(sorted(filter(is_segment, names)))

    def check_writable(self) -> None:
        """Write, overwrite and delete a hidden object, and see that the store refuses what a condition forbids.

        Law 4 rests on these conditions; a service that ignores them is refused with ``StoreUnavailable``.
        """
        full = f"{self._own}.latentmill-probe-{secrets.token_hex(8)}"
        with self._translated(""):
            client, bucket = self._client, self._bucket
            client.put_object(Bucket=bucket, Key=full, Body=b"probe", IfNoneMatch="*")
            try:
                self._expect_refusal(
                    "If-None-Match",
                    lambda: client.put_object(Bucket=bucket, Key=full, Body=b"again", IfNoneMatch="*"),
                )
                self._expect_refusal(
                    "If-Match",
                    lambda: client.put_object(Bucket=bucket, Key=full, Body=b"again", IfMatch=f'"{"0" * 32}"'),
                )
            finally:
                client.delete_object(Bucket=bucket, Key=full)

    def at(self, prefix: str) -> S3Store:
        below = joined(self._prefix, check_key(prefix.removesuffix("/"), "prefix"))
        return S3Store(self._bucket, below, self._settings)

    @property
    def _client(self) -> S3Client:
        return _client(self._settings)

    def _full(self, key: str) -> str:
        return joined(self._prefix, check_key(key))

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._own + prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    if is_key(item["Key"]):
                        yield self._info(item)

    def _info(self, item: ObjectTypeDef) -> ObjectInfo:
        key = item["Key"].removeprefix(self._own)
        return ObjectInfo(key, item["Size"], item["ETag"], item["LastModified"].astimezone(UTC))

    def _whole(self, ask: Callable[[], GetObjectOutputTypeDef]) -> bytes:
        """The body of an answer; botocore compares its length and checksum, and what was cut is asked for again."""
        attempt = 1
        while True:
            answer = ask()
            try:
                return answer["Body"].read()
            except (BotoCoreError, HTTPError) as cut:
                if attempt == self._settings.max_attempts:
                    raise StoreUnavailable(self.url, "a whole body", f"{cut} in attempt {attempt}") from cut
            _pause(attempt)
            attempt += 1

    def _settled(self, send: Callable[[], PutObjectOutputTypeDef]) -> str:
        """The etag of a write, sent again while another conditional write is in progress (HTTP 409)."""
        attempt = 1
        while True:
            try:
                return send()["ETag"]
            except ClientError as error:
                if _status(error) != 409 or attempt == self._settings.max_attempts:
                    raise
            _pause(attempt)
            attempt += 1

    def _expect_refusal(self, condition: str, send: Callable[[], PutObjectOutputTypeDef]) -> None:
        try:
            send()
        except ClientError as error:
            if _status(error) == 412:
                return
            raise
        hint = "latentmill needs conditional writes; use a service, or a version of it, that has them"
        raise StoreUnavailable(self.url, f"a service that honours {condition}", "a write in spite of it", hint)

    @contextmanager
    def _translated(self, key: str, refused: StoreError | None = None) -> Iterator[None]:
        where = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except ClientError as error:
            raise self._translate(error, where, refused) from error
        except _NO_CREDENTIALS as error:
            hint = "give access_key and secret_key, or let boto3's own chain find some"
            raise AccessDenied(where, "credentials", str(error), hint) from error
        except BotoCoreError as error:
            attempts = f"after {self._settings.max_attempts} attempt(s): {error}"
            raise StoreUnavailable(where, "an answer", attempts, "check the endpoint and the network") from error

    def _translate(self, error: ClientError, where: str, refused: StoreError | None) -> StoreError:
        status, code = _status(error), error.response["Error"].get("Code", "")
        got = f"HTTP {status} {code}: {error.response['Error'].get('Message', '')}"[:300]
        if code == "NoSuchBucket":
            return BucketMissing(f"s3://{self._bucket}", "a bucket", "none", "make the bucket, or correct its name")
        if refused is not None and status in (404, 412):
            return refused
        if status == 404:
            return ObjectMissing(where, "an object", "nothing")
        if status in (401, 403) or code in _BAD_CREDENTIALS:
            hint = "check the credentials, the region, and the permissions to get, put, delete and list"
            return AccessDenied(where, "permission", got, hint)
        return StoreUnavailable(where, "an answer", f"{got} after {self._settings.max_attempts} attempt(s)")


@lru_cache(maxsize=16)
def _client(settings: S3Settings) -> S3Client:
    session = Session(
        aws_access_key_id=_plain(settings.access_key),
        aws_secret_access_key=_plain(settings.secret_key),
        aws_session_token=_plain(settings.session_token),
        region_name=settings.region,
    )
    config = Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.max_pool_connections,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        s3={"addressing_style": settings.addressing_style},
        request_checksum_calculation=settings.checksums,
        response_checksum_validation=settings.checksums,
    )
    return session.client("s3", endpoint_url=settings.endpoint_url, config=config)


os.register_at_fork(after_in_child=_client.cache_clear)  # parent and child would talk over the same sockets


@lru_cache(maxsize=64)
def _require_bucket(bucket: str, settings: S3Settings) -> None:
    try:
        _client(settings).head_bucket(Bucket=bucket)
    except ClientError as error:
        if _status(error) == 404:
            hint = "make the bucket, or correct its name"
            raise BucketMissing(f"s3://{bucket}", "a bucket", "none", hint) from error
        raise


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


def _status(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def _pause(attempt: int) -> None:
    time.sleep(min(0.1 * 2**attempt, _LONGEST_PAUSE) * random.uniform(0.5, 1.0))
