"""Audit lines around changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from generator.errors import LatentmillError
from workers.server.access.audit import write_audit
from workers.server.callers import Caller
from workers.server.problems import Problem


@contextmanager
def audited(caller: Caller, action: str, **facts: Any) -> Iterator[None]:
    """Writes an audit line about a change when it is done, or refused."""
    about = {"key": caller.key, "tenant": caller.tenant, "role": caller.role, **facts}
    try:
        yield
    except (LatentmillError, Problem) as error:
        reason = error.error if isinstance(error, Problem) else error
        write_audit(action, outcome="failed", error=type(reason).__name__, field=reason.field, **about)
        raise
    except BaseException:
        write_audit(action, outcome="failed", error="internal", **about)
        raise
    write_audit(action, outcome="done", **about)
