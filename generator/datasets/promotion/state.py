"""``latest.json`` whole: which build readers get, which ones came before, which are pinned, which are being deleted.

One object holds all decisions about a dataset, so that each is one conditional write and no two can contradict one
another: a build that is being deleted cannot be promoted or pinned, one that is promoted or pinned cannot be deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from generator.datasets.builds import LATEST_KEY, MAX_LATEST_BYTES, build_store, is_committed, list_builds
from generator.errors import DatasetError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.recipe import BuildId
from generator.store import pointers
from generator.store.base import Store

MAX_HISTORY = 100
MAX_PINS = 1000
_UNKNOWN_DATE = "1970-01-01T00:00:00Z"

UtcDatetime = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]
Actor = Annotated[str, Field(min_length=1, max_length=200)]


class Promotion(FrozenModel):
    """One move of ``latest``: to which build, for which logical date (``None``: nobody said), by whom and when."""

    build: BuildId
    logical_date: UtcDatetime | None = None
    by: Actor
    at: UtcDatetime


class Pin(FrozenModel):
    """A build that is never deleted. ``note``: why."""

    build: BuildId
    by: Actor
    at: UtcDatetime
    note: str = Field(default="", max_length=500)


class Retiring(FrozenModel):
    """A build that is being deleted, and since when: what is newer belongs to somebody who makes it again."""

    build: BuildId
    at: UtcDatetime


class DatasetState(FrozenModel):
    """The content of ``latest.json``. ``build`` is that of ``current``, for readers.

    ``previous``: the promotions before, the newest first. ``undone``: what each rollback since the last promotion took
    back, the last one first. ``withdrawn``: builds that a rollback took back, which only a person promotes again.
    ``retiring``: builds that are being deleted. ``by_promotion``: readers get promoted builds only.
    """

    latest_version: Literal[1] = 1
    build: BuildId | None = None
    by_promotion: bool = True
    current: Promotion | None = None
    previous: tuple[Promotion, ...] = Field(default=(), max_length=MAX_HISTORY)
    undone: tuple[tuple[Promotion, ...], ...] = Field(default=(), max_length=MAX_HISTORY)
    withdrawn: tuple[BuildId, ...] = Field(default=(), max_length=MAX_HISTORY)
    pins: tuple[Pin, ...] = Field(default=(), max_length=MAX_PINS)
    retiring: tuple[Retiring, ...] = Field(default=(), max_length=MAX_PINS)

    @property
    def pinned(self) -> frozenset[str]:
        """The builds with a pin."""
        return frozenset(pin.build for pin in self.pins)

    @property
    def being_deleted(self) -> frozenset[str]:
        """The builds that are being deleted."""
        return frozenset(each.build for each in self.retiring)

    def with_current(self, to: Promotion | None, previous: tuple[Promotion, ...]) -> DatasetState:
        """With ``to`` as what readers get, and ``previous`` behind it."""
        build = None if to is None else to.build
        return self.model_copy(update={"build": build, "current": to, "previous": previous[:MAX_HISTORY]})


def read_state(store: Store) -> DatasetState | None:
    """What stands in ``latest.json`` of the dataset ``store``; ``None`` without one. Raises ``DatasetError``."""
    return _parse_state(store, pointers.read(store, LATEST_KEY, MAX_LATEST_BYTES))


def update_state(store: Store, decide: Callable[[DatasetState | None], DatasetState | None]) -> DatasetState | None:
    """Change ``latest.json`` by compare and swap; how it is then. ``decide`` gives ``None`` to leave it as it is.

    Raises ``DatasetError`` for a pointer that is none, ``StoreError``, and whatever ``decide`` raises.
    """

    def decided(data: bytes | None) -> bytes | None:
        wanted = decide(_parse_state(store, data))
        return None if wanted is None else wanted.canonical()

    return _parse_state(store, pointers.move(store, LATEST_KEY, decided, MAX_LATEST_BYTES))


def check_committed(store: Store, standing: DatasetState, build_id: str) -> None:
    """Raise ``DatasetError`` unless the build is committed, and stays.

    Asked after ``standing`` was read: whoever deletes the build notes that there first, and our write then fails.
    """
    if build_id in standing.being_deleted:
        raise _not_committed_error(store, build_id, "one that retention is deleting")
    if not is_committed(build_store(store, build_id)):
        raise _not_committed_error(store, build_id)


def _parse_state(store: Store, data: bytes | None) -> DatasetState | None:
    """Of a pointer that something else wrote, with a ``build`` and fields of its own, the build counts."""
    if data is None:
        return None
    field = f"{store.url}/{LATEST_KEY}"
    document = read_json(data, field=field, error=DatasetError)
    if isinstance(document, dict) and "latest_version" not in document:
        build = document.get("build")
        document = {"build": build, "current": {"build": build, "by": "unknown", "at": _UNKNOWN_DATE}}
    return validate(DatasetState, document, field=field, error=DatasetError)


def _not_committed_error(store: Store, build_id: str, got: str = "one that is not") -> DatasetError:
    ready = [build for build in list_builds(store) if is_committed(build_store(store, build))]
    hint = f"committed ones: {', '.join(ready[:10])}" if ready else "wait for the job to end"
    return DatasetError("build", f"a committed build of {store.url}", f"{build_id}, {got}", hint)
