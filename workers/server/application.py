"""The ASGI application: API v1, pages and static files, behind the checks that every request passes."""

from __future__ import annotations

from importlib.metadata import version
from typing import final
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from generator.errors import LatentmillError, SettingsError
from workers.server.api.router import API_PREFIX
from workers.server.api.router import router as api_router
from workers.server.callers import Caller
from workers.server.context import ServerContext, context_of, open_context
from workers.server.headers import HostCheck, SecurityHeaders, host_names, is_loopback
from workers.server.limits import RequestLimits
from workers.server.pages.rendering import STATIC, render
from workers.server.pages.router import router as pages_router
from workers.server.problems import error_of, problem_document, problem_response
from workers.settings import Settings


def make_application(settings: Settings, context: ServerContext | None = None) -> FastAPI:
    """The application of a server with these settings. Connects on first use. Raises ``SettingsError``."""
    if settings.server_without_keys and not is_loopback(settings.server_host):
        expected, got = "keys, as the server is reached from other machines", f"none, at {settings.server_host}"
        raise SettingsError("LATENTMILL_SERVER_WITHOUT_KEYS", expected, got)
    app = FastAPI(
        title="latentmill",
        version=version("latentmill"),
        openapi_url=f"{API_PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context or open_context(settings)
    app.include_router(api_router)
    app.include_router(pages_router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for kind in (LatentmillError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(_InternalErrors)
    app.add_middleware(RequestLimits, upload_bytes=settings.server_upload_bytes)
    app.add_middleware(HostCheck, names=host_names(settings))
    app.add_middleware(SecurityHeaders)
    return app


@final
class _InternalErrors:
    """Answers exceptions that should not happen, too. Starlette itself would raise them again, which ends the
    connection and puts a second traceback into the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as bug:
            if scope["type"] != "http" or started:
                raise
            await _answer_error(Request(scope, receive), bug)(scope, receive, send)


def _answer_error(request: Request, error: Exception) -> Response:
    """A problem document for the API, a page for everything else; who has no session is sent to sign in."""
    status, facts, headers = error_of(request, error)
    caller: Caller | None = getattr(request.state, "caller", None)
    context = context_of(request)

    def redact(text: str) -> str:
        try:
            return context.redact(text, caller.tenant if caller else "default")
        except LatentmillError:  # the store root itself cannot be told at the moment
            return "not shown"

    if request.url.path.startswith(f"{API_PREFIX}/"):
        return problem_response(status, facts, headers, redact)
    if status == 405 and request.method == "GET":  # a path that takes forms alone is no page
        status, facts, headers = error_of(request, HTTPException(404))
    if status == 401 and request.method == "GET":
        if request.headers.get("hx-request") == "true":  # the page is still open: it is asked for again, and signs in
            return Response(status_code=204, headers={"HX-Refresh": "true"})
        target = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="")
        return RedirectResponse(f"/login?next={target}", 303)
    document = {
        name: redact(value) if isinstance(value, str) else value
        for name, value in problem_document(status, facts).items()
    }
    response = render(request, "problem.html", status=status, problem=document)
    if request.headers.get("hx-request") == "true":
        headers = headers | {"HX-Push-Url": "false"}  # the page stays at the address that it shows
    response.headers.update(headers)
    return response
