"""What readers of a dataset get by its name alone: as ``open_dataset`` finds it, for routes and pages alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from generator.datasets.builds import build_store, is_committed, list_builds
from generator.datasets.promotion import DatasetState
from generator.store.base import Store

_LOOKED_AT = 50  # builds of a dataset without a promoted one: of more, those that are not finished count too


class Readers(NamedTuple):
    """``build``: the id of what readers get; empty if they must name a build. ``is_promoted``: it was promoted; else it
    is the only one. ``builds``: how many the dataset has, where none is promoted; 0 where one is."""

    build: str
    is_promoted: bool
    builds: int

    def got_by_promotion(self, build: str) -> bool:
        """Whether readers get ``build`` because it was promoted, so that promoting it would change nothing."""
        return self.is_promoted and self.build == build


def find_readers(dataset: Store, state: DatasetState, committed: Sequence[str] | None = None) -> Readers:
    """What readers of ``dataset`` get. ``state``: that of the dataset, ``by_promotion=False`` where it has none;
    ``committed``: the ids of its committed builds, if they are known. Raises ``StoreError``."""
    if state.build:
        return Readers(state.build, True, 0)
    found = _committed(dataset) if committed is None else committed
    return Readers(found[0] if len(found) == 1 and not state.by_promotion else "", False, len(found))


def _committed(dataset: Store) -> list[str]:
    builds = list_builds(dataset)
    return [each for each in builds if len(builds) > _LOOKED_AT or is_committed(build_store(dataset, each))]
