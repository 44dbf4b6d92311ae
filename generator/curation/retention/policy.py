"""Retention: which builds of a dataset stay. Whole builds are deleted, manifest first, so that readers see all or none.

Never deleted: the build that readers get, the one that ``rollback`` would go to, pinned ones, those that are not
finished, and those of an open job. What is to go is first noted in ``latest.json``, by the same conditional write that
promotes and pins; so nothing is promoted while it is deleted, and what is interrupted is finished by the next one.
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
from generator.production.provenance.manifest import MANIFEST_KEY, RECIPE_KEY
from generator.spec.canonical import FrozenModel
from generator.store.base import ObjectInfo, Store
from generator.store.partial_writes import prune_directories

_READ_THREADS = 16
_BATCH = 100  # builds that are noted for deletion in one go
_CHECK_EVERY = 100  # objects of a build that are removed between two looks at its marker
_WANTED_INTENTS = ("open", "paused", "unknown")
_UNCOMMITTED_PREFIXES = ("reports/", "runs/")  # of the commit: no sign that somebody makes the build again
# Receipts first: a build that is taken up again meanwhile makes those shards anew, and adopts what is still there.
_DELETE_ORDER = ("receipts/", "shards/", "samples/", "")


class Retention(FrozenModel):
    """What stays: the ``last`` builds, the last of each of so many ``weeks`` (ISO, from Monday) and ``months``.

    ``null`` weeks or months are all of them. Counted are weeks and months in which there is a build, in UTC, by logical
    date. Builds that gates kept back stay as long as they are among the ``last`` by date, and take nobody's place.
    """

    last: int = Field(default=7, ge=1, le=100_000, strict=True)
    weeks: int | None = Field(default=5, ge=0, le=100_000, strict=True)
    months: int | None = Field(default=12, ge=0, le=100_000, strict=True)


@dataclass(frozen=True)
class CommittedBuild:
    """A committed build: what it is for (or when it was committed), and what stands in the way of deleting it.

    ``previous``: the one that ``rollback`` would go to. ``refused``: its gates kept it back, and nobody promoted it.
    """

    build: str
    date: datetime  # timezone-aware
    latest: bool = False
    previous: bool = False
    pinned: bool = False
    refused: bool = False


@dataclass(frozen=True)
class RetentionPlan:
    """The builds that stay, each with the reasons, and those that go; the newest first."""

    keep: tuple[tuple[CommittedBuild, tuple[str, ...]], ...]
    delete: tuple[CommittedBuild, ...]


@dataclass(frozen=True)
class RetentionResult:
    """What was deleted: builds (those of an earlier, interrupted retention too) and objects. ``wanted``: builds that
    were to go, and that somebody is making again."""

    deleted: tuple[str, ...]
    objects: int
    wanted: tuple[str, ...]


def plan_retention(held: Iterable[CommittedBuild], retention: Retention) -> RetentionPlan:
    """Which of the builds ``held`` stay. A pure function: the same builds give the same plan, in whatever order."""
    newest = sorted(held, key=lambda each: (each.date, each.build), reverse=True)
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
    """The committed builds of the dataset ``store``, but those that are being deleted.

    Raises ``DatasetError`` where ``latest.json`` is damaged, or names a build that is not there: nothing should be
    deleted beside a pointer that is wrong.
    """
    standing = read_state(store) or DatasetState(by_promotion=False)
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [each for each in pool.map(lambda name: _read_build(store, name, standing), list_builds(store)) if each]
    there = {each.build for each in found} - standing.being_deleted
    back = next((each.build for each in standing.previous if each.build in there - {standing.build}), None)
    if standing.build is not None and standing.build not in {each.build for each in found}:
        got = f"build {standing.build}, which {store.url} does not hold"
        raise DatasetError(LATEST_KEY, "the id of a committed build", got, "promote another build first")
    return tuple(replace(each, previous=each.build == back) for each in found if each.build in there)


def apply_retention(
    store: Store, plan: RetentionPlan, *, intents: Intents = lambda _: None, at: datetime | None = None
) -> RetentionResult:
    """Delete the builds that ``plan`` has no reason to keep, and what an earlier retention did not get done.

    ``intents``: what the marker of a build id says; builds that are open or paused (or of which nobody knows) stay.
    Raises ``BuildConflict`` before anything happens where ``plan`` would delete the build that readers get, or a
    pinned one; ``StoreError`` in the middle, and then the next call goes on.
    """
    at, waiting = at or datetime.now(UTC), [each.build for each in plan.delete]
    _check_deletable(read_state(store), waiting)
    deleted, wanted, objects = list[str](), list[str](), 0
    first = True
    while waiting or first:
        for each in _mark_retiring(store, waiting[:_BATCH], at).retiring:
            removed = _delete_build(build_store(store, each.build), each, intents)
            (wanted if removed is None else deleted).append(each.build)
            objects += removed or 0
            update_state(store, lambda standing, done=each: _without_retiring(standing, done))  # type: ignore[misc]
        waiting, first = waiting[_BATCH:], False
    return RetentionResult(tuple(deleted), objects, tuple(wanted))


def enforce_retention(
    store: Store, retention: Retention, *, intents: Intents = lambda _: None
) -> tuple[RetentionPlan, RetentionResult]:
    """Look, plan and delete: what a schedule calls once its build is promoted."""
    plan = plan_retention(read_committed_builds(store), retention)
    return plan, apply_retention(store, plan, intents=intents)


def _read_build(store: Store, name: str, standing: DatasetState) -> CommittedBuild | None:
    build = build_store(store, name)
    if (info := build.head(MANIFEST_KEY)) is None:
        return None
    approval = read_approval(build)
    verdict = None if approval is not None and approval.logical_date is not None else read_verdict(build)
    dated = next((each.logical_date for each in (approval, verdict) if each and each.logical_date), None)
    return CommittedBuild(
        build=name,
        date=(dated or info.modified).astimezone(UTC),
        latest=name == standing.build,
        pinned=name in standing.pinned,
        refused=approval is None and verdict is not None and not verdict.holds,
    )


def _last_of_each(
    newest: list[CommittedBuild], span: Callable[[datetime], tuple[int, ...]], count: int | None
) -> set[str]:
    first = dict[tuple[int, ...], str]()
    for each in newest:
        first.setdefault(span(each.date.astimezone(UTC)), each.build)
    return set(islice(first.values(), count))


def _check_deletable(standing: DatasetState | None, builds: Iterable[str]) -> None:
    if standing is None:
        return
    for build in builds:
        if build == standing.build or build in standing.pinned:
            what = "the build that readers get" if build == standing.build else "a pinned build"
            hint = "plan again: it was promoted or pinned since"
            raise BuildConflict("retention", "builds that nobody needs", f"{build}, {what}", hint)


def _mark_retiring(store: Store, builds: list[str], at: datetime) -> DatasetState:
    def decide(standing: DatasetState | None) -> DatasetState | None:
        standing = standing or DatasetState(by_promotion=False)
        _check_deletable(standing, builds)
        known = {each.build for each in standing.retiring}
        fresh = tuple(Retiring(build=build, at=at) for build in builds if build not in known)
        return standing.model_copy(update={"retiring": (*standing.retiring, *fresh)}) if fresh else None

    return update_state(store, decide) or DatasetState(by_promotion=False)


def _without_retiring(standing: DatasetState | None, done: Retiring) -> DatasetState | None:
    if standing is None or done not in standing.retiring:
        return None
    return standing.model_copy(update={"retiring": tuple(each for each in standing.retiring if each != done)})


def _delete_build(build: Store, retiring: Retiring, intents: Intents) -> int | None:
    """The objects removed; ``None`` where somebody makes the build again, which was not there when it was noted."""
    if _is_wanted(build, retiring, intents):
        return None
    build.delete(MANIFEST_KEY)
    removed = 1
    for key in _deletable_keys(build, retiring):
        if removed % _CHECK_EVERY == 0 and _is_wanted(build, retiring, intents):
            return None
        build.delete(key)
        removed += 1
    prune_directories(build)
    return removed


def _is_wanted(build: Store, retiring: Retiring, intents: Intents) -> bool:
    again = build.head(MANIFEST_KEY)
    return (again is not None and again.modified > retiring.at) or intents(retiring.build) in _WANTED_INTENTS


def _deletable_keys(build: Store, retiring: Retiring) -> Iterator[str]:
    """What was there when the build was noted, the recipe last: until then a sweep finds the rest."""

    def goes(info: ObjectInfo) -> bool:
        return info.modified <= retiring.at or info.key.startswith(_UNCOMMITTED_PREFIXES)

    for folder in _DELETE_ORDER:
        yield from (info.key for info in build.list(folder) if goes(info) and info.key != RECIPE_KEY)
    if all(goes(info) for info in build.list()):
        yield RECIPE_KEY
