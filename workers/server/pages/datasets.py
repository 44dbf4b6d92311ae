"""Pages of datasets: those of the tenant, and the builds of one."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from generator.datasets.builds import build_store, check_dataset, is_committed, list_builds
from generator.datasets.promotion import DatasetState, read_state
from workers.server.context import context_of
from workers.server.listing import find_datasets
from workers.server.pages.explore import Reader, base_of
from workers.server.pages.rendering import render

_MAX_BUILDS = 500  # that a page lists

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class BuildRow:
    """A build in a list."""

    id: str
    href: str
    committed: bool
    current: bool
    pinned: bool


@router.get("/datasets")
def show_datasets(request: Request, caller: Reader) -> Response:
    """The datasets at the places of the tenant."""
    context = context_of(request)
    datasets = [(name, f"/datasets/{quote(name)}") for name in find_datasets(context, caller.tenant)]
    return render(request, "datasets.html", datasets=datasets, places=sorted(context.places.places(caller.tenant)))


@router.get("/datasets/{dataset:path}")
def show_dataset(request: Request, caller: Reader, dataset: str) -> Response:
    """The builds of a dataset."""
    store = context_of(request).dataset(caller.tenant, dataset)
    check_dataset(store)
    state = read_state(store) or DatasetState(by_promotion=False)
    builds = list_builds(store)
    rows = [
        BuildRow(
            id=build,
            href=base_of(dataset, build),
            committed=is_committed(build_store(store, build)),
            current=build == state.build,
            pinned=build in state.pinned,
        )
        for build in builds[:_MAX_BUILDS]
    ]
    return render(request, "dataset.html", dataset=dataset, builds=rows, more=len(builds) - len(rows))
