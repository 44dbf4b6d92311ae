"""Which build readers of a dataset get by its name alone, and when they must name one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from generator.datasets.builds import build_store, is_committed, list_builds
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import LatentmillError
from generator.store.base import Store
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.jobs import JobView

_LOOKED_AT = 50  # builds of a dataset without a promoted one: of more, those that are not finished count too


class Readers(NamedTuple):
    """Which build readers of the dataset get: ``build``, empty if none; ``builds``: how many the dataset has, where
    none is promoted; ``promote``: the address of a form's action."""

    dataset: str
    build: str
    is_current: bool
    builds: int
    promote: str


def readers_of(context: ServerContext, caller: Caller, view: JobView) -> Readers | None:
    """What readers of the job's dataset get, once it is committed; ``None`` where that cannot be told."""
    if view.dataset is None or view.state != "committed":
        return None
    try:
        store = context.dataset(caller.tenant, view.dataset)
        state = read_state(store) or DatasetState(by_promotion=False)
        committed = [] if state.build else _committed(store)
    except LatentmillError:
        return None
    only = committed[0] if len(committed) == 1 and not state.by_promotion else ""
    build = state.build or only
    may_promote = caller.may("operator") and build != view.build and view.build not in state.being_deleted
    address = f"/datasets/{quote(view.dataset)}/builds/{quote(view.build)}/promote" if may_promote else ""
    return Readers(view.dataset, build, build == view.build, len(committed), address)


def warning_of_draft(context: ServerContext, caller: Caller, draft: Mapping[str, Any]) -> str:
    """What a job of this draft would mean for readers, if it adds a build to a dataset of which none is promoted."""
    dataset = f"{draft.get('destination', '')}/{draft.get('name', '')}"
    try:
        store = context.dataset(caller.tenant, dataset)
        state, builds = read_state(store), len(list_builds(store))
    except LatentmillError:  # said when the job is submitted
        return ""
    if not builds or (state is not None and state.build):
        return ""
    number = "a build" if builds == 1 else f"{builds:,} builds"
    return (
        f"{dataset} already has {number}, and none is promoted: with another one, "
        "readers will have to name a build until one is promoted."
    )


def _committed(dataset: Store) -> list[str]:
    builds = list_builds(dataset)
    return [each for each in builds if len(builds) > _LOOKED_AT or is_committed(build_store(dataset, each))]
