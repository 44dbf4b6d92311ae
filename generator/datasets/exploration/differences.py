"""Where two JSON documents differ, by the paths of their values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_DIFFERENCES = 500
_MAX_CHARS = 200  # of a value


@dataclass(frozen=True)
class Difference:
    """A value at ``path``, as JSON, in both documents; ``None`` where one has none."""

    path: str
    first: str | None
    second: str | None


def find_differences(first: Any, second: Any) -> list[Difference]:
    """The values in which two documents differ, by path, at most ``MAX_DIFFERENCES``. A list of numbers is one."""
    ours, others = dict(_values(first, "")), dict(_values(second, ""))
    paths = sorted(path for path in ours.keys() | others.keys() if ours.get(path) != others.get(path))
    return [Difference(path, ours.get(path), others.get(path)) for path in paths[:MAX_DIFFERENCES]]


def _values(document: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(document, dict) and document:
        for name, value in document.items():
            yield from _values(value, f"{path}.{name}" if path else str(name))
    elif isinstance(document, list) and any(isinstance(each, dict | list) for each in document):
        for place, value in enumerate(document):
            yield from _values(value, f"{path}[{place}]")
    else:
        text = json.dumps(document, ensure_ascii=False)
        yield path, text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."
