"""Promotion: which committed build of a dataset readers get.

It moves forward by gates or by hand, and back by ``rollback``.

A logical date (the day a scheduled build is for) never goes backwards but by ``rollback``: a late backfill is noted
and stays behind. What a rollback took back comes again only by hand or by ``undo``, so that a scheduler that repeats
itself after a crash does not undo what a person decided. Every move is one conditional write of ``latest.json``
(``generator.datasets.promotion.state``): a crash before it changes nothing, a crash after it loses nothing.
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
    """What became of a promotion. ``moved``: readers get the build now; ``already``: they did before.

    ``older``: it stays behind a build of a later logical date; ``withdrawn``: a person rolled it back.
    """

    outcome: Outcome
    state: DatasetState

    @property
    def is_current(self) -> bool:
        """Whether readers get the build."""
        return self.outcome in ("moved", "already")


class Approval(FrozenModel):
    """``reports/promotion.json`` of a build: that it was found worth promoting, whether or not ``latest`` moved."""

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
    """Let readers of the dataset ``store`` (``<destination>/<name>``) get the committed build ``build_id``.

    ``logical_date`` (timezone-aware): what the build is for; without one it is the build's own of an earlier promotion,
    or else that of the build it follows. ``again``: also where it was rolled back. ``by``: who wants it. ``at``: now.
    Promoting twice changes nothing. Raises ``DatasetError`` for a build that is not committed, or that is being
    deleted; ``StoreError``. Nothing has moved then.
    """
    build = build_store(store, build_id)
    check_committed(store, read_state(store) or DatasetState(), build_id)
    wanted = _write_approval(
        build, Promotion(build=build_id, logical_date=logical_date, by=by, at=at or datetime.now(UTC))
    )
    outcome: Outcome = "moved"

    def decide(standing: DatasetState | None) -> DatasetState | None:
        nonlocal outcome
        standing = standing or DatasetState()
        check_committed(store, standing, build_id)
        if any(_is_same(wanted, each) for each in (standing.current, *standing.previous)):
            return None  # our own write, whose answer was lost
        outcome = _decide_outcome(standing, wanted, again=again)
        return _with_promotion(standing, wanted) if outcome == "moved" else None

    found = update_state(store, decide)
    assert found is not None
    return PromotionResult(outcome, found)


def rollback(
    store: Store, *, by: str, to: str | None = None, undo: bool = False, at: datetime | None = None
) -> DatasetState:
    """Let readers get the build that was promoted before, or ``to``, one of those before it; how things stand then.

    Builds that are no longer there are passed over. ``undo``: take back the last rollback instead. Nothing of the
    history is lost by either. Raises ``DatasetError`` where there is nothing to go to, ``BuildConflict`` where somebody
    else has moved ``latest`` meanwhile: two that roll back at once go back one step, not two.
    """
    at, first = at or datetime.now(UTC), read_state(store)

    def decide(standing: DatasetState | None) -> DatasetState | None:
        if standing is None or standing.current is None:
            raise DatasetError("dataset", "a promoted build to roll back", f"none at {store.url}")
        if (standing.current.by, standing.current.at) == (by, at):  # our own write, whose answer was lost
            return None
        if first is None or first.current != standing.current:
            got = f"a move to build {standing.build} by {standing.current.by} in between"
            raise BuildConflict(LATEST_KEY, "nobody else to move it", got, "look again: latentmill promote DATASET")
        return _undo_rollback(store, standing, by, at) if undo else _roll_back(store, standing, to, by, at)

    found = update_state(store, decide)
    assert found is not None
    return found


def read_latest(store: Store) -> Promotion | None:
    """The promotion that readers of the dataset ``store`` follow; ``None`` where there is none. ``DatasetError``."""
    standing = read_state(store)
    return None if standing is None else standing.current


def require_promotion(store: Store, *, by: str) -> None:
    """From now on readers of the dataset get promoted builds only: a schedule calls this before its first build.

    Else the first build of all would be theirs as the only one there is, gates or not. Where readers get the only
    build of a dataset now, that one counts as promoted, so that nothing changes for them.
    """
    if (standing := read_state(store)) is not None and standing.by_promotion:
        return
    ready = [build for build in list_builds(store) if is_committed(build_store(store, build))]
    first = Promotion(build=ready[0], by=by, at=datetime.now(UTC)) if len(ready) == 1 else None

    def decide(standing: DatasetState | None) -> DatasetState | None:
        standing = standing or DatasetState()
        if standing.current is None:
            standing = standing.with_current(first, ())
        return standing.model_copy(update={"by_promotion": True})

    update_state(store, decide)


def read_approval(build: Store) -> Approval | None:
    """Whether the build whose prefix ``build`` is seen from was ever found worth promoting. Raises ``DatasetError``."""
    data = pointers.read(build, APPROVAL_KEY, MAX_APPROVAL_BYTES)
    if data is None:
        return None
    field = f"{build.url}/{APPROVAL_KEY}"
    return validate(Approval, read_json(data, field=field, error=DatasetError), field=field, error=DatasetError)


def _write_approval(build: Store, wanted: Promotion) -> Promotion:
    """Note beside the build what it is for; the promotion with the date that was noted before, if it has none."""
    noted = read_approval(build)
    if noted is None or (wanted.logical_date is not None and wanted.logical_date != noted.logical_date):
        build.put(APPROVAL_KEY, Approval.model_validate(wanted.model_dump()).canonical())
        return wanted
    return wanted.model_copy(update={"logical_date": noted.logical_date})


def _is_same(wanted: Promotion, held: Promotion | None) -> bool:
    return held is not None and (held.build, held.by, held.at) == (wanted.build, wanted.by, wanted.at)


def _decide_outcome(standing: DatasetState, wanted: Promotion, *, again: bool) -> Outcome:
    if standing.build == wanted.build:
        return "already"
    if wanted.build in standing.withdrawn and not again:
        return "withdrawn"
    now = standing.current.logical_date if standing.current else None
    if now is not None and wanted.logical_date is not None and wanted.logical_date < now:
        return "older"
    return "moved"


def _with_promotion(standing: DatasetState, wanted: Promotion) -> DatasetState:
    current = standing.current
    if wanted.logical_date is None and current is not None:  # or a later backfill would pass it
        wanted = wanted.model_copy(update={"logical_date": current.logical_date})
    previous = standing.previous if current is None else (current, *standing.previous)
    withdrawn = tuple(build for build in standing.withdrawn if build != wanted.build)
    return standing.with_current(wanted, previous).model_copy(update={"undone": (), "withdrawn": withdrawn})


def _roll_back(store: Store, standing: DatasetState, to: str | None, by: str, at: datetime) -> DatasetState:
    current, previous = standing.current, standing.previous
    assert current is not None
    there = (place for place, earlier in enumerate(previous) if _is_available(store, standing, earlier.build, to))
    if (place := next(there, None)) is not None:
        target, passed, left = previous[place], (current, *previous[:place]), previous[place + 1 :]
    elif to is not None and _is_available(store, standing, to, to):
        noted = read_approval(build_store(store, to))
        date = None if noted is None else noted.logical_date
        target, passed, left = Promotion(build=to, logical_date=date, by=by, at=at), (current,), previous
    else:
        expected = "a build that was promoted before and is still there" if to is None else "another committed build"
        raise DatasetError("rollback", expected, to or f"none at {store.url}")
    withdrawn = dict.fromkeys((*(each.build for each in passed), *standing.withdrawn))
    withdrawn.pop(target.build, None)
    undone = ((*passed,), *standing.undone)[:MAX_HISTORY]
    back = standing.with_current(target.model_copy(update={"by": by, "at": at}), left)
    return back.model_copy(update={"undone": undone, "withdrawn": tuple(withdrawn)[:MAX_HISTORY]})


def _undo_rollback(store: Store, standing: DatasetState, by: str, at: datetime) -> DatasetState:
    if not standing.undone:
        raise DatasetError("rollback", "a rollback since the last promotion", f"none at {store.url}")
    step, *left = standing.undone
    if not _is_available(store, standing, step[0].build, None):
        raise DatasetError("rollback", "a build that is still there", f"{step[0].build}, which is gone")
    assert standing.current is not None
    previous = (*step[1:], standing.current, *standing.previous)
    withdrawn = tuple(build for build in standing.withdrawn if build not in {each.build for each in step})
    forward = standing.with_current(step[0].model_copy(update={"by": by, "at": at}), previous)
    return forward.model_copy(update={"undone": tuple(left), "withdrawn": withdrawn})


def _is_available(store: Store, standing: DatasetState, build_id: str, wanted: str | None) -> bool:
    if build_id == standing.build or (wanted is not None and build_id != wanted) or build_id in standing.being_deleted:
        return False
    return is_committed(build_store(store, build_id))
