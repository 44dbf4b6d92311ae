"""Finds the datasets at the places of a tenant: folders with builds, a few levels deep."""

from __future__ import annotations

from collections.abc import Iterator

from generator.datasets.builds import LATEST_KEY
from generator.errors import SpecError
from generator.store import open_store
from generator.store.base import Store
from workers.server.context import ServerContext

MAX_DEPTH = 4
MAX_FOLDERS = 5000  # that one listing looks into
BUILDS_FOLDER = "builds"


def find_datasets(context: ServerContext, tenant: str, place: str | None = None) -> list[str]:
    """The names (``place/…/name``) of the tenant's datasets, ascending; ``place`` keeps those at or below it.

    Raises ``SpecError`` if there are too many folders to look into, ``AccessRefused`` for another tenant's place.
    """
    if place is None:
        starts = sorted(context.places.places(tenant).items())
    else:
        starts = [(place, context.places.destination(tenant, place))]
    left = [MAX_FOLDERS]
    found = {
        each for name, url in starts for each in _walk(open_store(url, context.settings.s3), name, MAX_DEPTH, left)
    }
    return sorted(found)


def _walk(store: Store, name: str, depth: int, left: list[int]) -> Iterator[str]:
    left[0] -= 1
    if left[0] < 0:
        raise SpecError("place", f"a place with at most {MAX_FOLDERS} folders", "more", "name one below it")
    children = list(store.children())
    if BUILDS_FOLDER in children or store.head(LATEST_KEY) is not None:
        yield name
    elif depth > 0:
        for child in children:
            yield from _walk(store.at(child), f"{name}/{child}", depth - 1, left)
