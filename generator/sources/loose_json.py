"""JSON as other tools write it: with NaN and Infinity, which are not JSON, for values that are missing."""

from __future__ import annotations

import json
from typing import Any

from generator.errors import SourceError

_MAX_BYTES = 2**24


def read_loose_json(data: bytes, *, field: str, limit: int = _MAX_BYTES) -> Any:
    """Parse bytes of at most ``limit``. Raises ``SourceError`` naming ``field`` for another size, syntax or depth."""
    if len(data) > limit:
        raise SourceError(field, f"at most {limit} bytes of JSON", f"{len(data)} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as broken:
        raise SourceError(field, "a JSON document", f"bytes that do not parse ({broken})") from broken
