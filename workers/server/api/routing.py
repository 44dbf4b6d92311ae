"""What all routes of the API share: strict JSON, callers, pages of lists, ETags, the audit of changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from generator.errors import SpecError
from generator.spec.canonical import read_json
from workers.server.callers import SAFE_METHODS, Caller, find_caller, require
from workers.server.context import context_of
from workers.server.problems import Problem

MAX_PAGE = 500
IMMUTABLE = "private, max-age=31536000, immutable"
REVALIDATE = "private, no-cache"

Reader = Annotated[Caller, Depends(require("reader"))]
Submitter = Annotated[Caller, Depends(require("submitter"))]
Operator = Annotated[Caller, Depends(require("operator"))]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Items of a page, at most")]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before")]

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """A part of a list. ``next``: the value of ``after`` for the following part; ``None`` at the end."""

    items: list[T]
    next: str | None = None


class StrictRequest(Request):
    """A request whose JSON has no duplicate keys, no NaN and no infinities, as everywhere else."""

    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            try:
                self._strict_json = read_json(await self.body(), field="body", error=SpecError)
            except SpecError as wrong:
                raise Problem(400, wrong) from wrong
        return self._strict_json


class StrictRoute(APIRoute):
    """A route whose bodies are read strictly, and only for callers that are known."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            if request.method not in SAFE_METHODS:
                await run_in_threadpool(find_caller, context_of(request), request)
            answer: Response = await handle(StrictRequest(request.scope, request.receive))
            return answer

        return handle_strictly


def new_router(tag: str) -> APIRouter:
    """A router of one part of the API."""
    return APIRouter(tags=[tag], route_class=StrictRoute)


def json_answer(request: Request, content: Any, *, status: int = 200, caching: str = REVALIDATE) -> Response:
    """``content`` (a model or plain values) as JSON with an ETag; 304 if the caller has it already."""
    plain = content.model_dump(mode="json") if isinstance(content, BaseModel) else content
    body = json.dumps(plain, separators=(",", ":"), allow_nan=False).encode()
    return bytes_answer(request, body, "application/json", status=status, caching=caching)


def bytes_answer(
    request: Request, body: bytes, media_type: str, *, etag: str = "", status: int = 200, caching: str = REVALIDATE
) -> Response:
    """``body`` with an ETag (by default its digest); 304 if the caller has it already."""
    tag = f'"{etag or hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if status == 200 and (tag in known or known == ["*"]):
        return Response(status_code=304, headers=headers)
    return Response(body, status, media_type=media_type, headers=headers)


def page_answer(request: Request, items: Sequence[Any], following: str | None) -> Response:
    """A page of a list, with a link to the next one."""
    plain = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in items]
    answer = json_answer(request, {"items": plain, "next": following})
    if following is not None:
        query = urlencode({**request.query_params, "after": following})
        answer.headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return answer


def page_of(items: Sequence[T], key: Callable[[T], str], limit: int, after: str | None) -> tuple[list[T], str | None]:
    """The part of ``items``, ascending by ``key``, that follows ``after``; and the key that the next part follows."""
    following = [item for item in items if after is None or key(item) > after]
    part = list(following[:limit])
    return part, key(part[-1]) if len(following) > limit else None
