"""Errors inside pages that stay: as the pages of errors have them, without addresses and paths of the server."""

from __future__ import annotations

from starlette.requests import Request

from generator.errors import LatentmillError
from workers.server.callers import Caller
from workers.server.context import context_of
from workers.server.problems import error_of, problem_document


def shown_error(request: Request, caller: Caller, wrong: Exception) -> tuple[int, LatentmillError]:
    """Status and error that a page may show."""
    status, error, _ = error_of(request, wrong)
    facts, context = problem_document(status, error), context_of(request)
    texts = [context.redact(str(facts[name]), caller.tenant) for name in ("field", "expected", "got", "hint")]
    return status, type(error)(*texts)
