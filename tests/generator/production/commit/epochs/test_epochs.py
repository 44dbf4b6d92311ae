"""Environment epochs on every store: which worker may write, concurrent opening, and damaged documents."""

from __future__ import annotations

import threading

import pytest

from generator.errors import DatasetError, EnvironmentMismatch, IntegrityError, SpecError
from generator.production.commit import BuildLocation, current_epoch, open_epoch, read_environments, read_receipt
from generator.production.commit.epochs import MAX_EPOCHS, EpochOpening, environment_key, epoch_key, fix_environment
from generator.production.provenance.environment import Environment
from generator.store import Store
from tests.support.epochs import NEW, OLD, OTHER, EpochWorker, on_every_store


def test_the_first_worker_fixes_the_environment_and_others_are_refused(location: BuildLocation) -> None:
    assert fix_environment(location.store, OLD).number == 0
    with pytest.raises(EnvironmentMismatch, match="cpu/old"):
        fix_environment(location.store, NEW)


@on_every_store
def test_a_new_epoch_is_for_anybody_but_the_environment_that_was_left(location: BuildLocation) -> None:
    assert open_epoch(location.store) == 1
    with pytest.raises(EnvironmentMismatch, match="epoch 1 of this build replaces"):
        fix_environment(location.store, OLD)
    assert fix_environment(location.store, NEW).number == 1
    assert fix_environment(location.store, NEW).number == 1
    for stranger in (OLD, OTHER):
        with pytest.raises(EnvironmentMismatch, match="epoch 1"):
            fix_environment(location.store, stranger)
    assert set(read_environments(location.store)) == {OLD.digest, NEW.digest}


def test_an_environment_may_come_back_in_a_later_epoch(moved: BuildLocation) -> None:
    assert open_epoch(moved.store) == 2
    assert fix_environment(moved.store, OLD).number == 2
    assert current_epoch(moved.store).environment == OLD


def test_opening_an_epoch_that_nobody_has_begun_changes_nothing(store: Store, location: BuildLocation) -> None:
    assert open_epoch(store.at("fresh")) == 0
    assert [open_epoch(location.store) for _ in range(3)] == [1, 1, 1]


def test_the_last_epoch_is_refused_with_a_hint(location: BuildLocation) -> None:
    last = MAX_EPOCHS - 1
    location.store.create(epoch_key(last), EpochOpening(epoch=last, leaves=OLD.digest).canonical())
    location.store.create(environment_key(last), NEW.canonical())
    with pytest.raises(SpecError, match="revision"):
        open_epoch(location.store)


@on_every_store
@pytest.mark.parametrize("environments", [(NEW, OTHER), (NEW, NEW)], ids=["differing", "equal"])
def test_epochs_opened_and_fixed_at_once_are_one(
    location: BuildLocation, environments: tuple[Environment, ...]
) -> None:
    together, opened, fixed = threading.Barrier(2), list[int](), list[Environment | None]()

    def resume(environment: Environment) -> None:
        together.wait()
        opened.append(open_epoch(location.store))
        together.wait()
        try:
            fixed.append(fix_environment(location.store, environment).environment)
        except EnvironmentMismatch:
            fixed.append(None)

    threads = [threading.Thread(target=resume, args=(environment,)) for environment in environments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1, 1]
    assert current_epoch(location.store).environment in fixed
    assert fixed.count(None) == len(set(map(str, environments))) - 1


@on_every_store
def test_shards_without_a_receipt_are_made_in_the_new_epoch(old: EpochWorker, new: EpochWorker) -> None:
    location = old.location
    old.publish(0)
    open_epoch(location.store)
    fix_environment(location.store, NEW)
    new.publish(1)
    new.publish(2)
    assert [read_receipt(location, number).environment for number in range(3)] == [OLD.digest, NEW.digest, NEW.digest]


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[]", b'{"dtype":1}'])
def test_damaged_epoch_documents_are_typed_errors(location: BuildLocation, content: bytes) -> None:
    open_epoch(location.store)
    location.store.put(environment_key(1), content)
    with pytest.raises(DatasetError, match=r"environments/001\.json"):
        fix_environment(location.store, NEW)
    location.store.delete(environment_key(1))
    location.store.put(epoch_key(1), content)
    with pytest.raises(DatasetError, match=r"epochs/001\.json"):
        fix_environment(location.store, NEW)
    location.store.put(environment_key(0), b"x" * 100_000)
    with pytest.raises(IntegrityError, match=r"environment\.json"):
        read_environments(location.store)
