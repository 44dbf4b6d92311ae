"""Problems found by verification. The same problem of one object is listed once and counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_MAX_CHARS = 200  # characters of a value


@dataclass(frozen=True)
class Problem:
    """A problem of the object ``where``. ``times``: number of occurrences; ``got``: value of the first one."""

    where: str  # a key below the build's prefix
    check: str
    expected: str
    got: str
    times: int = 1

    @property
    def what(self) -> str:
        """The problem as a sentence."""
        more = f", and {self.times - 1} more like it" if self.times > 1 else ""
        return f"{self.check}: expected {self.expected}, got {self.got}{more}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    def facts(self) -> dict[str, Any]:
        """The problem as JSON values, for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Verification:
    """The result of a verification: the build's URL, all problems, and the shards, samples and bytes that were read."""

    url: str
    problems: tuple[Problem, ...]
    shards: int
    samples: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems

    def facts(self) -> dict[str, Any]:
        """The result as JSON values, for ``--json``."""
        return {
            "url": self.url,
            "ok": self.ok,
            "shards": self.shards,
            "samples": self.samples,
            "bytes": self.bytes,
            "problems": [problem.facts() for problem in self.problems],
        }


class Findings:
    """Collects problems, in the order in which they were first found."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._times: dict[tuple[str, str], int] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        return tuple(Problem(*where, *first, self._times[where]) for where, first in self._first.items())

    def add(self, key: str, check: str, expected: object, got: object) -> None:
        """Add a problem."""
        where = (key, check)
        self._first.setdefault(where, (_truncated(expected), _truncated(got)))
        self._times[where] = self._times.get(where, 0) + 1

    def expect_all(
        self, key: str, suffix: str, expected: Mapping[str, object], got: Mapping[str, object], of: str = ""
    ) -> None:
        """Call ``expect`` for each name in ``expected``, as check ``<name><suffix>``; ignore other names in ``got``."""
        for name, value in expected.items():
            self.expect(key, f"{name}{suffix}", value, got.get(name), of)

    def expect(self, key: str, check: str, expected: object, got: object, of: str = "") -> None:
        """Add a problem unless ``got`` equals ``expected``. ``of``: the part of the object that is checked."""
        if got != expected:
            self.add(key, check, expected, f"{_truncated(got)} ({of})" if of else got)


def _truncated(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 3]}..."
