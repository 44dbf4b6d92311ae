"""Errors as problem documents (RFC 9457): the same field, expected and got as everywhere else, and an HTTP status."""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from generator.errors import (
    AccessRefused,
    BrokerUnavailable,
    BuildConflict,
    BundleMissing,
    DatasetError,
    InputError,
    JobFailed,
    LatentmillError,
    OutsideError,
    QuotaExceeded,
    SettingsError,
    SpecError,
    StoreError,
)
from generator.spec.canonical import short_repr, translate_details
from workers.settings import ENV_PREFIX

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:latentmill:problem:"
RETRY_SECONDS = 5
_STATUSES: tuple[tuple[type[LatentmillError], int], ...] = (
    (AccessRefused, 403),
    (BundleMissing, 404),
    (DatasetError, 404),
    (SettingsError, 403),
    (InputError, 422),
    (QuotaExceeded, 429),
    (OutsideError, 503),
    (BuildConflict, 409),
    (JobFailed, 409),
)
_TITLES = {
    400: "Bad request",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "The request took too long",
    409: "Conflict",
    413: "Too large",
    415: "Not that kind of content",
    421: "Not this host",
    422: "A value cannot be used",
    429: "Too many at once",
    431: "Too large",
    500: "Internal error",
    503: "Not available now",
}


class Problem(HTTPException):
    """An error that is answered with this status instead of the usual one of its type."""

    def __init__(self, status: int, error: LatentmillError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail=str(error), headers=dict(headers or {}))
        self.error = error


def not_found(error: LatentmillError) -> Problem:
    """``error`` as an answer that there is no such thing, for this tenant at least."""
    return Problem(404, error)


def status_of(error: LatentmillError) -> int:
    """The HTTP status of an error: 4xx for what the caller can correct, 503 where the same call may succeed later."""
    if isinstance(error, SettingsError) and error.field.startswith(ENV_PREFIX):
        return 503  # of this server, not of the request: no Redis is set, or the `latentmill up` that ran it has ended
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def problem_document(status: int, error: LatentmillError) -> dict[str, Any]:
    """The problem document of an error; its extra members are those of ``LatentmillError.facts``."""
    facts = _outside_facts(error) if status == 503 else error.facts()
    title = _TITLES.get(status, "Error")
    detail = str(LatentmillError(facts["field"], facts["expected"], facts["got"], facts["hint"]))
    return {"type": TYPE_PREFIX + facts["error"], "title": title, "status": status, "detail": detail} | facts


def problem_response(
    status: int,
    error: LatentmillError,
    headers: Mapping[str, str] | None = None,
    redact: Callable[[str], str] = lambda text: text,
) -> Response:
    """The answer for an error. ``redact`` takes paths of the server out of texts."""
    document = {
        name: redact(value) if isinstance(value, str) else value
        for name, value in problem_document(status, error).items()
    }
    extra = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    headers = {"Cache-Control": "no-store"} | extra | dict(headers or {})
    return Response(json.dumps(document), status, media_type=MEDIA_TYPE, headers=headers)


def error_of(request: Request, error: Exception) -> tuple[int, LatentmillError, dict[str, str]]:
    """Status, error and headers for any exception; one that should not happen gets a number that the log has too."""
    if isinstance(error, Problem):
        return error.status_code, error.error, dict(error.headers or {})
    if isinstance(error, LatentmillError):
        if (status := status_of(error)) >= 500:
            log.warning("%s %s: %s", request.method, request.url.path, error)
        return status, error, _retry_header(error)
    if isinstance(error, RequestValidationError):
        return 422, _validation_error(request, error), {}
    if isinstance(error, HTTPException):
        known = {404: ("path", "a path of this server"), 405: ("method", "a method of this path")}
        field, expected = known.get(error.status_code, ("request", "a well-formed request"))
        got = short_repr(request.url.path if field == "path" else request.method if field == "method" else error.detail)
        return error.status_code, SpecError(field, expected, got), dict(error.headers or {})
    number = secrets.token_hex(4)
    log.error("internal error %s: %s %s", number, request.method, request.url.path, exc_info=error)
    return 500, LatentmillError("server", "an answer", f"internal error {number}", "the server's log has more"), {}


def too_many(field: str, expected: str, seconds: float) -> Problem:
    """The answer to one request too many; the next one is within the limit after ``seconds``."""
    error = QuotaExceeded(field, expected, "more", f"try again in {math.ceil(seconds)} s")
    return Problem(429, error, {"Retry-After": str(max(1, math.ceil(seconds)))})


def _retry_header(error: LatentmillError) -> dict[str, str]:
    return {"Retry-After": "60"} if isinstance(error, QuotaExceeded) else {}


def _outside_facts(error: LatentmillError) -> dict[str, str]:
    """Facts without addresses: where Redis and the store are is nobody's business outside."""
    if isinstance(error, SettingsError):
        error = BrokerUnavailable("redis")
    if not isinstance(error, BrokerUnavailable | StoreError):
        return error.facts()
    field, expected = ("redis", "a Redis that answers")
    if isinstance(error, StoreError):
        field, expected = ("store", "a store that answers")
    hint = "nothing was changed; try again later"
    facts = {"field": field, "expected": expected, "got": "no answer, or a refusal", "hint": hint}
    return {"error": type(error).__name__} | facts


def _validation_error(request: Request, invalid: RequestValidationError) -> InputError:
    """The first error in the words of all others; its path begins in the body, or is the name of a parameter."""
    details = [dict(each) for each in invalid.errors()]
    if isinstance(details[0].get("input"), bytes):
        return SpecError("body", "a body of JSON with Content-Type: application/json", "a body of another kind")
    place, *inner = details[0].get("loc") or ("body",)
    given: Any = dict(request.query_params) | dict(request.path_params)
    if place == "body":
        given = invalid.body if isinstance(invalid.body, Mapping) else {}
    details[0]["loc"] = tuple(inner)
    wrong = translate_details(details, field="", error=SpecError, known=(), given=given)
    return SpecError(wrong.field or "body", wrong.expected, wrong.got, wrong.hint)
