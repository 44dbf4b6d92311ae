"""The page of a build: filters, histograms, map and gallery. One address is one view; htmx asks for parts of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.selection import WHERE_COLUMNS, Selection, select
from generator.datasets.exploration.summary import map_bytes, summarize
from generator.datasets.exploration.view import COLOURS, ORDERS, REFUSED, View, parse_view
from workers.server.builds import CommittedBuild
from workers.server.callers import Caller, require
from workers.server.columns import Gathering
from workers.server.context import context_of
from workers.server.pages import facets
from workers.server.pages.pictures import Picture, pictures_of
from workers.server.pages.rendering import render

PAGE = 48  # samples of a page of the gallery
_MAX_LEGEND = 200  # names of classes that a map gets
BUILD = "/datasets/{dataset:path}/builds/{build}"
Reader = Annotated[Caller, Depends(require("reader"))]

router = APIRouter(include_in_schema=False)


def base_of(dataset: str, build: str) -> str:
    """The address of the page of a build."""
    return f"/datasets/{quote(dataset)}/builds/{quote(build)}"


def is_part(request: Request) -> bool:
    """Whether htmx asks for a part of a page, not for the whole page of an earlier address."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def view_of(request: Request, build: CommittedBuild) -> View:
    """The view that a request asks for. Raises ``SpecError``."""
    return parse_view(request.query_params.multi_items(), build.manifest.classes)


@router.get(BUILD)
def show_build(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """A view of the build: the whole page, or for htmx what changes with the view."""
    context, base = context_of(request), base_of(dataset, build)
    found = context.build(caller.tenant, dataset, build)
    view, columns = view_of(request, found), context.columns.find(found)
    if isinstance(columns, Gathering):
        return _with_vary(_show_gathering(request, found, dataset, base, columns))
    values = _view_values(base, found, columns, select(columns, view))
    if is_part(request):
        return _with_vary(render(request, "view.html", dataset=dataset, **values))
    return _with_vary(render(request, "explore.html", dataset=dataset, gathering=None, **values))


@router.get(BUILD + "/map")
def show_map(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """The map of a view, as ``map_bytes`` describes it."""
    context = context_of(request)
    found = context.build(caller.tenant, dataset, build)
    selection = select(context.columns.get(found), view_of(request, found))
    return Response(map_bytes(selection), media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


@router.get(BUILD + "/gallery")
def show_gallery(request: Request, caller: Reader, dataset: str, build: str) -> Response:
    """A page of the gallery of a view, with its images."""
    context, base = context_of(request), base_of(dataset, build)
    found = context.build(caller.tenant, dataset, build)
    view, columns = view_of(request, found), context.columns.find(found)
    if isinstance(columns, Gathering):
        count = min(PAGE, found.manifest.shards[0].samples)
        pictures = pictures_of(found, base, None, range(count))
        return render(request, "gallery.html", pictures=pictures, first=1, last=count, count=count, pages=(None, None))
    selection = select(columns, view)
    return render(request, "gallery.html", **_gallery_values(base, found, columns, selection))


def _show_gathering(request: Request, found: CommittedBuild, dataset: str, base: str, gathering: Gathering) -> Response:
    """What the manifest knows, while the columns are gathered; htmx asks again every second."""
    values: dict[str, Any] = {
        "dataset": dataset,
        "base": base,
        "build": found,
        "query": request.url.query,
        "gathering": gathering,
    }
    if is_part(request):
        return render(request, "gathering.html", **values)
    return render(request, "explore.html", **values, **_map_values(found))


def _view_values(base: str, found: CommittedBuild, columns: Columns, selection: Selection) -> dict[str, Any]:
    view, summary = selection.view, summarize(selection)
    return {
        "base": base,
        "build": found,
        "view": view,
        "summary": summary,
        "href": facets.link(base, view),
        "query": facets.link("", view).lstrip("?"),
        "active": facets.active(base, view),
        "choices": facets.choices(base, view, summary, found.manifest.classes),
        "histograms": facets.histograms(base, view, summary),
        "orders": ORDERS,
        "colours": COLOURS,
        "refused": REFUSED,
        "where_columns": WHERE_COLUMNS,
        "has_map": columns.frame is not None,
        **_map_values(found),
    }


def _map_values(found: CommittedBuild) -> dict[str, Any]:
    return {"legend": list(found.manifest.classes[:_MAX_LEGEND])}


def _gallery_values(base: str, found: CommittedBuild, columns: Columns, selection: Selection) -> dict[str, Any]:
    view, indices = selection.view, selection.page(PAGE).tolist()
    pictures: list[Picture] = pictures_of(found, base, columns, indices) if indices else []
    first = (view.page - 1) * PAGE
    last_page = max(1, -(-selection.count // PAGE))
    return {
        "pictures": pictures,
        "first": first + 1,
        "last": first + len(indices),
        "count": selection.count,
        "pages": (
            _page_link(base, view, view.page - 1, last_page),
            _page_link(base, view, view.page + 1, last_page),
        ),
    }


def _page_link(base: str, view: View, page: int, last: int) -> str | None:
    return facets.link(base, replace(view, page=page)) if 1 <= page <= last else None


def _with_vary(response: Response) -> Response:
    """Parts and whole pages have one address: a cache must not mistake one for the other."""
    response.headers["Vary"] = "HX-Request"
    response.headers["Cache-Control"] = "no-store"
    return response
