"""Objects of any name in a bucket of Google Cloud Storage or a container of Azure, for reading only.

As ``generator.store.s3_objects``, through obstore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any, final

from generator.errors import ObjectMissing
from generator.store.base import ObjectInfo
from generator.store.cloud_client import CloudScheme, client_of, require_container, translate_errors


@final
@dataclass(frozen=True)
class CloudObjects:
    """All objects of a bucket (or container). Methods raise ``StoreError``."""

    scheme: CloudScheme
    bucket: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """The object ``prefix`` itself, and those below it; all of the bucket for an empty ``prefix``."""
        with translate_errors(self.scheme, self.bucket, f"{self.url}/{prefix}"):
            require_container(self.scheme, self.bucket)
            client = client_of(self.scheme, self.bucket)
            if prefix:
                with suppress(FileNotFoundError):
                    yield _info(client.head(prefix))
            for chunk in client.list(prefix or None):
                yield from map(_info, chunk)

    def read(self, key: str, start: int, length: int, etag: str) -> bytes:
        """``length`` bytes from ``start`` on of the version ``etag``. Raises ``ObjectMissing`` for another version."""
        if length == 0:
            return b""
        where = f"{self.url}/{key}"
        changed = ObjectMissing(where, f"the object as it was listed ({etag})", "another version, or none")
        options: Any = {"range": (start, start + length), "if_match": f'"{etag}"'}
        with translate_errors(self.scheme, self.bucket, where, changed):
            return bytes(client_of(self.scheme, self.bucket).get(key, options=options).bytes())


def _info(facts: Any) -> ObjectInfo:
    """Lists give etags without quotes."""
    return ObjectInfo(facts["path"], facts["size"], facts["e_tag"].strip('"'), facts["last_modified"].astimezone(UTC))
