"""Promote and roll back: which committed build of a dataset readers get.

Gates or a person promote a build; ``rollback`` goes back to an earlier one.

Only ``rollback`` moves the logical date (the day a scheduled build is for) backwards: a late backfill is approved, but
not promoted. A rolled-back build is promoted again only with ``again`` or ``undo``, so a scheduler that retries after a
crash does not undo a person's decision. Each change is one conditional write of ``latest.json``
(``generator.datasets.promotion.state``): a crash before the write changes nothing, a crash after it loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from generator.datasets.builds import LATEST_KEY, build_store, is_committed, list_builds
from generator.datasets.promotion.state import (
    MAX_HISTORY,
    Actor,
    DatasetState,
    Promotion,
    UtcDatetime,
    check_committed,
    read_state,
    update_state,
)
from generator.errors import BuildConflict, DatasetError
from generator.spec.canonical import FrozenModel, read_json, validate
from generator.spec.recipe import BuildId
from generator.store import pointers
from generator.store.base import Store

APPROVAL_KEY = "reports/promotion.json"
MAX_APPROVAL_BYTES = 64 * 1024

Outcome = Literal["moved", "already", "older", "withdrawn"]


@dataclass(frozen=True)
class PromotionResult:
    """The outcome of a promotion, and the state of the dataset after it.

    ``moved``: readers get the build from now on; ``already``: they got it before; ``older``: not promoted, the current
    build has a later logical date; ``withdrawn``: not promoted, a person rolled the build back.
    """

    outcome: Outcome
    state: DatasetState

    @property
    def is_current(self) -> bool:
        """Whether readers get the build."""
        return self.outcome in ("moved", "already")


class Approval(FrozenModel):
    """The content of ``reports/promotion.json``: the build was approved, whether or not ``latest.json`` was changed."""

    build: BuildId
    logical_date: UtcDatetime | None = None
    by: Actor
    at: UtcDatetime


def promote(
    store: Store,
    build_id: str,
    *,
    logical_date: datetime | None,
    by: str,
    again: bool = False,
    at: datetime | None = None,
) -> PromotionResult:
    """Promote the committed build ``build_id`` of the dataset ``store`` (``<destination>/<name>``).

    ``logical_date`` (timezone-aware): the date the build is for; default: the date of its last approval, else the date
    of the build it replaces. ``again``: promote even if the build was rolled back. ``by``: who promotes. ``at``: the
    time; default: now. Promoting twice changes nothing. Raises ``DatasetError`` if the build is not committed or is
    being deleted, and ``StoreError``; then nothing has changed.
    """
    build = build_store(store, build_id)
    check_committed(store, read_state(store) or DatasetState(), build_id)
    promotion = _write_approval(
        build, Promotion(build=build_id, logical_date=logical_date, by=by, at=at or datetime.now(UTC))
    )
    outcome: Outcome = "moved"

    def decide(state: DatasetState | None) -> DatasetState | None:
        nonlocal outcome
        state = state or DatasetState()
        check_committed(store, state, build_id)
        if any(_is_same(promotion, each) for each in (state.current, *state.previous)):
            return None  # our own write succeeded, but its response was lost
        outcome = _decide_outcome(state, promotion, again=again)
        return _with_promotion(state, promotion) if outcome == "moved" else _with_date(state, promotion, outcome)

    updated = update_state(store, decide)
    assert updated is not None
    return PromotionResult(outcome, updated)


def rollback(
    store: Store, *, by: str, to: str | None = None, undo: bool = False, at: datetime | None = None
) -> DatasetState:
    """Go back to the build promoted before the current one, or to the build ``to``. Returns the new state.

    Builds that were deleted are skipped. ``undo``: revert the last rollback instead; ``to`` is then the build that it
    must bring back. Both keep the whole history. Raises ``DatasetError`` if there is no build to go to,
    ``BuildConflict`` if ``latest.json`` was changed concurrently: two concurrent rollbacks go back one step, not two.
    """
    at, initial = at or datetime.now(UTC), read_state(store)

    def decide(state: DatasetState | None) -> DatasetState | None:
        if state is None or state.current is None:
            raise DatasetError("dataset", "a promoted build to roll back", f"none at {store.url}")
        if (state.current.by, state.current.at) == (by, at):  # our own write succeeded, but its response was lost
            return None
        if initial is None or initial.current != state.current:
            got = f"a concurrent change to build {state.build} by {state.current.by}"
            raise BuildConflict(LATEST_KEY, "no concurrent change", got, "check it again: latentmill promote DATASET")
        return _undo_rollback(store, state, to, by, at) if undo else _roll_back(store, state, to, by, at)

    updated = update_state(store, decide)
    assert updated is not None
    return updated


def read_latest(store: Store) -> Promotion | None:
    """The current promotion of the dataset ``store``; ``None`` if nothing is promoted. Raises ``DatasetError``."""
    state = read_state(store)
    return None if state is None else state.current


def require_promotion(store: Store, *, by: str) -> None:
    """From now on readers of the dataset get promoted builds only. A schedule calls this before its first build.

    Otherwise readers would get the first build, as the only one, even if it fails its gates. If the dataset has exactly
    one committed build now, that build becomes the promoted one, so nothing changes for readers.
    """
    if (state := read_state(store)) is not None and state.by_promotion:
        return
    committed = [build for build in list_builds(store) if is_committed(build_store(store, build))]
    first = Promotion(build=committed[0], by=by, at=datetime.now(UTC)) if len(committed) == 1 else None

    def decide(state: DatasetState | None) -> DatasetState | None:
        state = state or DatasetState()
        if state.current is None:
            state = state.with_current(first, ())
        return state.model_copy(update={"by_promotion": True})

    update_state(store, decide)


def read_approval(build: Store) -> Approval | None:
    """The approval of the build; ``None`` without one. ``build`` is rooted at its prefix. Raises ``DatasetError``."""
    data = pointers.read(build, APPROVAL_KEY, MAX_APPROVAL_BYTES)
    if data is None:
        return None
    field = f"{build.url}/{APPROVAL_KEY}"
    return validate(Approval, read_json(data, field=field, error=DatasetError), field=field, error=DatasetError)


def _write_approval(build: Store, promotion: Promotion) -> Promotion:
    """Write the approval of the build. A promotion without a logical date gets that of the earlier approval."""
    approval = read_approval(build)
    if approval is None or (promotion.logical_date is not None and promotion.logical_date != approval.logical_date):
        build.put(APPROVAL_KEY, Approval.model_validate(promotion.model_dump()).canonical())
        return promotion
    return promotion.model_copy(update={"logical_date": approval.logical_date})


def _is_same(promotion: Promotion, other: Promotion | None) -> bool:
    return other is not None and (other.build, other.by, other.at) == (promotion.build, promotion.by, promotion.at)


def _decide_outcome(state: DatasetState, promotion: Promotion, *, again: bool) -> Outcome:
    if state.build == promotion.build:
        return "already"
    if promotion.build in state.withdrawn and not again:
        return "withdrawn"
    current_date = state.current.logical_date if state.current else None
    if current_date is not None and promotion.logical_date is not None and promotion.logical_date < current_date:
        return "older"
    return "moved"


def _with_promotion(state: DatasetState, promotion: Promotion) -> DatasetState:
    current = state.current
    if promotion.logical_date is None and current is not None:
        # Otherwise a later backfill with an older date would replace this build.
        promotion = promotion.model_copy(update={"logical_date": current.logical_date})
    previous = state.previous if current is None else (current, *state.previous)
    withdrawn = tuple(build for build in state.withdrawn if build != promotion.build)
    return state.with_current(promotion, previous).model_copy(update={"undone": (), "withdrawn": withdrawn})


def _with_date(state: DatasetState, promotion: Promotion, outcome: Outcome) -> DatasetState | None:
    """The state with the logical date of a build that is current without one, or with an earlier one: otherwise a
    backfill of an older date would replace it. ``None`` if nothing changes."""
    current, date = state.current, promotion.logical_date
    if outcome != "already" or current is None or date is None:
        return None
    if current.logical_date is not None and current.logical_date >= date:
        return None
    return state.with_current(current.model_copy(update={"logical_date": date}), state.previous)


def _roll_back(store: Store, state: DatasetState, to: str | None, by: str, at: datetime) -> DatasetState:
    current, previous = state.current, state.previous
    assert current is not None
    available = (i for i, earlier in enumerate(previous) if _is_available(store, state, earlier.build, to))
    if (position := next(available, None)) is not None:
        target, reverted, remaining = previous[position], (current, *previous[:position]), previous[position + 1 :]
    elif to is not None and _is_available(store, state, to, to):
        approval = read_approval(build_store(store, to))
        date = None if approval is None else approval.logical_date
        target, reverted, remaining = Promotion(build=to, logical_date=date, by=by, at=at), (current,), previous
    else:
        expected = "an earlier promoted build that still exists" if to is None else "another committed build"
        raise DatasetError("rollback", expected, to or f"none at {store.url}")
    withdrawn = dict.fromkeys((*(each.build for each in reverted), *state.withdrawn))
    withdrawn.pop(target.build, None)
    undone = ((*reverted,), *state.undone)[:MAX_HISTORY]
    new_state = state.with_current(target.model_copy(update={"by": by, "at": at}), remaining)
    return new_state.model_copy(update={"undone": undone, "withdrawn": tuple(withdrawn)[:MAX_HISTORY]})


def _undo_rollback(store: Store, state: DatasetState, to: str | None, by: str, at: datetime) -> DatasetState:
    if not state.undone:
        raise DatasetError("rollback", "a rollback since the last promotion", f"no such rollback at {store.url}")
    step, *remaining = state.undone
    if to is not None and step[0].build != to:
        raise BuildConflict(LATEST_KEY, f"a last rollback that took back {to}", f"one that took back {step[0].build}")
    if not _is_available(store, state, step[0].build, None):
        raise DatasetError("rollback", "a build that still exists", f"{step[0].build}, which was deleted")
    assert state.current is not None
    previous = (*step[1:], state.current, *state.previous)
    withdrawn = tuple(build for build in state.withdrawn if build not in {each.build for each in step})
    new_state = state.with_current(step[0].model_copy(update={"by": by, "at": at}), previous)
    return new_state.model_copy(update={"undone": tuple(remaining), "withdrawn": withdrawn})


def _is_available(store: Store, state: DatasetState, build_id: str, to: str | None) -> bool:
    if build_id == state.build or (to is not None and build_id != to) or build_id in state.being_deleted:
        return False
    return is_committed(build_store(store, build_id))
