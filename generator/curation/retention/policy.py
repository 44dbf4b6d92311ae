"""Retention: which builds of a dataset are kept. Whole builds are deleted, manifest first: readers see all or none.

Never deleted: the build that readers get, the build that ``rollback`` would go to, pinned builds, unfinished builds,
and builds of an open job. Builds are first marked as retiring in ``latest.json``, by the same conditional write that
promotes and pins, so no build is promoted while it is deleted. The next run resumes an interrupted deletion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from pydantic import Field

from generator.curation.gates import read_verdict
from generator.curation.retention.orphans import Intents
from generator.datasets.builds import LATEST_KEY, build_store, list_builds
from generator.datasets.promotion import DatasetState, read_approval, read_state
from generator.datasets.promotion.state import Retiring, update_state
from generator.errors import BuildConflict, DatasetError
from generator.production.provenance.manifest import MANIFEST_KEY, RECIPE_KEY, SEGMENTS_PREFIX
from generator.spec.canonical import FrozenModel
from generator.store.base import ObjectInfo, Store
from generator.store.partial_writes import prune_directories

_READ_THREADS = 16
_BATCH = 100  # builds that are marked as retiring in one write
_CHECK_EVERY = 100  # objects of a build that are removed between two checks of its marker
_WANTED_INTENTS = ("open", "paused", "unknown")
# Not part of the commit: new objects there do not mean that the build is being rebuilt.
_UNCOMMITTED_PREFIXES = ("reports/", "runs/")
# Receipts first, after the segments that copy them: if the build is resumed meanwhile, it makes those shards again and
# adopts the objects still there.
_DELETE_ORDER = (SEGMENTS_PREFIX, "receipts/", "shards/", "samples/", "")


class Retention(FrozenModel):
    """The retention rule: keep the ``last`` builds, and the last build of each of the latest ``weeks`` and ``months``.

    ``null`` means all weeks (ISO, from Monday) or months. Only weeks and months with a build count; dates are logical
    dates in UTC. Builds that failed their gates are kept while they are among the ``last`` builds by date; they do not
    count towards ``last``, ``weeks`` or ``months``.
    """

    last: int = Field(default=7, ge=1, le=100_000, strict=True)
    weeks: int | None = Field(default=5, ge=0, le=100_000, strict=True)
    months: int | None = Field(default=12, ge=0, le=100_000, strict=True)


@dataclass(frozen=True)
class CommittedBuild:
    """A committed build: its logical date (or time of commit), and reasons for or against deleting it.

    ``previous``: the build that ``rollback`` would go to. ``refused``: it failed its gates, and nobody promoted it.
    """

    build: str
    date: datetime  # timezone-aware
    latest: bool = False
    previous: bool = False
    pinned: bool = False
    refused: bool = False


@dataclass(frozen=True)
class RetentionPlan:
    """The builds to keep, each with the reasons, and the builds to delete; newest first."""

    keep: tuple[tuple[CommittedBuild, tuple[str, ...]], ...]
    delete: tuple[CommittedBuild, ...]


@dataclass(frozen=True)
class RetentionResult:
    """The ids of the deleted builds and the number of deleted objects, including those of an interrupted earlier run.

    ``wanted``: builds that were not deleted, because a job is rebuilding them.
    """

    deleted: tuple[str, ...]
    objects: int
    wanted: tuple[str, ...]


def plan_retention(builds: Iterable[CommittedBuild], retention: Retention) -> RetentionPlan:
    """Decide which of ``builds`` to keep. A pure function; the order of ``builds`` does not matter."""
    newest = sorted(builds, key=lambda each: (each.date, each.build), reverse=True)
    counted = [each for each in newest if not each.refused]
    last = {each.build for each in counted[: retention.last]}
    last |= {each.build for each in newest[: retention.last] if each.refused}
    weeks = _last_of_each(counted, lambda date: date.isocalendar()[:2], retention.weeks)
    months = _last_of_each(counted, lambda date: (date.year, date.month), retention.months)
    keep, delete = list[tuple[CommittedBuild, tuple[str, ...]]](), list[CommittedBuild]()
    for each in newest:
        why = {
            "latest": each.latest,
            "rollback goes there": each.previous,
            "pinned": each.pinned,
            f"of the last {retention.last}": each.build in last,
            "last of its week": each.build in weeks,
            "last of its month": each.build in months,
        }
        if any(why.values()):
            keep.append((each, tuple(reason for reason, holds in why.items() if holds)))
        else:
            delete.append(each)
    return RetentionPlan(tuple(keep), tuple(delete))


def read_committed_builds(store: Store) -> tuple[CommittedBuild, ...]:
    """The committed builds of the dataset ``store``, except those that are being deleted.

    Raises ``DatasetError`` if ``latest.json`` is damaged or names a build that is not committed: then nothing may be
    deleted.
    """
    state = read_state(store) or DatasetState(by_promotion=False)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [each for each in pool.map(lambda name: _read_build(store, name, state), list_builds(store)) if each]
    remaining = {each.build for each in found} - state.being_deleted
    rollback_target = next((each.build for each in state.previous if each.build in remaining - {state.build}), None)
    if state.build is not None and state.build not in {each.build for each in found}:
        got = f"build {state.build}, which {store.url} does not hold"
        raise DatasetError(LATEST_KEY, "the id of a committed build", got, "promote another build first")
    return tuple(replace(each, previous=each.build == rollback_target) for each in found if each.build in remaining)


def apply_retention(
    store: Store, plan: RetentionPlan, *, intents: Intents = lambda _: None, at: datetime | None = None
) -> RetentionResult:
    """Delete the builds in ``plan.delete``, and finish deletions that an earlier call did not finish.

    ``intents`` maps a build id to the intent in its marker; builds with intent ``open``, ``paused`` or ``unknown`` are
    kept. Raises ``BuildConflict``, before any deletion, if ``plan`` would delete the build that readers get or a pinned
    build; ``StoreError`` at any point, and the next call resumes.
    """
    at, pending = at or datetime.now(UTC), [each.build for each in plan.delete]
    _check_deletable(read_state(store), pending)
    deleted, wanted, objects = list[str](), list[str](), 0
    first = True
    while pending or first:
        for each in _mark_retiring(store, pending[:_BATCH], at).retiring:
            removed, is_wanted = _delete_build(build_store(store, each.build), each, intents)
            (wanted if is_wanted else deleted).append(each.build)
            objects += removed
            update_state(store, lambda state, done=each: _without_retiring(state, done))  # type: ignore[misc]
        pending, first = pending[_BATCH:], False
    return RetentionResult(tuple(deleted), objects, tuple(wanted))


def enforce_retention(
    store: Store, retention: Retention, *, intents: Intents = lambda _: None
) -> tuple[RetentionPlan, RetentionResult]:
    """Read the builds, plan and delete. A schedule calls this after it promoted its build."""
    plan = plan_retention(read_committed_builds(store), retention)
    return plan, apply_retention(store, plan, intents=intents)


def _read_build(store: Store, name: str, state: DatasetState) -> CommittedBuild | None:
    build = build_store(store, name)
    if (info := build.head(MANIFEST_KEY)) is None:
        return None
    approval = read_approval(build)
    verdict = None if approval is not None and approval.logical_date is not None else read_verdict(build)
    logical_date = next((each.logical_date for each in (approval, verdict) if each and each.logical_date), None)
    return CommittedBuild(
        build=name,
        date=(logical_date or info.modified).astimezone(UTC),
        latest=name == state.build,
        pinned=name in state.pinned,
        refused=approval is None and verdict is not None and not verdict.holds,
    )


def _last_of_each(
    newest: list[CommittedBuild], span: Callable[[datetime], tuple[int, ...]], count: int | None
) -> set[str]:
    first = dict[tuple[int, ...], str]()
    for each in newest:
        first.setdefault(span(each.date.astimezone(UTC)), each.build)
    return set(islice(first.values(), count))


def _check_deletable(state: DatasetState | None, builds: Iterable[str]) -> None:
    if state is None:
        return
    for build in builds:
        if build == state.build or build in state.pinned:
            what = "the build that readers get" if build == state.build else "a pinned build"
            hint = "plan again: the build was promoted or pinned after the plan was made"
            raise BuildConflict("retention", "builds that may be deleted", f"{build}, {what}", hint)


def _mark_retiring(store: Store, builds: list[str], at: datetime) -> DatasetState:
    def decide(state: DatasetState | None) -> DatasetState | None:
        state = state or DatasetState(by_promotion=False)
        _check_deletable(state, builds)
        known = {each.build for each in state.retiring}
        added = tuple(Retiring(build=build, at=at) for build in builds if build not in known)
        return state.model_copy(update={"retiring": (*state.retiring, *added)}) if added else None

    return update_state(store, decide) or DatasetState(by_promotion=False)


def _without_retiring(state: DatasetState | None, done: Retiring) -> DatasetState | None:
    if state is None or done not in state.retiring:
        return None
    return state.model_copy(update={"retiring": tuple(each for each in state.retiring if each != done)})


def _delete_build(build: Store, retiring: Retiring, intents: Intents) -> tuple[int, bool]:
    """How many objects were removed, and whether a job rebuilds the build since it was marked as retiring."""
    if _is_wanted(build, retiring, intents):
        return 0, True
    build.delete(MANIFEST_KEY)
    removed = 1
    for key in _deletable_keys(build, retiring):
        if removed % _CHECK_EVERY == 0 and _is_wanted(build, retiring, intents):
            return removed, True
        build.delete(key)
        removed += 1
    prune_directories(build)
    return removed, False


def _is_wanted(build: Store, retiring: Retiring, intents: Intents) -> bool:
    manifest = build.head(MANIFEST_KEY)
    return (manifest is not None and manifest.modified > retiring.at) or intents(retiring.build) in _WANTED_INTENTS


def _deletable_keys(build: Store, retiring: Retiring) -> Iterator[str]:
    """The keys that existed when the build was marked as retiring; the recipe last, so a sweep can find the rest."""

    def is_deletable(info: ObjectInfo) -> bool:
        return info.modified <= retiring.at or info.key.startswith(_UNCOMMITTED_PREFIXES)

    for folder in _DELETE_ORDER:
        yield from (info.key for info in build.list(folder) if is_deletable(info) and info.key != RECIPE_KEY)
    if all(is_deletable(info) for info in build.list()):
        yield RECIPE_KEY
