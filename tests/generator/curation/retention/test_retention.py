"""Retention: plans over a year of nightly builds, and interrupted or concurrent deletion of whole builds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator.curation.gates import Gates, Verdict
from generator.curation.gates.verdict import VERDICT_KEY
from generator.curation.retention import (
    CommittedBuild,
    Retention,
    RetentionPlan,
    apply_retention,
    enforce_retention,
    plan_retention,
    read_committed_builds,
)
from generator.datasets.builds import LATEST_KEY, build_store, is_committed, list_builds
from generator.datasets.promotion import DatasetState, pin, promote, read_state, rollback
from generator.datasets.promotion.state import MAX_PINS, Retiring, update_state
from generator.errors import BuildConflict, DatasetError, SpecError
from generator.spec.canonical import validate
from generator.store import open_store
from generator.store.base import Store
from tests.support.faulty_store import FaultyStore, Killed
from tests.support.small_builds import SmallBuild

NEW_YEAR = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
FILES = ("recipe.json", "shards/x-000000.tar", "samples/x-000000.parquet", "receipts/000000.json", "manifest.json")


def name(number: int) -> str:
    return f"{number:020x}"


@st.composite
def years(draw: st.DrawFn) -> tuple[list[CommittedBuild], Retention]:
    """Builds on some nights of 400 days, several on some nights, in any order."""
    nights = draw(st.lists(st.integers(0, 400), max_size=60))
    flags = st.builds(dict, pinned=st.booleans(), refused=st.booleans())
    builds = [
        CommittedBuild(name(number), NEW_YEAR + timedelta(days=night, hours=draw(st.integers(0, 20))), **draw(flags))
        for number, night in enumerate(nights)
    ]
    if builds:
        chosen = draw(st.integers(0, len(builds) - 1))
        builds[chosen] = CommittedBuild(
            builds[chosen].build, builds[chosen].date, latest=True, pinned=builds[chosen].pinned
        )
        other = draw(st.integers(0, len(builds) - 1))
        if other != chosen:
            builds[other] = CommittedBuild(builds[other].build, builds[other].date, previous=True)
    retention = Retention(
        last=draw(st.integers(1, 10)),
        weeks=draw(st.none() | st.integers(0, 60)),
        months=draw(st.none() | st.integers(0, 14)),
    )
    return builds, retention


@pytest.mark.slow
@settings(max_examples=150)
@given(years(), st.randoms())
def test_what_must_stay_is_never_planned_for_deletion(
    case: tuple[list[CommittedBuild], Retention], shuffle: object
) -> None:
    builds, retention = case
    plan = plan_retention(builds, retention)
    gone, kept = {each.build for each in plan.delete}, {each.build: why for each, why in plan.keep}
    assert gone | set(kept) == {each.build for each in builds}
    assert not gone & set(kept)
    assert all(kept.values())
    assert not [each for each in builds if each.build in gone and (each.latest or each.previous or each.pinned)]
    good = sorted((each for each in builds if not each.refused), key=lambda each: (each.date, each.build))
    assert not gone & {each.build for each in good[-retention.last :]}
    for spans, count in ((_weeks(good), retention.weeks), (_months(good), retention.months)):
        chosen = sorted(spans)[-count:] if count else (sorted(spans) if count is None else [])
        assert not gone & {spans[span] for span in chosen}
    assert len(plan.keep) <= len(builds)
    shuffle.shuffle(builds)  # type: ignore[attr-defined]
    assert plan_retention(builds, retention) == plan


def _weeks(good: list[CommittedBuild]) -> dict[tuple[int, int], str]:
    return {each.date.isocalendar()[:2]: each.build for each in good}


def _months(good: list[CommittedBuild]) -> dict[tuple[int, int], str]:
    return {(each.date.year, each.date.month): each.build for each in good}


@settings(max_examples=50)
@given(years())
def test_a_plan_is_stable_once_carried_out(case: tuple[list[CommittedBuild], Retention]) -> None:
    builds, retention = case
    kept = [each for each, _ in plan_retention(builds, retention).keep]
    again = plan_retention(kept, retention)
    refused = {each.build for each in kept if each.refused}  # these were among the last before others were deleted
    assert {each.build for each in again.delete} <= refused


def test_a_year_of_nights_night_by_night() -> None:
    """The plan is applied every night; after a year the result is that of one plan over the whole year."""
    retention, builds = Retention(last=7, weeks=5, months=12), list[CommittedBuild]()
    for night in range(365):
        builds = [CommittedBuild(each.build, each.date, pinned=each.pinned) for each in builds]
        builds.append(CommittedBuild(name(night), NEW_YEAR + timedelta(days=night), latest=True, pinned=night == 3))
        builds = [each for each, _ in plan_retention(builds, retention).keep]
    days = {each.date.date() for each in builds}
    newest = date(2026, 12, 31)
    assert {newest - timedelta(days=back) for back in range(7)} <= days
    assert {date(2026, 12, 27), date(2026, 12, 20), date(2026, 12, 13), date(2026, 12, 6)} <= days  # Sundays
    assert {date(2026, month + 1, 1) - timedelta(days=1) for month in range(1, 12)} <= days
    assert date(2026, 1, 4) in days
    assert (
        len(builds) == 7 + 3 + 11 + 1
    )  # December 27 is among the last seven; the last days of January to November; the pin


def test_nights_that_gates_kept_back_push_nothing_good_out() -> None:
    good = [CommittedBuild(name(night), NEW_YEAR + timedelta(days=night)) for night in range(7)]
    bad = [CommittedBuild(name(night), NEW_YEAR + timedelta(days=night), refused=True) for night in range(7, 30)]
    plan = plan_retention(good + bad, Retention(last=7, weeks=0, months=0))
    assert {each.build for each, _ in plan.keep} == {each.build for each in good + bad[-7:]}


@pytest.mark.parametrize("wrong", [{"last": 0}, {"weeks": -1}, {"months": 1.5}, {"days": 3}])
def test_a_rule_that_would_keep_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        validate(Retention, wrong, field="retention", error=SpecError)


@pytest.fixture
def dataset() -> Store:
    """Thirty nightly builds of five objects each, promoted in turn."""
    store = open_store(f"memory://nights-{uuid.uuid4().hex}/nightly")
    for night in range(30):
        make(store, night)
        promote(store, name(night), logical_date=NEW_YEAR + timedelta(days=night), by="test")
    return store


def make(store: Store, night: int) -> None:
    for key in FILES:
        build_store(store, name(night)).put(key, b"{}")


def committed(store: Store) -> set[int]:
    return {int(build, 16) for build in list_builds(store) if is_committed(build_store(store, build))}


def objects(store: Store) -> Iterator[str]:
    return (info.key for info in store.list("builds/"))


RULE = Retention(last=3, weeks=1, months=0)


def test_whole_builds_go_and_nothing_else(dataset: Store) -> None:
    pin(dataset, name(4), by="person")
    plan, done = enforce_retention(dataset, RULE)
    assert committed(dataset) == {4, 27, 28, 29}
    assert set(done.deleted) == {each.build for each in plan.delete}
    assert done.objects == 26 * (len(FILES) + 1)
    assert {key.split("/")[1] for key in objects(dataset)} == {name(night) for night in committed(dataset)}
    state = read_state(dataset)
    assert state is not None
    assert state.retiring == ()
    assert enforce_retention(dataset, RULE)[1].deleted == ()


def test_rollback_has_somewhere_to_go_after_retention(dataset: Store) -> None:
    enforce_retention(dataset, Retention(last=1, weeks=0, months=0))
    assert committed(dataset) == {28, 29}
    assert rollback(dataset, by="person").build == name(28)
    enforce_retention(dataset, Retention(last=1, weeks=0, months=0))
    assert committed(dataset) == {28, 29}  # the last build by date and the build that readers get are kept


def test_the_manifest_goes_first_and_the_recipe_last(dataset: Store) -> None:
    whole = {info.key for info in build_store(dataset, name(0)).list()}
    plan, seen = only(dataset, 0), list[int]()
    for writes in range(1, len(whole) + 2):
        fresh = copy_of(dataset)
        with pytest.raises(Killed):
            apply_retention(FaultyStore(fresh, writes), plan)
        left = {info.key for info in build_store(fresh, name(0)).list()}
        assert left == whole or "manifest.json" not in left
        assert "recipe.json" in left or not left
        seen.append(len(left))
    assert seen == list(range(len(whole), -1, -1))


def copy_of(dataset: Store) -> Store:
    fresh = open_store(f"memory://nights-{uuid.uuid4().hex}/nightly")
    for info in dataset.list():
        fresh.create(info.key, dataset.get(info.key))
    return fresh


def only(dataset: Store, *nights: int) -> RetentionPlan:
    builds = {each.build: each for each in read_committed_builds(dataset)}
    return RetentionPlan((), tuple(builds[name(night)] for night in nights if name(night) in builds))


@pytest.mark.parametrize("writes", range(1, 22, 3))
def test_an_interrupted_deletion_is_finished_by_the_next(dataset: Store, writes: int) -> None:
    with pytest.raises(Killed):
        apply_retention(FaultyStore(dataset, writes), only(dataset, 0, 1, 2))
    before = read_state(dataset)
    assert before is not None
    assert before.being_deleted
    for build in before.being_deleted:
        with pytest.raises(DatasetError, match="committed"):
            promote(dataset, build, logical_date=NEW_YEAR + timedelta(days=99), by="test")
        with pytest.raises(DatasetError, match="committed"):
            pin(dataset, build, by="test")
    done = apply_retention(dataset, RetentionPlan((), ()))
    assert set(done.deleted) == before.being_deleted
    assert {key.split("/")[1] for key in objects(dataset)} == {name(night) for night in range(3, 30)}


def test_latest_and_pins_are_refused_before_anything_happens(dataset: Store) -> None:
    plan = only(dataset, 0, 1)
    pin(dataset, name(1), by="person")
    before = sorted(objects(dataset))
    with pytest.raises(BuildConflict, match="pinned"):
        apply_retention(dataset, plan)
    with pytest.raises(BuildConflict, match="readers"):
        apply_retention(dataset, only(dataset, 0, 29))
    assert sorted(objects(dataset)) == before
    assert read_state(dataset).retiring == ()  # type: ignore[union-attr]


def test_a_promotion_meanwhile_wins_over_the_plan(dataset: Store) -> None:
    plan = only(dataset, 0)
    rollback(dataset, by="person", to=name(0))
    with pytest.raises(BuildConflict, match="readers"):
        apply_retention(dataset, plan)
    assert 0 in committed(dataset)


def test_nothing_is_deleted_beside_a_pointer_that_is_wrong(dataset: Store) -> None:
    build_store(dataset, name(29)).delete("manifest.json")
    with pytest.raises(DatasetError, match=LATEST_KEY):
        enforce_retention(dataset, RULE)
    dataset.put(LATEST_KEY, b"not json")
    with pytest.raises(DatasetError, match=LATEST_KEY):
        enforce_retention(dataset, RULE)
    assert committed(dataset) == set(range(29))


def test_unfinished_builds_and_those_of_open_jobs_stay(dataset: Store) -> None:
    build_store(dataset, name(99)).create("recipe.json", b"{}")
    done = enforce_retention(dataset, RULE, intents=lambda build: "open" if build == name(5) else None)[1]
    assert committed(dataset) == {5, 27, 28, 29}
    assert done.wanted == (name(5),)
    assert build_store(dataset, name(99)).head("recipe.json") is not None
    state = read_state(dataset)
    assert state is not None
    assert state.retiring == ()


def test_a_build_that_is_made_again_while_it_is_deleted_is_let_be(dataset: Store) -> None:
    with pytest.raises(Killed):
        apply_retention(FaultyStore(dataset, 4), only(dataset, 0))
    make(dataset, 0)
    done = apply_retention(dataset, RetentionPlan((), ()))
    assert done.wanted == (name(0),)
    assert 0 in committed(dataset)
    assert {info.key for info in build_store(dataset, name(0)).list()} >= set(FILES)


def test_objects_removed_before_a_build_is_wanted_again_are_counted(dataset: Store) -> None:
    build = build_store(dataset, name(0))
    for number in range(150):  # its marker is looked at again after a hundred objects
        build.put(f"shards/x-{number:06d}.tar", b"{}")
    before, answers = len(list(build.list())), iter([None, "open"])
    done = apply_retention(dataset, only(dataset, 0), intents=lambda _: next(answers))
    assert (done.deleted, done.wanted) == ((), (name(0),))
    assert done.objects == before - len(list(build.list())) == 100


def test_a_state_that_could_not_be_read_again_is_not_written(dataset: Store) -> None:
    before = read_state(dataset)
    many = tuple(Retiring(build=name(number), at=NEW_YEAR) for number in range(MAX_PINS + 1))
    with pytest.raises(DatasetError, match="retiring"):
        update_state(dataset, lambda state: state and state.model_copy(update={"retiring": many}))
    assert read_state(dataset) == before


def test_a_dataset_that_nobody_promotes_is_thinned_out_by_the_time_of_its_builds(tmp_path: Path) -> None:
    ids = [SmallBuild(seed=seed, counts=(2, 2)).commit(str(tmp_path))[1].build_id for seed in range(3)]
    dataset = open_store(f"{tmp_path}/small")
    plan, done = enforce_retention(dataset, Retention(last=2, weeks=0, months=0))
    assert len(done.deleted) == 1
    assert {each.build for each, _ in plan.keep} == set(ids) - set(done.deleted)
    assert (read_state(dataset) or DatasetState()).build is None


def test_what_gates_said_counts_in_the_date_and_the_place(dataset: Store) -> None:
    make(dataset, 40)
    verdict = Verdict(
        dataset=dataset.url,
        build=name(40),
        logical_date=NEW_YEAR + timedelta(days=2),
        against=None,
        holds=False,
        reasons=("drift: too much",),
        checks=(),
        looked_at=0,
        gates=Gates(),
        judged=NEW_YEAR,
    )
    build_store(dataset, name(40)).put(VERDICT_KEY, verdict.model_dump_json().encode())
    builds = {each.build: each for each in read_committed_builds(dataset)}
    assert (builds[name(40)].refused, builds[name(40)].date) == (True, NEW_YEAR + timedelta(days=2))
    assert name(40) in {each.build for each in plan_retention(builds.values(), RULE).delete}
