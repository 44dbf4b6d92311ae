"""Which builds can be compared: those of a dataset, and of the other datasets at the places of the tenant."""

from __future__ import annotations

from typing import NamedTuple

from generator.datasets.builds import build_store, list_builds
from generator.datasets.promotion import DatasetState, read_state
from generator.errors import LatentmillError
from generator.production.provenance.manifest import MANIFEST_KEY
from workers.server.context import ServerContext
from workers.server.listing import find_datasets
from workers.server.readers import find_readers

_MAX_BUILDS = 200  # of a dataset that are looked at


class BuildChoice(NamedTuple):
    """A build in a list to choose from. ``value``: its id, or ``place/name/id`` where it is of another dataset."""

    value: str
    text: str


def list_choices(context: ServerContext, tenant: str, dataset: str, *, page_of: str) -> list[BuildChoice]:
    """The committed builds of ``dataset``, the newest first, for the page of the dataset ``page_of``.

    Raises ``SpecError``, ``AccessRefused``, ``DatasetError``, ``StoreError``.
    """
    store = context.dataset(tenant, dataset)
    infos = [(build, build_store(store, build).head(MANIFEST_KEY)) for build in list_builds(store)[:_MAX_BUILDS]]
    found = sorted(((info.modified, build) for build, info in infos if info is not None), reverse=True)
    state = read_state(store) or DatasetState(by_promotion=False)
    readers = find_readers(store, state, [build for _, build in found])
    return [
        BuildChoice(
            value=build if dataset == page_of else f"{dataset}/{build}",
            text=f"{moment:%Y-%m-%d %H:%M} UTC, {build}" + (", what readers get" if build == readers.build else ""),
        )
        for moment, build in found
    ]


def other_datasets(context: ServerContext, tenant: str, dataset: str) -> list[str]:
    """``dataset``, then the other datasets of the tenant; it alone where there are too many to look for."""
    try:
        return [dataset, *(name for name in find_datasets(context, tenant) if name != dataset)]
    except LatentmillError:
        return [dataset]
