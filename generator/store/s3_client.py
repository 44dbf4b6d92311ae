"""The S3 client of a process, the translation of its errors, and operator requests (buckets, unfinished uploads).

Only the files of S3 in this package import boto3. There is one client per process and settings, made at the first
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
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Literal

import botocore.session
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from urllib3.exceptions import HTTPError

from generator.errors import BucketMissing, ObjectMissing, StoreError, StoreUnavailable
from generator.store.s3_credentials import Renewal
from generator.store.s3_errors import bucket_missing, status_of, translate_boto_error, translate_client_error
from generator.store.s3_settings import S3Settings
from generator.store.s3_truncation import retry_truncated_answers

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

_BUCKET_EXISTS_CODES = {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}
_MAX_PAUSE_SECONDS = 2.0
_WITHOUT_REASON = (400, 401, 403)  # answers to HEAD that do not say what was refused


@dataclass(frozen=True)
class UnfinishedUpload:
    """A multipart upload that was neither completed nor aborted: not listed as an object, but billed."""

    key: str  # in the bucket
    upload_id: str
    started: datetime  # UTC


@lru_cache(maxsize=16)
def client_of(settings: S3Settings) -> S3Client:
    """This process's client. Raises ``SettingsError`` for a file of the settings that cannot be used."""
    settings.check_files()
    renewal, source = _renewal_of(settings), botocore.session.Session()
    source.register_component("credential_provider", renewal)
    source.register_component("data_loader", _descriptions())
    session = Session(botocore_session=source, region_name=settings.region)
    checksums: Literal["when_supported", "when_required"]
    checksums = "when_required" if settings.checksums == "md5" else settings.checksums
    config = Config(
        connect_timeout=settings.connect_timeout,
        read_timeout=settings.read_timeout,
        max_pool_connections=settings.max_pool_connections,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        s3={"addressing_style": settings.addressing_style},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
    verify = str(settings.ca_file) if settings.ca_file is not None else None
    client = session.client("s3", endpoint_url=settings.endpoint_url, config=config, verify=verify)
    client.meta.events.register("needs-retry.s3", renewal.pause)  # type: ignore[arg-type]
    return retry_truncated_answers(client, settings.max_attempts)


@cache
def _descriptions() -> Loader:
    """botocore's descriptions of services, read once: nine tenths of the time that a client takes to be made."""
    return create_loader()


@lru_cache(maxsize=16)
def _renewal_of(settings: S3Settings) -> Renewal:
    return Renewal(settings)


def _forget_clients() -> None:
    client_of.cache_clear()
    _renewal_of.cache_clear()


os.register_at_fork(after_in_child=_forget_clients)  # parent and child would share sockets


@lru_cache(maxsize=64)
def require_bucket(bucket: str, settings: S3Settings) -> None:
    """Raises ``BucketMissing``. A bucket that was found is not checked again."""
    try:
        client_of(settings).head_bucket(Bucket=bucket)
    except ClientError as error:
        if status_of(error) == 404:
            raise bucket_missing(bucket) from error
        if status_of(error) not in _WITHOUT_REASON:
            raise
        client_of(settings).list_objects_v2(Bucket=bucket, MaxKeys=1)


def head_object(bucket: str, key: str, settings: S3Settings) -> HeadObjectOutputTypeDef:
    """The metadata of an object. Where it is refused, the error is that of a read, which has a reason."""
    client = client_of(settings)
    try:
        return client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) not in _WITHOUT_REASON:
            raise
    try:
        client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
    except ClientError as error:
        if status_of(error) != 416:  # an empty object
            raise
    return client.head_object(Bucket=bucket, Key=key)


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
    except BotoCoreError as error:
        outage = _renewal_of(settings).is_outage(error)
        raise translate_boto_error(error, where, settings, outage=outage) from error


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
    if refused is not None and status_of(error) in (404, 412) and error.response["Error"].get("Code") != "NoSuchBucket":
        return _missing_bucket(bucket, settings) or refused
    expired = _renewal_of(settings).is_expiry(error.response["Error"].get("Code", ""))
    return translate_client_error(error, bucket, where, settings, expired=expired, conditional=refused is not None)


def _missing_bucket(bucket: str, settings: S3Settings) -> StoreError | None:
    """The error, if there is no such bucket: some services answer a conditional write to it as if it were refused."""
    try:
        require_bucket(bucket, settings)
    except BucketMissing as missing:
        return missing
    except (BotoCoreError, ClientError):  # not known; what was refused stays refused
        return None
    return None
