"""Pins: builds that retention leaves alone, for as long as somebody wants them."""

from __future__ import annotations

from datetime import UTC, datetime

from generator.datasets.promotion.state import Pin, Standing, change_standing, check_there
from generator.errors import DatasetError
from generator.spec.canonical import validated
from generator.store.base import Store


def pin(store: Store, build_id: str, *, by: str, note: str = "", at: datetime | None = None) -> Standing:
    """Keep the committed build from retention, until ``unpin``. Raises ``DatasetError`` as ``promote`` does."""
    fresh = Pin(build=build_id, by=by, at=at or datetime.now(UTC), note=note)

    def decide(standing: Standing | None) -> Standing | None:
        standing = standing or Standing(by_promotion=False)
        check_there(store, standing, build_id)
        if build_id in standing.pinned:
            return None
        pins = validated(Standing, {"pins": (*standing.pins, fresh)}, field="pin", error=DatasetError).pins
        return standing.model_copy(update={"pins": pins})

    found = change_standing(store, decide)
    assert found is not None
    return found


def unpin(store: Store, build_id: str) -> Standing | None:
    """Let retention decide about the build again; how things stand then, ``None`` where nothing was ever pinned."""

    def decide(standing: Standing | None) -> Standing | None:
        if standing is None or build_id not in standing.pinned:
            return None
        return standing.model_copy(update={"pins": tuple(each for each in standing.pins if each.build != build_id)})

    return change_standing(store, decide)
