"""Objects of any name in the bucket of a service, for reading only: real images that others have put there.

Stores (``generator.store.base``) list and read only keys of the form that latentmill writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from generator.store.base import ObjectInfo
from generator.store.s3_settings import S3Settings
from generator.store.url import split_url


class Objects(Protocol):
    """All objects of a bucket. Methods raise ``StoreError``."""

    @property
    def url(self) -> str:
        """The bucket's."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The object ``prefix`` itself, and those below it, in no particular order. There may be others."""

    def read(self, key: str, start: int, length: int, etag: str) -> bytes:
        """``length`` bytes from ``start`` on of the version ``etag``. Raises ``ObjectMissing`` for another version."""


def open_objects(url: str, s3: S3Settings | None) -> tuple[Objects, str]:
    """The objects of the bucket in ``url``, and the key (or prefix, or pattern) that follows it. Nothing is read yet.

    Raises ``SpecError`` for a URL of no service, ``SettingsError`` where the package for a service is missing.
    """
    scheme, bucket, key = split_url(url)
    if scheme == "s3":
        from generator.store.s3_objects import S3Objects  # boto3 takes half a second to import

        return S3Objects(bucket, s3 or S3Settings()), key
    from generator.store.cloud_objects import CloudObjects

    return CloudObjects(scheme, bucket), key
