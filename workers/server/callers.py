"""Who asks: the caller of a request, from its key or the session of its browser; and what a route requires."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from generator.errors import AccessRefused
from workers.server.access.audit import write_audit
from workers.server.access.keys import Key
from workers.server.access.roles import Role, includes
from workers.server.access.tenants import DEFAULT_TENANT
from workers.server.access.tokens import csrf_value, key_id_of
from workers.server.context import ServerContext, context_of
from workers.server.headers import is_same_origin
from workers.server.problems import Problem, too_many

SESSION_COOKIE = "latentmill_session"
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="latentmill"'}
_MAX_FIELDS = 400  # of a form: the one for new jobs has two for each of 100 classes
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


@dataclass(frozen=True)
class Caller:
    """Who asks. ``csrf``: what forms of a browser's session send back; empty for a key in a header. ``address``: from
    where.

    ``name``: what histories say; ``facts``: what the audit log says.
    """

    tenant: str
    role: Role
    key: str
    csrf: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        return f"key {self.key} of {self.tenant}"

    @property
    def facts(self) -> dict[str, str]:
        return {"tenant": self.tenant, "key": self.key, "role": self.role, "address": self.address}

    def may(self, role: Role) -> bool:
        return includes(self.role, role)


def require(role: Role) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency of routes: the caller, if it has the role. Answers 401, 403 or 429 otherwise.

    A change that comes with the session of a browser must also come from a page of this server, and bring the value
    that our forms and scripts have (``csrf``).
    """

    async def required(request: Request) -> Caller:
        context = context_of(request)
        caller = await run_in_threadpool(find_caller, context, request)
        if (seconds := context.rates.take(caller.key)) > 0.0:
            raise too_many("requests", f"at most {context.settings.server_requests} a minute", seconds)
        if request.method not in SAFE_METHODS:
            try:
                await _check_origin(request, caller)
            except Problem as foreign:
                write_audit(_action(request), outcome="refused", field=foreign.error.field, **caller.facts)
                raise
        if not caller.may(role):
            write_audit(_action(request), outcome="refused", field="role", **caller.facts)
            raise Problem(403, AccessRefused("role", f"the role {role}", caller.role))
        request.state.caller = caller
        return caller

    return required


def find_caller(context: ServerContext, request: Request) -> Caller:
    """The caller of a request. Raises ``Problem`` (401, 429), ``StoreError``."""
    if context.settings.server_without_keys:
        return Caller(DEFAULT_TENANT, "operator", "none", address=address_of(request))
    token, is_session = _token_of(request)
    if token is None:
        raise Problem(401, AccessRefused("key", "a key (Authorization: Bearer ...)", "none"), _CHALLENGE)
    try:
        key = check_token(context, token, address_of(request), _action(request))
    except AccessRefused as refused:
        raise Problem(401, refused, _CHALLENGE) from refused
    return Caller(key.tenant, key.role, key.id, csrf_value(token) if is_session else "", address_of(request))


def check_token(context: ServerContext, token: str, address: str, action: str) -> Key:
    """The live key of ``token``, however many others were refused: one address may be that of many people.

    Refused tokens are counted by address and by the id of the key that they name; beyond the limit they are answered
    429, without a line in the audit log. Raises ``AccessRefused``, ``Problem`` (429), ``StoreError``.
    """
    try:
        return context.keys.check(token, sparing=context.failures.wait(address) > 0.0)
    except AccessRefused as refused:
        key_id = key_id_of(token)
        seconds = max(context.failures.take(address), context.guesses.take(key_id) if key_id else 0.0)
        if seconds > 0.0:
            raise too_many("key", "fewer refused keys from one address, or of one id", seconds) from refused
        write_audit(action, outcome="refused key", address=address, named=key_id)
        raise


def address_of(request: Request) -> str:
    """Where a request comes from; behind a proxy that the settings name, what that says (X-Forwarded-For)."""
    return request.client.host if request.client else "unknown"


def caller_or_none(context: ServerContext, request: Request) -> Caller | None:
    """The caller, if the request has a key that is accepted: for pages that also others may see."""
    try:
        return find_caller(context, request)
    except Problem:
        return None


def _token_of(request: Request) -> tuple[str | None, bool]:
    """The token of a request, and whether it is that of a browser's session."""
    stated = request.headers.get("authorization")
    if stated is not None:
        scheme, _, token = stated.partition(" ")
        return (token.strip() if scheme.lower() == "bearer" else ""), False
    return request.cookies.get(SESSION_COOKIE), True


async def _check_origin(request: Request, caller: Caller) -> None:
    if not is_same_origin(request.headers, request.url.scheme):
        got = request.headers.get("origin", "another site")[:100]
        raise Problem(403, AccessRefused("Origin", "a page of this server", repr(got)))
    if caller.csrf and not await _sends_back(request, caller.csrf):
        raise Problem(403, AccessRefused(CSRF_HEADER, "the value of this session", "none, or another one"))


async def _sends_back(request: Request, value: str) -> bool:
    if (stated := request.headers.get(CSRF_HEADER)) is not None:
        return hmac.compare_digest(stated.encode(), value.encode())
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        sent = (await request.form(max_files=20, max_fields=_MAX_FIELDS)).get(CSRF_FIELD)
        return isinstance(sent, str) and hmac.compare_digest(sent.encode(), value.encode())
    return False


def _action(request: Request) -> str:
    return f"{request.method} {request.url.path}"[:300]
