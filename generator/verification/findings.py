"""The list of what is wrong, kept short: the same complaint about many samples of one shard is told once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 200  # characters of a value


@dataclass(frozen=True)
class Problem:
    """In the object ``key``, ``what`` was expected to be ``expected``; ``times`` counts it, ``got`` is the first."""

    key: str
    what: str
    expected: str
    got: str
    times: int = 1

    def __str__(self) -> str:
        more = f" (and {self.times - 1} more like it)" if self.times > 1 else ""
        return f"{self.key}: {self.what}: expected {self.expected}, got {self.got}{more}"

    def facts(self) -> dict[str, Any]:
        """Plain JSON, for ``--json``."""
        return {"key": self.key, "what": self.what, "expected": self.expected, "got": self.got, "times": self.times}


class Findings:
    """Collects problems, in the order in which they were first met."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._times: dict[tuple[str, str], int] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(*where, *first, self._times[where]) for where, first in self._first.items())

    def add(self, key: str, what: str, expected: object, got: object) -> None:
        """Note a problem."""
        where = (key, what)
        self._first.setdefault(where, (_shown(expected), _shown(got)))
        self._times[where] = self._times.get(where, 0) + 1

    def expect_all(
        self, key: str, what: str, expected: Mapping[str, object], got: Mapping[str, object], of: str = ""
    ) -> None:
        """``expect`` for every name in ``expected``; what ``got`` holds beyond them is not looked at."""
        for name, value in expected.items():
            self.expect(key, f"{name}{what}", value, got.get(name), of)

    def expect(self, key: str, what: str, expected: object, got: object, of: str = "") -> None:
        """Note a problem unless ``got`` is ``expected``; ``of`` says which part of the object is meant."""
        if got != expected:
            suffix = f" ({of})" if of else ""
            self.add(key, what, expected, f"{_shown(got)}{suffix}")


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
