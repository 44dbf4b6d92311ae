"""The S3 client of a process, the translation of its errors, and operator requests (buckets, unfinished uploads).

Only this file and ``generator.store.s3`` import boto3. There is one client per process and settings, made at the first
use; a forked child makes its own.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

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

from generator.errors import AccessDenied, BucketMissing, ObjectMissing, StoreError, StoreUnavailable
from generator.store.s3_settings import S3Settings
from generator.store.s3_truncation import retry_truncated_answers

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, SSOError)
_BAD_CREDENTIALS = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed"}  # HTTP 400
_BUCKET_EXISTS_CODES = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_MAX_PAUSE_SECONDS = 2.0
_WRONG_CRC32 = "AAAAAA=="  # the CRC of empty input


@dataclass(frozen=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted: not listed as an object, but billed."""

    key: str  # in the bucket
    upload_id: str
    started: datetime  # UTC


@lru_cache(maxsize=16)
def client_of(settings: S3Settings) -> S3Client:
    """This process's client."""
    session = Session(
        aws_access_key_id=_reveal(settings.access_key),
        aws_secret_access_key=_reveal(settings.secret_key),
        aws_session_token=_reveal(settings.session_token),
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
    client = session.client("s3", endpoint_url=settings.endpoint_url, config=config)
    return retry_truncated_answers(client, settings.max_attempts)


os.register_at_fork(after_in_child=client_of.cache_clear)  # parent and child would share sockets


@lru_cache(maxsize=64)
def require_bucket(bucket: str, settings: S3Settings) -> None:
    """Raises ``BucketMissing``. A bucket that was found is not checked again."""
    try:
        client_of(settings).head_bucket(Bucket=bucket)
    except ClientError as error:
        if status_of(error) == 404:
            raise _bucket_missing(bucket) from error
        raise


def holds_objects(bucket: str, prefix: str, settings: S3Settings) -> bool:
    """Whether a key begins with ``prefix``. Some services list directories whose objects are gone."""
    answer = client_of(settings).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    return bool(answer.get("Contents"))


@contextmanager
def translate_errors(
    bucket: str, where: str, settings: S3Settings, refused: StoreError | None = None
) -> Iterator[None]:
    """Translates boto3 errors of the block to a ``StoreError`` about ``where``; ``refused`` if a condition failed."""
    try:
        yield
    except ClientError as error:
        raise _translate(error, bucket, where, settings, refused) from error
    except _NO_CREDENTIALS as error:
        hint = "set access_key and secret_key, or configure credentials for boto3's own chain"
        raise AccessDenied(where, "credentials", str(error), hint) from error
    except BotoCoreError as error:
        attempts = f"after {settings.max_attempts} attempt(s): {error}"
        raise StoreUnavailable(where, "an answer", attempts, "check the endpoint and the network") from error


def status_of(error: ClientError) -> int:
    """The HTTP status of an error response."""
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def read_body(ask: Callable[[], GetObjectOutputTypeDef], where: str, settings: S3Settings) -> bytes:
    """The body of a response. botocore checks its length and checksum; a truncated body is requested again."""
    attempt = 1
    while True:
        answer = ask()
        try:
            return answer["Body"].read()
        except (BotoCoreError, HTTPError) as truncated:
            if attempt == settings.max_attempts:
                raise StoreUnavailable(where, "a complete body", f"{truncated} in attempt {attempt}") from truncated
        back_off(attempt)
        attempt += 1


def back_off(attempt: int) -> None:
    """Wait before the next attempt, longer each time."""
    time.sleep(min(0.1 * 2**attempt, _MAX_PAUSE_SECONDS) * random.uniform(0.5, 1.0))


def make_bucket(bucket: str, settings: S3Settings) -> bool:
    """Create the bucket; ``False`` if a bucket of this name exists already. Raises ``StoreError``."""
    client = client_of(settings)
    with translate_errors(bucket, f"s3://{bucket}", settings):
        try:
            if settings.region in (None, "us-east-1"):  # the only region that must not be stated
                client.create_bucket(Bucket=bucket)
            else:
                place = {"LocationConstraint": settings.region}
                client.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)  # type: ignore[arg-type]
        except ClientError as refused:
            if refused.response["Error"].get("Code") in _BUCKET_EXISTS_CODES:
                return False
            raise
    return True


def rejects_bad_checksum(bucket: str, key: str, settings: S3Settings) -> bool:
    """Whether the service refuses bytes with a wrong checksum; leaves no object at ``key``. Raises ``StoreError``."""
    client = client_of(settings)
    with translate_errors(bucket, f"s3://{bucket}/{key}", settings):
        try:
            client.put_object(Bucket=bucket, Key=key, Body=b"damaged on the way", ChecksumCRC32=_WRONG_CRC32)
        except ClientError as refused:
            if status_of(refused) == 400:
                return True
            raise
        client.delete_object(Bucket=bucket, Key=key)
    return False


def unfinished_uploads(bucket: str, prefix: str, settings: S3Settings) -> Iterator[UnfinishedUpload]:
    """Unfinished multipart uploads to keys that begin with ``prefix``, read page by page. Raises ``StoreError``."""
    with translate_errors(bucket, f"s3://{bucket}/{prefix}", settings):
        pages = client_of(settings).get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for item in page.get("Uploads", ()):
                yield UnfinishedUpload(item["Key"], item["UploadId"], item["Initiated"].astimezone(UTC))


def abort_upload(bucket: str, upload: UnfinishedUpload, settings: S3Settings) -> None:
    """Delete the uploaded parts; does nothing if the upload has ended. Raises ``StoreError``."""
    gone = ObjectMissing(f"s3://{bucket}/{upload.key}", "an unfinished upload", "none")
    try:
        with translate_errors(bucket, f"s3://{bucket}/{upload.key}", settings, gone):
            client_of(settings).abort_multipart_upload(Bucket=bucket, Key=upload.key, UploadId=upload.upload_id)
    except ObjectMissing:
        return


def _translate(
    error: ClientError, bucket: str, where: str, settings: S3Settings, refused: StoreError | None
) -> StoreError:
    status, code = status_of(error), error.response["Error"].get("Code", "")
    got = f"HTTP {status} {code}: {error.response['Error'].get('Message', '')}"[:300]
    if code == "NoSuchBucket":
        return _bucket_missing(bucket)
    if refused is not None and status in (404, 412):
        return _missing_bucket(bucket, settings) or refused
    if status == 404:
        return ObjectMissing(where, "an object", "nothing")
    if status in (401, 403) or code in _BAD_CREDENTIALS:
        hint = "check the credentials, the region, and the permissions to get, put, delete and list"
        return AccessDenied(where, "permission", got, hint)
    return StoreUnavailable(where, "an answer", f"{got} after {settings.max_attempts} attempt(s)")


def _missing_bucket(bucket: str, settings: S3Settings) -> BucketMissing | None:
    """The error, if there is no such bucket: some services answer a conditional write to it as if it were refused."""
    try:
        require_bucket(bucket, settings)
    except BucketMissing as missing:
        return missing
    except (BotoCoreError, ClientError):  # not known; what was refused stays refused
        return None
    return None


def _bucket_missing(bucket: str) -> BucketMissing:
    hint = "make the bucket (`latentmill doctor --make-bucket` does), or correct its name"
    return BucketMissing(f"s3://{bucket}", "a bucket", "none", hint)


def _reveal(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
