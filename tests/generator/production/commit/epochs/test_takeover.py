"""Takeover of shards in a new epoch, on every store: late writers harm nothing, and takeovers end."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import replace

import pytest

from generator.errors import BuildConflict, EnvironmentMismatch, IntegrityError, ObjectMissing
from generator.production.commit import (
    BuildLocation,
    begin_build,
    finished_shards,
    is_shard_finished,
    open_epoch,
    publish_shard,
    read_receipt,
)
from generator.production.commit.epochs import fix_environment
from generator.production.commit.takeover import RESERVATION_BYTES, Reservation, take_over
from generator.production.provenance.manifest import StoredFile, receipt_key
from generator.spec.canonical import digest_of
from generator.store import Store
from tests.support.epochs import NEW, OLD, OTHER, EpochWorker, InterruptedStore, is_whole, on_every_store
from tests.support.small_builds import SmallBuild

half_made = pytest.mark.parametrize("half", [True], ids=["archive left"])
half_or_not = pytest.mark.parametrize("half", [False, True], ids=["nothing left", "archive left"])


@on_every_store
def test_what_a_dead_worker_left_is_a_conflict_in_its_own_epoch_and_replaced_in_the_next(
    old: EpochWorker, new: EpochWorker
) -> None:
    location = old.location
    old.write_without_receipt(1)
    with pytest.raises(BuildConflict, match="deterministic"):
        replace(old, mark=b"random").publish(1)
    open_epoch(location.store)
    fix_environment(location.store, NEW)
    assert new.publish(1) == new.make_shard(1).receipt
    assert is_whole(location, 1)
    assert new.publish(1) == new.make_shard(1).receipt


@half_made
def test_equal_bytes_of_a_dead_worker_are_adopted_under_the_new_environment(
    old: EpochWorker, moved: BuildLocation
) -> None:
    twin = replace(old, environment=NEW)
    assert twin.publish(1).environment == NEW.digest
    assert is_whole(moved, 1)


@on_every_store
def test_a_late_receipt_of_the_old_epoch_counts_and_ends_the_new_ones_attempt(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation
) -> None:
    old.publish(1)  # it was being written when the epoch was opened
    assert new.publish(1) == old.make_shard(1).receipt
    assert is_whole(moved, 1)
    assert finished_shards(moved) == {1}


@on_every_store
def test_a_late_worker_of_the_old_epoch_changes_nothing_after_the_receipt(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation
) -> None:
    new.publish(1)
    assert old.publish(1) == new.make_shard(1).receipt  # the shard was finished by another worker
    assert is_whole(moved, 1)


@on_every_store
def test_a_late_worker_of_the_old_epoch_stops_before_the_receipt(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation
) -> None:
    new.write_without_receipt(1)
    with pytest.raises(EnvironmentMismatch, match="later epoch"):
        old.publish(1)
    assert new.publish(1) == new.make_shard(1).receipt
    assert is_whole(moved, 1)


@pytest.mark.parametrize("step", range(1, 8))
@half_or_not
def test_a_whole_old_worker_between_any_two_writes_of_a_new_one(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation, step: int
) -> None:
    """Whatever the order, the shard ends with one receipt, whose digests are those of the stored bytes."""

    def zombie() -> None:
        with suppress(EnvironmentMismatch):
            old.publish(1)

    new_location = replace(moved, store=InterruptedStore(moved.store, step, zombie))
    stored = publish_shard(new_location, new.make_shard(1))
    assert stored == read_receipt(moved, 1)
    assert is_whole(moved, 1)


@pytest.mark.parametrize("step", range(1, 4))
@half_or_not
def test_a_whole_new_worker_between_any_two_writes_of_an_old_one(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation, step: int
) -> None:
    old_location = replace(moved, store=InterruptedStore(moved.store, step, lambda: new.publish(1) and None))
    try:
        publish_shard(old_location, old.make_shard(1))
    except EnvironmentMismatch:
        new.publish(1)
    assert is_whole(moved, 1)
    assert new.publish(1) == read_receipt(moved, 1)


@pytest.mark.parametrize("step", range(1, 8))
@half_made
def test_two_workers_of_the_new_epoch_take_over_together(new: EpochWorker, moved: BuildLocation, step: int) -> None:
    other = replace(moved, store=InterruptedStore(moved.store, step, lambda: new.publish(1) and None))
    assert publish_shard(other, new.make_shard(1)) == new.make_shard(1).receipt
    assert is_whole(moved, 1)


@on_every_store
@half_made
def test_a_reserved_shard_is_not_finished_and_its_environment_may_go_on(
    old: EpochWorker, new: EpochWorker, moved: BuildLocation
) -> None:
    moved.store.create(receipt_key(1), Reservation(environment=NEW.digest).canonical())
    assert not is_shard_finished(moved, 1)
    assert finished_shards(moved) == set()
    with pytest.raises(ObjectMissing, match="reservation"):
        read_receipt(moved, 1)
    with pytest.raises(EnvironmentMismatch):
        old.publish(1)
    new.publish(1)
    assert is_shard_finished(moved, 1)
    assert is_whole(moved, 1)


@half_made
def test_a_reservation_of_another_environment_is_left_to_a_person(new: EpochWorker, moved: BuildLocation) -> None:
    third = EpochWorker(moved, OTHER, mark=b"third")
    moved.store.create(receipt_key(1), Reservation(environment=NEW.digest).canonical())
    open_epoch(moved.store)
    fix_environment(moved.store, OTHER)
    with pytest.raises(BuildConflict, match=r"delete receipts/000001\.json") as refused:
        third.publish(1)
    for key in (receipt_key(1), new.make_shard(1).receipt.shard.key, new.make_shard(1).receipt.table.key):
        assert key in refused.value.hint
        moved.store.delete(key)
    third.publish(1)
    assert is_whole(moved, 1)


def test_every_receipt_is_larger_than_a_reservation(old: EpochWorker) -> None:
    receipt = old.make_shard(0).receipt
    key = StoredFile(key="k", digest=digest_of(b""), size=0)
    least = receipt.model_copy(update={"shard": key, "table": key, "samples": 0, "counts": (0,), "refused": 0})
    assert len(least.canonical()) > RESERVATION_BYTES
    assert len(Reservation(environment=NEW.digest).canonical()) == RESERVATION_BYTES


def test_a_receipt_under_another_number_is_no_receipt(old: EpochWorker) -> None:
    old.location.store.create(receipt_key(2), old.make_shard(1).receipt.canonical())
    with pytest.raises(IntegrityError, match="000002"):
        read_receipt(old.location, 2)


def test_alternating_takeovers_end_in_a_typed_error(old: EpochWorker, new: EpochWorker) -> None:
    location = old.location
    made = new.make_shard(1)

    class EverChangingStore(InterruptedStore):
        def replace(self, key: str, data: bytes, etag: str) -> str:
            self._store.put(key, secrets.token_bytes(8))
            return self._store.replace(key, data, etag)

    old.write_without_receipt(1)
    files = {made.receipt.shard.key: made.archive}
    with pytest.raises(Exception, match="no other writer changes"):
        take_over(EverChangingStore(location.store, 0, lambda: None), made.receipt, files)


def test_sidecars_that_a_dead_worker_left_are_replaced_in_the_next_epoch(store: Store) -> None:
    small = SmallBuild(sidecars=("dali",))
    spec = small.spec("memory://unused")
    location = BuildLocation(store.at("small"), "small", spec.recipe, spec.recipe.canonical())
    begin_build(location)
    fix_environment(location.store, OLD)
    dead = EpochWorker(location, OLD, build=small).make_shard(1)
    for key, data in dead.files.items():
        store.at("small").create(key, data)
    open_epoch(location.store)
    fix_environment(location.store, NEW)
    new = EpochWorker(location, NEW, mark=b"n", build=small)
    assert new.publish(1) == new.make_shard(1).receipt
    assert is_whole(location, 1)
    assert len(read_receipt(location, 1).sidecars) == 1
