"""Audit lines around changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from generator.errors import LatentmillError
from workers.server.access.audit import write_audit
from workers.server.callers import Caller
from workers.server.problems import Problem


class Change:
    """A change under way. ``outcome``: ``done``, unless the block says what came of it instead."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.outcome, self.facts = "done", facts

    def note(self, **facts: Any) -> None:
        """Add what is only known now: the id of a job that was submitted."""
        self.facts.update(facts)

    def check(self, *, changed: bool, otherwise: str = "no change") -> None:
        """Say that nothing had to be changed, unless ``changed``."""
        if not changed:
            self.outcome = otherwise


@contextmanager
def audited(caller: Caller, action: str, **facts: Any) -> Iterator[Change]:
    """Writes an audit line about a change: who asked, from where, for what, and what came of it."""
    change = Change(caller.facts | facts)
    try:
        yield change
    except (LatentmillError, Problem) as error:
        reason = error.error if isinstance(error, Problem) else error
        write_audit(action, outcome="failed", **change.facts, error=type(reason).__name__, field=reason.field)
        raise
    except BaseException:
        write_audit(action, outcome="failed", **change.facts, error="internal")
        raise
    write_audit(action, outcome=change.outcome, **change.facts)
