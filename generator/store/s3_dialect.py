"""What S3 services do differently: the form of etags, what is sent with an object, what becomes of a deleted one."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

from botocore.exceptions import ClientError

from generator.store.s3_client import client_of, translate_errors
from generator.store.s3_errors import status_of
from generator.store.s3_settings import S3Settings

_WRONG_CRC32 = "AAAAAA=="  # the CRC of empty input


def normal_etag(text: str) -> str:
    """An etag as HTTP has it, in quotes, of one that some service answered: ``0a1b``, ``"0a1b"``, ``W/"0a1b"``."""
    return f'"{text.removeprefix("W/").strip(chr(34))}"'


def if_match(etag: str, settings: S3Settings) -> str:
    """The value of ``If-Match`` for the object version ``etag`` (of ``normal_etag``)."""
    bare = etag.removeprefix("W/").strip('"')
    return bare if settings.if_match == "bare" else f'"{bare}"'


def write_options(data: bytes, settings: S3Settings) -> dict[str, Any]:
    """What ``put_object`` gets besides an object's key and bytes: a checksum, and how the bucket encrypts it."""
    options: dict[str, Any] = {}
    if settings.checksums == "md5":
        options["ContentMD5"] = _md5(data)
    if settings.encryption is not None:
        options["ServerSideEncryption"] = settings.encryption
    if settings.kms_key is not None:
        options["SSEKMSKeyId"] = settings.kms_key
    return options


def rejects_bad_checksum(bucket: str, key: str, settings: S3Settings) -> bool:
    """Whether the service refuses bytes with a wrong checksum; leaves no object at ``key``. Raises ``StoreError``."""
    client, data = client_of(settings), b"damaged on the way"
    options = write_options(data, settings)
    options |= {"ContentMD5": _md5(b"")} if settings.checksums == "md5" else {"ChecksumCRC32": _WRONG_CRC32}
    with translate_errors(bucket, f"s3://{bucket}/{key}", settings):
        try:
            client.put_object(Bucket=bucket, Key=key, Body=data, **options)
        except ClientError as refused:
            if status_of(refused) == 400:
                return True
            raise
        client.delete_object(Bucket=bucket, Key=key)
    return False


def keeps_versions(bucket: str, key: str, settings: S3Settings) -> bool:
    """Whether a deleted object stays as a version, which takes space; leaves no object at ``key``.

    Raises ``StoreError``.
    """
    client = client_of(settings)
    with translate_errors(bucket, f"s3://{bucket}/{key}", settings):
        written = client.put_object(Bucket=bucket, Key=key, Body=b"probe", **write_options(b"probe", settings))
        client.delete_object(Bucket=bucket, Key=key)
    return written.get("VersionId", "null") != "null"


def _md5(data: bytes) -> str:
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
