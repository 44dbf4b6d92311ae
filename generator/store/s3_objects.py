"""Objects of any name in a bucket, for reading only: real images that others have put there.

Stores (``generator.store.base``) list and read only keys of the form that latentmill writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import final

from generator.errors import ObjectMissing, SpecError
from generator.store.base import ObjectInfo
from generator.store.s3_client import client_of, read_body, require_bucket, translate_errors
from generator.store.s3_dialect import if_match, normal_etag
from generator.store.s3_settings import S3Settings

_URL = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9])(?:/(.*))?", re.DOTALL)


@final
@dataclass(frozen=True)
class S3Objects:
    """All objects of a bucket. Methods raise ``StoreError``."""

    bucket: str
    settings: S3Settings

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose keys begin with ``prefix``, in the order in which the service lists them."""
        with translate_errors(self.bucket, f"s3://{self.bucket}/{prefix}", self.settings):
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
        where = f"s3://{self.bucket}/{key}"
        changed = ObjectMissing(where, f"the object as it was listed ({etag})", "another version, or none")
        span, version = f"bytes={start}-{start + length - 1}", if_match(etag, self.settings)
        with translate_errors(self.bucket, where, self.settings, changed):
            client = client_of(self.settings)
            return read_body(
                lambda: client.get_object(Bucket=self.bucket, Key=key, Range=span, IfMatch=version),
                where,
                self.settings,
            )


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key (or prefix, or pattern) of an ``s3://`` URL. Raises ``SpecError``."""
    match = _URL.fullmatch(url)
    if match is None:
        raise SpecError("url", "s3:// and a bucket of 3 to 63 letters, digits, '.', '_' and '-'", repr(url[:120]))
    return match[1], match[2] or ""
