"""What one check found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from generator.errors import LatentmillError

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One check: what was seen, and where it is not as it should be, how to mend it."""

    check: str
    status: Status
    found: str
    mend: str = ""
    loses_data: bool = False  # a worker that starts in spite of it may lose or mix up data

    def facts(self) -> dict[str, Any]:
        """Plain JSON, for ``--json``."""
        return asdict(self)


Check = Callable[[], Finding]


def ok(check: str, found: object) -> Finding:
    return Finding(check, "ok", str(found))


def warning(check: str, found: object, mend: str) -> Finding:
    return Finding(check, "warning", str(found), mend)


def failed(check: str, found: object, mend: str, *, loses_data: bool = False) -> Finding:
    return Finding(check, "failed", str(found), mend, loses_data)


def run_checks(checks: dict[str, Check]) -> Iterator[Finding]:
    """The findings of all checks; one that cannot be made is a failed one, and the others are made all the same."""
    for name, check in checks.items():
        try:
            yield check()
        except LatentmillError as problem:
            yield failed(name, f"expected {problem.expected}, got {problem.got}", problem.hint or problem.field)
