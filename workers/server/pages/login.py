"""Signing in and out: by a token, or by a one-time link that `latentmill up` prints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from generator.errors import AccessRefused
from workers.server.access.audit import write_audit
from workers.server.access.keys import is_key_id
from workers.server.access.links import use_link
from workers.server.access.tokens import MAX_TOKEN_LENGTH
from workers.server.callers import SESSION_COOKIE, Caller, address_of, check_token, require
from workers.server.context import context_of
from workers.server.headers import is_same_origin
from workers.server.pages.rendering import render
from workers.server.problems import Problem, too_many

SESSION_SECONDS = 12 * 3600
router = APIRouter(include_in_schema=False)

Token = Annotated[str, Form(max_length=MAX_TOKEN_LENGTH)]
Next = Annotated[str, Form(max_length=2000)]


@router.get("/login")
async def show_login(request: Request, next: str = "/", ended: str = "") -> Response:  # noqa: A002
    """The page that asks for a token. ``ended``: the id of the key whose session was ended here."""
    signed_out = ended if is_key_id(ended) else ""
    return render(request, "login.html", next=local_path(next), code="", wrong="", signed_out=signed_out)


@router.post("/login")
async def log_in(request: Request, token: Token, next: Next = "/") -> Response:  # noqa: A002
    """Begin a session with a token."""
    return await _begin_session(request, token.strip(), local_path(next))


@router.get("/login/{code}")
async def show_link(request: Request, code: str) -> Response:
    """The page of a one-time link. Only its button uses the link, as programs that look at links ahead do not press."""
    return render(request, "login.html", next="/", code=code[:MAX_TOKEN_LENGTH], wrong="", signed_out="")


@router.post("/login/{code}")
async def log_in_by_link(request: Request, code: str) -> Response:
    """Begin a session with a one-time link."""
    context = context_of(request)
    _check_origin(request)
    if (seconds := context.failures.wait(_link_guesser(request))) > 0.0:
        raise too_many("link", "fewer refused links from one address", seconds)
    try:
        token = await run_in_threadpool(use_link, context.root, code)
    except AccessRefused as refused:
        context.failures.take(_link_guesser(request))
        write_audit("session", outcome="refused link", address=address_of(request))
        return _refuse(request, refused, "/")
    return await _begin_session(request, token, "/")


@router.post("/logout")
async def log_out(caller: Annotated[Caller, Depends(require("reader"))]) -> Response:
    """End the session of this browser; its key stays."""
    write_audit("session", outcome="ended", **caller.facts)
    response = RedirectResponse(f"/login?ended={caller.key}" if is_key_id(caller.key) else "/login", 303)
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


def local_path(path: str) -> str:
    """``path`` if it is one of this server, else ``/``: a link must not lead to another site after signing in."""
    if not path.startswith("/") or path.startswith("//") or "\\" in path or any(ord(char) < 0x20 for char in path):
        return "/"
    return path


async def _begin_session(request: Request, token: str, then: str) -> Response:
    context, address = context_of(request), address_of(request)
    _check_origin(request)
    try:
        key = await run_in_threadpool(check_token, context, token, address, "session")
    except AccessRefused as refused:
        return _refuse(request, refused, then)
    write_audit("session", outcome="begun", tenant=key.tenant, key=key.id, role=key.role, address=address)
    response = RedirectResponse(then, 303)
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=SESSION_SECONDS,
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


def _check_origin(request: Request) -> None:
    """Refuse sign-ins that another site began."""
    if not is_same_origin(request.headers, request.url.scheme):
        raise Problem(403, AccessRefused("Origin", "a page of this server", "another site"))


def _refuse(request: Request, refused: AccessRefused, then: str) -> Response:
    return render(request, "login.html", status=403, next=then, code="", wrong=str(refused), signed_out="")


def _link_guesser(request: Request) -> str:
    return f"links {address_of(request)}"  # counted apart from keys
