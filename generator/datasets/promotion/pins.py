"""Pins: builds that retention must not delete, until they are unpinned."""

from __future__ import annotations

from datetime import UTC, datetime

from generator.datasets.promotion.state import DatasetState, Pin, check_committed, update_state
from generator.errors import DatasetError
from generator.spec.canonical import validate
from generator.store.base import Store


def pin(store: Store, build_id: str, *, by: str, note: str = "", at: datetime | None = None) -> DatasetState:
    """Protect the committed build from retention until ``unpin``. Raises ``DatasetError`` as ``promote`` does."""
    new_pin = Pin(build=build_id, by=by, at=at or datetime.now(UTC), note=note)

    def decide(state: DatasetState | None) -> DatasetState | None:
        state = state or DatasetState(by_promotion=False)
        check_committed(store, state, build_id)
        if build_id in state.pinned:
            return None
        pins = validate(DatasetState, {"pins": (*state.pins, new_pin)}, field="pin", error=DatasetError).pins
        return state.model_copy(update={"pins": pins})

    updated = update_state(store, decide)
    assert updated is not None
    return updated


def unpin(store: Store, build_id: str) -> DatasetState | None:
    """Remove the pin of the build. Returns the new state; ``None`` if the dataset has no ``latest.json``."""

    def decide(state: DatasetState | None) -> DatasetState | None:
        if state is None or build_id not in state.pinned:
            return None
        return state.model_copy(update={"pins": tuple(each for each in state.pins if each.build != build_id)})

    return update_state(store, decide)
