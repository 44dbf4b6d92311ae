"""Pins: builds that retention leaves alone, for as long as somebody wants them."""

from __future__ import annotations

from datetime import UTC, datetime

from generator.datasets.promotion.state import DatasetState, Pin, check_committed, update_state
from generator.errors import DatasetError
from generator.spec.canonical import validate
from generator.store.base import Store


def pin(store: Store, build_id: str, *, by: str, note: str = "", at: datetime | None = None) -> DatasetState:
    """Keep the committed build from retention, until ``unpin``. Raises ``DatasetError`` as ``promote`` does."""
    fresh = Pin(build=build_id, by=by, at=at or datetime.now(UTC), note=note)

    def decide(standing: DatasetState | None) -> DatasetState | None:
        standing = standing or DatasetState(by_promotion=False)
        check_committed(store, standing, build_id)
        if build_id in standing.pinned:
            return None
        pins = validate(DatasetState, {"pins": (*standing.pins, fresh)}, field="pin", error=DatasetError).pins
        return standing.model_copy(update={"pins": pins})

    found = update_state(store, decide)
    assert found is not None
    return found


def unpin(store: Store, build_id: str) -> DatasetState | None:
    """Let retention decide about the build again; how things stand then, ``None`` where nothing was ever pinned."""

    def decide(standing: DatasetState | None) -> DatasetState | None:
        if standing is None or build_id not in standing.pinned:
            return None
        return standing.model_copy(update={"pins": tuple(each for each in standing.pins if each.build != build_id)})

    return update_state(store, decide)
