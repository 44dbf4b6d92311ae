"""Promotion in every store: concurrency, late backfills, rollbacks, crashes between writes, pins, channels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext as nothing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.curation.retention import Retention, enforce_retention
from generator.datasets.builds import LATEST_KEY, build_store, resolve_build
from generator.datasets.promotion import (
    DatasetState,
    pin,
    promote,
    read_approval,
    read_latest,
    read_state,
    require_promotion,
    rollback,
    unpin,
)
from generator.datasets.promotion.state import update_state
from generator.errors import BuildConflict, BundleError, BundleMissing, DatasetError, SpecError, StoreUnavailable
from generator.models.bundle import push
from generator.models.bundle.channels import (
    load_channel,
    load_channels,
    move_channel,
    read_channel_digest,
    roll_back_channel,
)
from generator.store import open_store
from generator.store.base import Store
from tests.support.bundles import tiny_bundle
from tests.support.faulty_store import FaultyStore, Killed
from tests.support.small_builds import SmallBuild

A, B, C, D = (letter * 20 for letter in "abcd")
MONDAY = datetime(2026, 3, 2, 4, tzinfo=UTC)


def day(number: int) -> datetime:
    return MONDAY + timedelta(days=number)


@pytest.fixture
def dataset(store: Store) -> Store:
    """A dataset with four builds. For promotion, a build needs only a manifest."""
    for build in (A, B, C, D):
        build_store(store, build).create("manifest.json", b"{}")
    return store


def latest(dataset: Store) -> str | None:
    found = read_latest(dataset)
    return None if found is None else found.build


def promote_in_turn(dataset: Store, *builds: str) -> None:
    for number, build in enumerate(builds):
        assert promote(dataset, build, logical_date=day(number), by="test").outcome == "moved"


def run_concurrently(*calls: Callable[[], object]) -> list[object]:
    """Run each call in its own thread, started together. Returns results or exceptions."""
    barrier, found = threading.Barrier(len(calls)), list[object]([None] * len(calls))

    def run(index: int, call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            found[index] = call()
        except Exception as raised:
            found[index] = raised

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_promotion_moves_latest_and_keeps_what_came_before(dataset: Store) -> None:
    assert read_latest(dataset) is None
    promote_in_turn(dataset, A, B)
    state = read_state(dataset)
    assert state is not None
    assert (state.build, state.current and state.current.logical_date) == (B, day(1))
    assert [each.build for each in state.previous] == [A]
    approval = read_approval(build_store(dataset, B))
    assert approval is not None
    assert approval.logical_date == day(1)


def test_promoting_twice_changes_nothing(dataset: Store) -> None:
    promote_in_turn(dataset, A, B)
    before = dataset.get(LATEST_KEY)
    assert promote(dataset, B, logical_date=day(1), by="another").outcome == "already"
    assert dataset.get(LATEST_KEY) == before


def test_a_late_backfill_never_moves_latest_back(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C)
    found = promote(dataset, D, logical_date=day(1), by="backfill")
    assert (found.outcome, found.is_current, latest(dataset)) == ("older", False, C)
    assert read_approval(build_store(dataset, D)) is not None  # it was approved, so retention counts it


def test_a_promotion_without_a_date_does_not_open_the_door_to_backfills(dataset: Store) -> None:
    promote_in_turn(dataset, A, B)
    assert promote(dataset, C, logical_date=None, by="hand").is_current
    assert promote(dataset, D, logical_date=day(0), by="backfill").outcome == "older"
    assert (
        promote(dataset, A, logical_date=None, by="hand").outcome == "older"
    )  # the date of its first promotion is known


def test_a_build_promoted_by_hand_gets_the_date_of_its_night(dataset: Store) -> None:
    assert promote(dataset, B, logical_date=None, by="hand").is_current
    assert promote(dataset, B, logical_date=day(1), by="night").outcome == "already"
    assert promote(dataset, A, logical_date=day(0), by="backfill").outcome == "older"
    assert promote(dataset, B, logical_date=day(0), by="backfill").outcome == "already"
    state = read_state(dataset)
    assert state is not None
    assert (state.build, state.current and state.current.logical_date, state.previous) == (B, day(1), ())


def test_only_committed_builds_are_promoted_and_pinned(dataset: Store) -> None:
    build_store(dataset, "e" * 20).create("recipe.json", b"{}")
    for build in ("e" * 20, "f" * 20):
        with pytest.raises(DatasetError, match="committed"):
            promote(dataset, build, logical_date=day(0), by="test")
        with pytest.raises(DatasetError, match="committed"):
            pin(dataset, build, by="test")
    assert dataset.head(LATEST_KEY) is None


def test_two_promoters_at_once_end_with_the_later_date(dataset: Store) -> None:
    builds = {A: day(0), B: day(1), C: day(2), D: day(3)}
    calls = [
        lambda build=build, date=date: promote(dataset, build, logical_date=date, by=build)
        for build, date in builds.items()
    ]
    found = run_concurrently(*calls, *calls)
    assert not [each for each in found if isinstance(each, Exception)]
    state = read_state(dataset)
    assert state is not None
    assert state.build == D
    dates = [each.logical_date for each in (state.current, *state.previous) if each]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == len({each.build for each in state.previous} | {D})  # no promotion was lost or repeated


def test_rollback_goes_back_step_by_step_and_can_be_undone(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C)
    before = read_state(dataset)
    assert rollback(dataset, by="person").build == B
    assert rollback(dataset, by="person").build == A
    with pytest.raises(DatasetError, match="rollback"):
        rollback(dataset, by="person")
    assert rollback(dataset, by="person", undo=True).build == B
    again = rollback(dataset, by="person", undo=True)
    assert before is not None
    assert (again.build, [each.build for each in again.previous]) == (C, [each.build for each in before.previous])
    assert again.withdrawn == ()
    with pytest.raises(DatasetError, match="rollback"):
        rollback(dataset, by="person", undo=True)


def test_rollback_to_a_named_build_is_undone_in_one_step(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C)
    assert rollback(dataset, by="person", to=A).build == A
    assert rollback(dataset, by="person", undo=True).build == C
    assert rollback(dataset, by="person", to=D).build == D  # never promoted, but committed: a person may choose it
    with pytest.raises(DatasetError, match="rollback"):
        rollback(dataset, by="person", to="f" * 20)


def test_a_rollback_is_undone_only_if_it_is_the_one_that_was_meant(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C)
    rollback(dataset, by="person")
    before = read_state(dataset)
    with pytest.raises(BuildConflict, match=f"took back {A}"):
        rollback(dataset, by="person", undo=True, to=A)
    assert read_state(dataset) == before
    assert rollback(dataset, by="person", undo=True, to=C).build == C


def test_what_was_rolled_back_comes_again_by_hand_only(dataset: Store) -> None:
    promote_in_turn(dataset, A, B)
    rollback(dataset, by="person")
    assert promote(dataset, B, logical_date=day(1), by="a ticker that restarted").outcome == "withdrawn"
    assert latest(dataset) == A
    assert promote(dataset, C, logical_date=day(1), by="a new build of the same date").outcome == "moved"
    rollback(dataset, by="person")
    assert promote(dataset, B, logical_date=None, by="person", again=True).outcome == "moved"


def test_two_that_roll_back_at_once_go_back_one_step(dataset: Store) -> None:
    for _ in range(3):
        promote_all_again(dataset)
        found = run_concurrently(*(lambda name=name: rollback(dataset, by=name) for name in ("one", "two")))
        moved = [each for each in found if isinstance(each, DatasetState)]
        assert all(isinstance(each, BuildConflict) for each in found if not isinstance(each, DatasetState))
        # A rollback after the other has finished goes one step further; a concurrent one is refused.
        assert latest(dataset) == (C, B, A)[len(moved)]


def promote_all_again(dataset: Store) -> None:
    for number, build in enumerate((A, B, C)):
        promote(dataset, build, logical_date=day(number), by="test", again=True)
        if latest(dataset) != build:
            update_state(dataset, lambda _: DatasetState())
            promote_all_again(dataset)


def test_rollback_passes_over_builds_that_are_gone(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C)
    build_store(dataset, B).delete("manifest.json")
    assert rollback(dataset, by="person").build == A


@pytest.mark.parametrize("writes", range(3))
def test_a_promoter_killed_between_any_two_writes_leaves_a_whole_pointer(dataset: Store, writes: int) -> None:
    promote_in_turn(dataset, A)
    with pytest.raises(Killed) if writes < 2 else nothing():
        promote(FaultyStore(dataset, writes), B, logical_date=day(1), by="dies")
    assert latest(dataset) == (B if writes == 2 else A)
    assert promote(dataset, B, logical_date=day(1), by="comes after").is_current
    state = read_state(dataset)
    assert state is not None
    assert (state.build, [each.build for each in state.previous]) == (B, [A])


def test_an_answer_that_was_lost_is_no_second_move(dataset: Store) -> None:
    """The write succeeds, its response is lost, and it is repeated: the store reports a conflict."""
    promote_in_turn(dataset, A, B)
    assert promote(FaultyStore(dataset, repeat=True), C, logical_date=day(2), by="unlucky").outcome == "moved"
    assert rollback(FaultyStore(dataset, repeat=True), by="unlucky").build == B
    state = read_state(dataset)
    assert state is not None
    assert [each.build for each in state.previous] == [A]


@pytest.mark.slow
def test_a_pointer_that_never_holds_still_is_given_up(dataset: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generator.store.pointers.time.sleep", lambda _: None)  # between the attempts
    with pytest.raises(StoreUnavailable, match=r"latest\.json: expected a pointer"):
        promote(FaultyStore(dataset, always_changed=True), A, logical_date=None, by="test")


def test_pins_come_and_go_and_do_not_touch_readers(dataset: Store) -> None:
    for build in (B, C):
        build_store(dataset, build).delete("manifest.json")
    build_store(dataset, D).delete("manifest.json")
    assert pin(dataset, A, by="person", note="the paper").pinned == {A}
    assert pin(dataset, A, by="person").pins[0].note == "the paper"
    state = read_state(dataset)
    assert state is not None
    assert (state.build, state.by_promotion) == (None, False)
    found = unpin(dataset, A)
    assert found is not None
    assert found.pinned == frozenset()


@pytest.mark.parametrize("damage", [b"{", b'{"latest_version":1,"build":"x"}', b'{"latest_version":2,"build":null}'])
def test_a_damaged_pointer_is_refused_and_left_as_it_is(dataset: Store, damage: bytes) -> None:
    dataset.create(LATEST_KEY, damage)
    calls: list[Callable[[], object]] = [
        lambda: promote(dataset, A, logical_date=None, by="test"),
        lambda: rollback(dataset, by="test"),
        lambda: pin(dataset, A, by="test"),
        lambda: read_latest(dataset),
    ]
    for call in calls:
        with pytest.raises(DatasetError, match=LATEST_KEY):
            call()
    assert dataset.get(LATEST_KEY) == damage


def test_a_pointer_written_by_hand_counts(dataset: Store) -> None:
    dataset.create(LATEST_KEY, b'{"build":"%s","note":"by hand"}' % A.encode())
    assert promote(dataset, B, logical_date=day(0), by="test").is_current
    assert rollback(dataset, by="person").build == A


def test_retention_deletes_whole_builds_in_every_store(dataset: Store) -> None:
    promote_in_turn(dataset, A, B, C, D)
    build_store(dataset, A).create("recipe.json", b"{}")
    _, done = enforce_retention(dataset, Retention(last=1, weeks=0, months=0))
    assert sorted(done.deleted) == [A, B]
    assert {info.key.split("/")[1] for info in dataset.list("builds/")} == {C, D}
    assert rollback(dataset, by="person").build == C


def test_readers_get_promoted_builds_only_once_that_is_said(tmp_path: Path) -> None:
    url, dataset = f"{tmp_path}/small", open_store(f"{tmp_path}/small")
    require_promotion(dataset, by="nightly")
    first = SmallBuild().commit(str(tmp_path))[1].build_id
    with pytest.raises(DatasetError, match="promoted"):
        resolve_build(url)
    assert resolve_build(f"{url}/builds/{first}")[1].build_id == first
    promote(dataset, first, logical_date=None, by="test")
    assert resolve_build(url)[1].build_id == first


def test_a_dataset_that_had_one_build_keeps_it_when_promotion_begins(tmp_path: Path) -> None:
    url, dataset = f"{tmp_path}/small", open_store(f"{tmp_path}/small")
    first = SmallBuild().commit(str(tmp_path))[1].build_id
    pin(dataset, first, by="person")
    assert resolve_build(url)[1].build_id == first
    require_promotion(dataset, by="nightly")
    SmallBuild(seed=1).commit(str(tmp_path))
    assert resolve_build(url)[1].build_id == first


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    home = tmp_path_factory.mktemp("bundles")
    return [open_store(str(tiny_bundle(home / str(seed), seed=seed))) for seed in range(3)]


def test_a_channel_moves_with_its_history_and_back(store: Store, bundles: list[Store]) -> None:
    digests = [push(bundle, store) for bundle in bundles]
    for digest in digests:
        assert move_channel(store, "cats", digest, by="test").bundle == digest == read_channel_digest(store, "cats")
    held = store.get("channels/cats.json")
    assert move_channel(store, "cats", digests[2], by="test").bundle == digests[2]
    assert store.get("channels/cats.json") == held
    assert roll_back_channel(store, "cats", by="person").bundle == digests[1]
    found = load_channel(store, "cats")
    assert [each.bundle for each in found.previous] == [digests[2], digests[1], digests[0]]
    assert [each.line for each in load_channels(store)] == ["cats"]


def test_moves_of_a_channel_at_once_all_stand_in_its_history(store: Store, bundles: list[Store]) -> None:
    digests = [push(bundle, store) for bundle in bundles]
    run_concurrently(*(lambda digest=digest: move_channel(store, "cats", digest, by="test") for digest in digests))
    found = load_channel(store, "cats")
    assert {each.bundle for each in (found.current, *found.previous)} == set(digests)


def test_a_channel_leads_to_bundles_that_are_there(store: Store, bundles: list[Store]) -> None:
    digest = push(bundles[0], store)
    with pytest.raises(BundleMissing):
        move_channel(store, "cats", "sha256:" + "0" * 64, by="test")
    with pytest.raises(BundleMissing, match="--channel"):
        read_channel_digest(store, "cats")
    for channel in ("", "Cats", "../cats", "a/b", "c" * 64):
        with pytest.raises(SpecError, match="channel"):
            move_channel(store, channel, digest, by="test")
    move_channel(store, "cats", digest, by="test")
    with pytest.raises(BundleMissing, match="before"):
        roll_back_channel(store, "cats", by="test")
    store.put("channels/dogs.json", store.get("channels/cats.json"))
    with pytest.raises(BundleError, match="channel dogs"):
        read_channel_digest(store, "dogs")
