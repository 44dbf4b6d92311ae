"""The finding of one check, and how a set of checks is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from generator.errors import LatentmillError

Status = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was found and, unless it is ``ok``, how to correct it."""

    check: str
    status: Status
    found: str
    mend: str = ""
    loses_data: bool = False  # a worker that starts nevertheless may lose or mix up data

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
    """Run all checks; one that raises a ``LatentmillError`` becomes a failed finding and does not stop the others."""
    for name, check in checks.items():
        try:
            yield check()
        except LatentmillError as problem:
            yield failed(name, f"expected {problem.expected}, got {problem.got}", problem.hint or problem.field)
