"""Objects of any name in a bucket of S3, for reading only (``generator.store.objects``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import final

from generator.errors import ObjectMissing
from generator.store.base import ObjectInfo
from generator.store.s3_client import client_of, read_body, require_bucket, translate_errors
from generator.store.s3_dialect import if_match, normal_etag
from generator.store.s3_settings import S3Settings


@final
@dataclass(frozen=True)
class S3Objects:
    """All objects of a bucket. Methods raise ``StoreError``."""

    bucket: str
    settings: S3Settings

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with ``prefix``, in the order in which the service lists them."""
        with translate_errors(self.bucket, f"{self.url}/{prefix}", self.settings):
            require_bucket(self.bucket, self.settings)
            pages = (
                client_of(self.settings).get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield ObjectInfo(
                        item["Key"], item["Size"], normal_etag(item["ETag"]), item["LastModified"].astimezone(UTC)
                    )

    def read(self, key: str, start: int, length: int, etag: str) -> bytes:
        """``length`` bytes from ``start`` on of the version ``etag``. Raises ``ObjectMissing`` for another version."""
        if length == 0:
            return b""
        where = f"{self.url}/{key}"
        changed = ObjectMissing(where, f"the object as it was listed ({etag})", "another version, or none")
        span, version = f"bytes={start}-{start + length - 1}", if_match(etag, self.settings)
        with translate_errors(self.bucket, where, self.settings, changed):
            client = client_of(self.settings)
            return read_body(
                lambda: client.get_object(Bucket=self.bucket, Key=key, Range=span, IfMatch=version),
                where,
                self.settings,
            )
