"""The state of a dataset (``latest.json``): its current, previous, pinned and retiring builds.

One object holds all decisions about a dataset. Each decision is one conditional write, so no two can contradict each
other: a build that is being deleted cannot be promoted or pinned, and a promoted or pinned build cannot be deleted.
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
    """One promotion: the build, its logical date (``None``: not given), who promoted it and when."""

    build: BuildId
    logical_date: UtcDatetime | None = None
    by: Actor
    at: UtcDatetime


class Pin(FrozenModel):
    """A build that retention never deletes. ``note``: the reason."""

    build: BuildId
    by: Actor
    at: UtcDatetime
    note: str = Field(default="", max_length=500)


class Retiring(FrozenModel):
    """A build that is being deleted, and since when. Newer objects belong to a job that rebuilds it."""

    build: BuildId
    at: UtcDatetime


class DatasetState(FrozenModel):
    """The content of ``latest.json``. ``build`` repeats ``current.build``, for readers.

    ``previous``: earlier promotions, newest first. ``undone``: the promotions that each rollback since the last
    promotion reverted, last rollback first. ``withdrawn``: rolled-back builds, which only a person promotes again.
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
        """The ids of the pinned builds."""
        return frozenset(pin.build for pin in self.pins)

    @property
    def being_deleted(self) -> frozenset[str]:
        """The ids of the builds that are being deleted."""
        return frozenset(each.build for each in self.retiring)

    def with_current(self, to: Promotion | None, previous: tuple[Promotion, ...]) -> DatasetState:
        """A copy with ``to`` as the current promotion and ``previous`` as the earlier ones."""
        build = None if to is None else to.build
        return self.model_copy(update={"build": build, "current": to, "previous": previous[:MAX_HISTORY]})


def read_state(store: Store) -> DatasetState | None:
    """The state of the dataset ``store``; ``None`` without ``latest.json``. Raises ``DatasetError``."""
    return _parse_state(store, pointers.read(store, LATEST_KEY, MAX_LATEST_BYTES))


def update_state(store: Store, decide: Callable[[DatasetState | None], DatasetState | None]) -> DatasetState | None:
    """Change ``latest.json`` by compare-and-swap. Returns the state after it.

    ``decide`` maps the current state to the new one, or returns ``None`` to change nothing; it may be called several
    times. Raises ``DatasetError`` if ``latest.json`` is invalid, ``StoreError``, and whatever ``decide`` raises.
    """

    def updated_bytes(data: bytes | None) -> bytes | None:
        new_state = decide(_parse_state(store, data))
        if new_state is None:
            return None
        field = f"{store.url}/{LATEST_KEY}"  # a state that could not be read again must not be written
        return validate(DatasetState, new_state.model_dump(), field=field, error=DatasetError).canonical()

    return _parse_state(store, pointers.move(store, LATEST_KEY, updated_bytes, MAX_LATEST_BYTES))


def check_committed(store: Store, state: DatasetState, build_id: str) -> None:
    """Raise ``DatasetError`` unless the build is committed and not being deleted.

    Call this after reading ``state``: a concurrent deletion changes ``latest.json`` first, so our conditional write
    fails.
    """
    if build_id in state.being_deleted:
        raise _not_committed_error(store, build_id, "a build that retention is deleting")
    if not is_committed(build_store(store, build_id)):
        raise _not_committed_error(store, build_id)


def _parse_state(store: Store, data: bytes | None) -> DatasetState | None:
    """Parse ``latest.json``. If another tool wrote it (no ``latest_version``), only its ``build`` is used."""
    if data is None:
        return None
    field = f"{store.url}/{LATEST_KEY}"
    document = read_json(data, field=field, error=DatasetError)
    if isinstance(document, dict) and "latest_version" not in document:
        build = document.get("build")
        document = {"build": build, "current": {"build": build, "by": "unknown", "at": _UNKNOWN_DATE}}
    return validate(DatasetState, document, field=field, error=DatasetError)


def _not_committed_error(store: Store, build_id: str, got: str = "which is not committed") -> DatasetError:
    ready = [build for build in list_builds(store) if is_committed(build_store(store, build))]
    hint = f"committed builds: {', '.join(ready[:10])}" if ready else "wait for the job to end"
    return DatasetError("build", f"a committed build of {store.url}", f"{build_id}, {got}", hint)
