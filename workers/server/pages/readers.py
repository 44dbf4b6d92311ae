"""What readers get, beside a job and beside the form for new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from generator.datasets.builds import list_builds
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import LatentmillError
from workers.server.callers import Caller
from workers.server.context import ServerContext
from workers.server.jobs import JobView
from workers.server.readers import Readers, find_readers


class JobReaders(NamedTuple):
    """What readers of the dataset of a job get. ``promote``: the address of a form's action; empty where the build of
    the job cannot be promoted."""

    dataset: str
    readers: Readers
    promote: str


def readers_of(context: ServerContext, caller: Caller, view: JobView) -> JobReaders | None:
    """What readers of the job's dataset get, once it is committed; ``None`` where that cannot be told."""
    if view.dataset is None or view.state != "committed":
        return None
    try:
        store = context.dataset(caller.tenant, view.dataset)
        state = read_state(store) or DatasetState(by_promotion=False)
        readers = find_readers(store, state)
    except LatentmillError:
        return None
    is_open = not readers.got_by_promotion(view.build) and view.build not in state.being_deleted
    may_promote = caller.may("operator") and is_open
    address = f"/datasets/{quote(view.dataset)}/builds/{quote(view.build)}/promote" if may_promote else ""
    return JobReaders(view.dataset, readers, address)


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
