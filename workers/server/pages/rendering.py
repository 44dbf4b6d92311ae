"""Renders templates. Every value is escaped, and a name that a template does not know is an error."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from generator.spec.canonical import sha256_hex
from workers.server.callers import Caller

PACKAGE = Path(__file__).parent
STATIC = PACKAGE / "static"


@cache
def environment() -> Environment:
    """The templates of this package; filters may be added to it before the first page is rendered."""
    found = Environment(
        loader=FileSystemLoader(PACKAGE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["version"] = version_of
    return found


def version_of(text: str) -> str:
    """A short text that changes with ``text``."""
    return sha256_hex(str(text).encode())[:20]


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """The page ``template`` with ``values``.

    Each template also knows ``request``, ``caller`` (``None`` without a session), ``csrf`` (for the hidden field of
    forms) and ``release``.
    """
    return HTMLResponse(render_text(request, template, **values), status)


def render_text(request: Request, template: str, **values: Any) -> str:
    """What ``render`` sends."""
    caller: Caller | None = getattr(request.state, "caller", None)
    common = {"request": request, "caller": caller, "csrf": caller.csrf if caller else "", "release": _release()}
    return environment().get_template(template).render(common | values)


@cache
def _release() -> str:
    return version("latentmill")
