"""Media types of objects by the ending of their keys, so that a browser shows what a bucket holds as what it is."""

from __future__ import annotations

_BY_ENDING = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".jpg": "image/jpeg",
}
_OTHER = "binary/octet-stream"  # what S3 takes an object for that names no type


def content_type(key: str) -> str:
    """The header ``Content-Type`` of the object ``key``."""
    return next((kind for ending, kind in _BY_ENDING.items() if key.endswith(ending)), _OTHER)
