"""Two builds beside each other: what is more and what is less, their measures, their recipes and bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from generator.datasets.exploration.columns import Columns
from generator.datasets.exploration.comparison import Comparison, RegionChange, compare, difference_bytes
from generator.datasets.exploration.differences import Difference, find_differences
from generator.datasets.exploration.selection import Selection, select
from generator.datasets.exploration.view import View, parse_view
from generator.errors import DatasetError, LatentmillError, ObjectMissing, SpecError
from generator.models.bundle import bundle_store
from generator.models.bundle.format import MAP_FILE
from generator.models.bundle.load import read_info_bytes
from generator.spec.canonical import read_json, short_repr
from workers.server.builds import CommittedBuild
from workers.server.callers import Caller
from workers.server.columns import Gathering
from workers.server.context import ServerContext, context_of
from workers.server.pages import facets
from workers.server.pages.compare_choice import list_choices, other_datasets
from workers.server.pages.explore import Reader, base_of
from workers.server.pages.rendering import render

_REPORT_KEY, _MAX_REPORT_BYTES = "reports/quality.json", 16 * 2**20
_MAX_CLASSES = 200
_LEFT_OUT = ("history",)  # of a bundle's training: one record an epoch

router = APIRouter(include_in_schema=False)


@router.get("/datasets/{dataset:path}/compare")
def show_comparison(
    request: Request,
    caller: Reader,
    dataset: str,
    first: str = "",
    second: str = "",
    other: Annotated[str, Query(max_length=1000)] = "",
    choose: bool = False,
) -> Response:
    """Two builds; ``first`` and ``second`` are ids of builds of the dataset, or ``place/name/id`` of another one.

    Without both, or to ``choose``: the form that chooses them. ``other``: the dataset of the second.
    """
    context = context_of(request)
    is_of_another = bool(other) and _split(dataset, second)[0] != other  # a dataset was chosen, and no build of it yet
    if choose or is_of_another or not first or not second:
        return _choice(request, context, caller, dataset, first, second, other)
    names = [_split(dataset, each) for each in (first, second)]
    builds = [context.build(caller.tenant, *name) for name in names]
    common = tuple(name for name in builds[0].manifest.classes if name in set(builds[1].manifest.classes))
    view = parse_view(request.query_params.multi_items(), common)
    columns = [context.columns.find(build) for build in builds]
    waiting = [each for each in columns if isinstance(each, Gathering)]
    values: dict[str, Any] = {
        "dataset": dataset,
        "builds": builds,
        "first": first,
        "second": second,
    }
    if waiting:
        return render(request, "compare_gathering.html", waiting=waiting, **values)
    selections = [select(each, view) for each in columns if isinstance(each, Columns)]
    found = compare(selections[0], selections[1], same_map=_same_map(context, builds))
    bases = [base_of(*name) for name in names]
    return render(
        request,
        "compare.html",
        **values,
        **_comparison_values(found, bases, view, selections),
        common=common[:_MAX_CLASSES],
        view=view,
        bases=bases,
        recipes=find_differences(*(build.manifest.recipe for build in builds)),
        reports=_report_differences(builds),
        bundles=_bundle_differences(context, builds),
        map_query=urlencode([("first", first), ("second", second), *view.query()]),
    )


@router.get("/datasets/{dataset:path}/compare/map")
def show_difference(request: Request, caller: Reader, dataset: str, first: str, second: str) -> Response:
    """The map of the differences, as ``difference_bytes`` describes it."""
    context = context_of(request)
    builds = [context.build(caller.tenant, *_split(dataset, each)) for each in (first, second)]
    common = tuple(name for name in builds[0].manifest.classes if name in set(builds[1].manifest.classes))
    view = parse_view(request.query_params.multi_items(), common)
    if not _same_map(context, builds):
        raise SpecError(
            "second", "a build with the same map: of the same bundle, or one with its map", short_repr(second)
        )
    data = difference_bytes(*(select(context.columns.get(build), view) for build in builds))
    return Response(data, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def _comparison_values(found: Comparison, bases: list[str], view: View, selections: list[Selection]) -> dict[str, Any]:
    top = max([0.0, *(max(each.first_share, each.second_share) for each in found.classes)])
    return {
        "comparison": found,
        "counts": [each.count for each in selections],
        "top_share": top or 1.0,
        "classes": found.classes[:_MAX_CLASSES],
        "more_classes": len(found.classes) - _MAX_CLASSES,
        "regions": [
            (title, [_region(each, bases, view) for each in changes])
            for title, changes in (("more", found.more), ("less", found.less))
        ],
    }


def _region(change: RegionChange, bases: list[str], view: View) -> dict[str, Any]:
    own = replace(view, region=change.region, page=1)
    return {"change": change.change, "hrefs": [facets.link(base, own) for base in bases]}


def _choice(
    request: Request, context: ServerContext, caller: Caller, dataset: str, first: str, second: str, other: str
) -> Response:
    other = other or _split(dataset, second)[0]
    own = list_choices(context, caller.tenant, dataset, page_of=dataset)
    others = own if other == dataset else list_choices(context, caller.tenant, other, page_of=dataset)
    datasets = other_datasets(context, caller.tenant, dataset)
    first = first or next((each.value for each in own if each.value != second), "")
    values: dict[str, Any] = {
        "dataset": dataset,
        "other": other,
        "datasets": datasets if other in datasets else [*datasets, other],
        "firsts": own,
        "seconds": others,
        "first": first,
        "second": second or next((each.value for each in others if each.value != first), ""),
    }
    return render(request, "compare_choice.html", **values)


def _split(dataset: str, text: str) -> tuple[str, str]:
    """Dataset and build id of ``id`` or ``place/name/id``."""
    other, _, build = text.rpartition("/")
    return other or dataset, build


def _same_map(context: ServerContext, builds: list[CommittedBuild]) -> bool:
    digests = [build.recipe.bundle for build in builds]
    if digests[0] == digests[1]:
        return True
    documents = [_bundle_document(context, digest) for digest in digests]
    maps = [(document or {}).get("files", {}).get(MAP_FILE) for document in documents]
    return maps[0] is not None and maps[0] == maps[1]


def _bundle_differences(context: ServerContext, builds: list[CommittedBuild]) -> list[Difference] | None:
    """``None`` where a bundle is not in the store root."""
    digests = [build.recipe.bundle for build in builds]
    if digests[0] == digests[1]:
        return []
    documents = [_bundle_document(context, digest) for digest in digests]
    return None if None in documents else find_differences(*documents)


def _bundle_document(context: ServerContext, digest: str) -> dict[str, Any] | None:
    try:
        document = read_json(
            read_info_bytes(bundle_store(context.root, digest), digest), field="bundle.json", error=DatasetError
        )
    except LatentmillError:
        return None
    training = document.get("training")
    if isinstance(training, dict):
        document["training"] = {name: value for name, value in training.items() if name not in _LEFT_OUT}
    return dict(document)


def _report_differences(builds: list[CommittedBuild]) -> list[Difference] | None:
    """Where the quality reports differ; ``None`` unless both builds have one."""
    reports = []
    for build in builds:
        try:
            reports.append(json.loads(build.store.get(_REPORT_KEY, _MAX_REPORT_BYTES)))
        except (ObjectMissing, ValueError):
            return None
    return find_differences(*reports)
