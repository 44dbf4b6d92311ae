"""Unfinished writes made on purpose, as a killed writer leaves them."""

from __future__ import annotations

import secrets
from pathlib import Path

from generator.store import Store
from generator.store.s3_settings import S3Settings
from generator.store.url import parse_url


def leave_unfinished_write(store: Store, key: str) -> bool:
    """Begin a write of ``key`` and do not finish it: a temporary file, or a multipart upload.

    ``False`` for a store of another kind; then nothing is written.
    """
    from generator.store.local import LocalStore

    if isinstance(store, LocalStore):
        path = Path(parse_url(store.url).root) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".tmp-{secrets.token_hex(8)}").write_bytes(b"a part of it")
        return True
    settings = getattr(store, "_settings", None)
    if not isinstance(settings, S3Settings):
        return False
    _begin_upload(store.url, key, settings)
    return True


def _begin_upload(url: str, key: str, settings: S3Settings) -> None:
    from generator.store.s3_client import client_of, translate_errors  # boto3 takes half a second to import

    location = parse_url(url)
    full = f"{location.prefix}/{key}" if location.prefix else key
    with translate_errors(location.root, f"{url}/{key}", settings):
        client_of(settings).create_multipart_upload(Bucket=location.root, Key=full)
