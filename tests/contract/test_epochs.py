"""Environment epochs on every store: who may write, who wins, and that no late writer harms what is finished."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from generator.canonical import digest_of
from generator.epochs import (
    MAX_EPOCHS,
    Opening,
    current_epoch,
    environment_key,
    environments_of,
    fix_environment,
    open_epoch,
    opening_key,
)
from generator.errors import BuildConflict, DatasetError, EnvironmentMismatch, IntegrityError, ObjectMissing, SpecError
from generator.plan import Plan
from generator.provenance.environment import Environment
from generator.provenance.manifest import Receipt, StoredFile, receipt_key
from generator.publish import (
    BuildPlace,
    MadeShard,
    begin,
    finished_numbers,
    is_finished,
    publish_shard,
    read_receipt,
)
from generator.store import Store, open_store
from generator.store.base import MAX_OBJECT, ObjectInfo
from generator.takeover import RESERVATION_BYTES, Reservation, take_over
from tests.builds import SmallBuild

OLD, NEW, OTHER = (
    Environment(device=device, dtype="float32", libraries={"pillow": "any"}) for device in ("cpu/old", "cuda/new", "x")
)
SMALL = SmallBuild()


@dataclass(frozen=True)
class Writer:
    """A worker of one environment, step by step. ``mark`` is what its environment does to the bytes of a shard."""

    place: BuildPlace
    environment: Environment
    mark: bytes = b""

    def made(self, number: int) -> MadeShard:
        """The shard as this environment makes it; zero bytes after a tar archive belong to no sample."""
        shard = SMALL.shard(self.place, Plan(self.place.recipe).shard(number))
        data = shard.shard + bytes(512 * len(self.mark))
        file = StoredFile(key=shard.receipt.shard.key, digest=digest_of(data), size=len(data))
        receipt = shard.receipt.model_copy(update={"environment": self.environment.digest, "shard": file})
        return MadeShard(data, shard.table, receipt)

    def publish(self, number: int) -> Receipt:
        return publish_shard(self.place, self.made(number))

    def leave_half(self, number: int) -> None:
        """Die between the archive and the receipt."""
        made = self.made(number)
        self.place.store.create(made.receipt.shard.key, made.shard)


@pytest.fixture
def kind() -> str:
    """Where the build lies; the laws that rest on a store's conditional writes are tried on all of them."""
    return "memory"


@pytest.fixture
def store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if kind == "memory":
        return open_store(f"memory://epochs-{uuid.uuid4().hex}")
    if kind == "local":
        return open_store(str(tmp_path))
    return open_store(request.getfixturevalue("bucket"), request.getfixturevalue("s3_settings"))


on_every_store = pytest.mark.parametrize("kind", ["memory", "local", "s3"])


@pytest.fixture
def place(store: Store) -> BuildPlace:
    """A build of three shards that has begun in the environment ``OLD``."""
    spec = SMALL.spec("memory://unused")
    found = BuildPlace(store.at("small"), "small", spec.recipe, spec.recipe.canonical())
    begin(found)
    fix_environment(found.store, OLD)
    return found


@pytest.fixture
def old(place: BuildPlace) -> Writer:
    return Writer(place, OLD)


@pytest.fixture
def new(place: BuildPlace) -> Writer:
    return Writer(place, NEW, mark=b"n")


def is_whole(place: BuildPlace, number: int) -> bool:
    """Whether the receipt's digests are those of the stored bytes."""
    receipt = read_receipt(place, number)
    return all(digest_of(place.store.get(file.key)) == file.digest for file in (receipt.shard, receipt.table))


def test_the_first_worker_fixes_the_environment_and_others_are_refused(place: BuildPlace) -> None:
    assert fix_environment(place.store, OLD).number == 0
    with pytest.raises(EnvironmentMismatch, match="cpu/old"):
        fix_environment(place.store, NEW)


@on_every_store
def test_a_new_epoch_is_for_anybody_but_the_environment_that_was_left(place: BuildPlace) -> None:
    assert open_epoch(place.store) == 1
    with pytest.raises(EnvironmentMismatch, match="opened to leave"):
        fix_environment(place.store, OLD)
    assert fix_environment(place.store, NEW).number == 1
    assert fix_environment(place.store, NEW).number == 1
    for stranger in (OLD, OTHER):
        with pytest.raises(EnvironmentMismatch, match="epoch 1"):
            fix_environment(place.store, stranger)
    assert set(environments_of(place.store)) == {OLD.digest, NEW.digest}


def test_an_environment_may_come_back_in_a_later_epoch(place: BuildPlace) -> None:
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    assert open_epoch(place.store) == 2
    assert fix_environment(place.store, OLD).number == 2
    assert current_epoch(place.store).environment == OLD


def test_opening_an_epoch_that_nobody_has_begun_changes_nothing(store: Store, place: BuildPlace) -> None:
    assert open_epoch(store.at("fresh")) == 0
    assert [open_epoch(place.store) for _ in range(3)] == [1, 1, 1]


def test_the_last_epoch_is_refused_with_a_hint(place: BuildPlace) -> None:
    last = MAX_EPOCHS - 1
    place.store.create(opening_key(last), Opening(epoch=last, leaves=OLD.digest).canonical())
    place.store.create(environment_key(last), NEW.canonical())
    with pytest.raises(SpecError, match="revision"):
        open_epoch(place.store)


@on_every_store
@pytest.mark.parametrize("environments", [(NEW, OTHER), (NEW, NEW)], ids=["differing", "equal"])
def test_epochs_opened_and_fixed_at_once_are_one(place: BuildPlace, environments: tuple[Environment, ...]) -> None:
    together, opened, fixed = threading.Barrier(2), list[int](), list[Environment | None]()

    def resume(environment: Environment) -> None:
        together.wait()
        opened.append(open_epoch(place.store))
        together.wait()
        try:
            fixed.append(fix_environment(place.store, environment).environment)
        except EnvironmentMismatch:
            fixed.append(None)

    threads = [threading.Thread(target=resume, args=(environment,)) for environment in environments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1, 1]
    assert current_epoch(place.store).environment in fixed
    assert fixed.count(None) == len(set(map(str, environments))) - 1


@on_every_store
def test_shards_without_a_receipt_are_made_in_the_new_epoch(old: Writer, new: Writer) -> None:
    place = old.place
    old.publish(0)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    new.publish(1)
    new.publish(2)
    assert [read_receipt(place, number).environment for number in range(3)] == [OLD.digest, NEW.digest, NEW.digest]


@on_every_store
def test_what_a_dead_worker_left_is_a_conflict_in_its_own_epoch_and_replaced_in_the_next(
    old: Writer, new: Writer
) -> None:
    place = old.place
    old.leave_half(1)
    with pytest.raises(BuildConflict, match="deterministic"):
        replace(old, mark=b"random").publish(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    assert new.publish(1) == new.made(1).receipt
    assert is_whole(place, 1)
    assert new.publish(1) == new.made(1).receipt


def test_equal_bytes_of_a_dead_worker_are_adopted_under_the_new_environment(old: Writer) -> None:
    place, twin = old.place, replace(old, environment=NEW)
    old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    assert twin.publish(1).environment == NEW.digest
    assert is_whole(place, 1)


@on_every_store
def test_a_late_receipt_of_the_old_epoch_counts_and_ends_the_new_ones_attempt(old: Writer, new: Writer) -> None:
    place = old.place
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    old.publish(1)  # it was on its way when the epoch was opened
    assert new.publish(1) == old.made(1).receipt
    assert is_whole(place, 1)
    assert finished_numbers(place) == {1}


@on_every_store
def test_a_zombie_of_the_old_epoch_that_comes_after_the_receipt_changes_nothing(old: Writer, new: Writer) -> None:
    place = old.place
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    new.publish(1)
    assert old.publish(1) == new.made(1).receipt  # the shard is done, if not by us
    assert is_whole(place, 1)


@on_every_store
def test_a_zombie_that_comes_before_the_receipt_leaves(old: Writer, new: Writer) -> None:
    place = old.place
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    new.leave_half(1)
    with pytest.raises(EnvironmentMismatch, match="later epoch"):
        old.publish(1)
    assert new.publish(1) == new.made(1).receipt
    assert is_whole(place, 1)


class Interrupting(Store):
    """A store in which something happens right before the ``n``-th write."""

    def __init__(self, store: Store, n: int, event: Callable[[], None]) -> None:
        self._store, self.url, self._left, self._event = store, store.url, n, event

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._event()

    def create(self, key: str, data: bytes) -> str:
        self._count()
        return self._store.create(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        self._count()
        return self._store.replace(key, data, etag)

    def get(self, key: str, limit: int = MAX_OBJECT) -> bytes:
        return self._store.get(key, limit)

    def head(self, key: str) -> ObjectInfo | None:
        return self._store.head(key)

    def list(self, prefix: str = "") -> Any:
        return self._store.list(prefix)

    read = put = delete = children = check_writable = at = None  # type: ignore[assignment]


@pytest.mark.parametrize("step", range(1, 8))
@pytest.mark.parametrize("half", [False, True], ids=["nothing left", "archive left"])
def test_a_whole_old_worker_between_any_two_writes_of_a_new_one(
    old: Writer, new: Writer, step: int, half: bool
) -> None:
    """Whatever the order, the shard ends with one receipt, whose digests are those of the stored bytes."""
    place = old.place
    if half:
        old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)

    def zombie() -> None:
        with suppress(EnvironmentMismatch):
            old.publish(1)

    new_place = replace(place, store=Interrupting(place.store, step, zombie))
    stands = publish_shard(new_place, new.made(1))
    assert stands == read_receipt(place, 1)
    assert is_whole(place, 1)


@pytest.mark.parametrize("step", range(1, 4))
@pytest.mark.parametrize("half", [False, True], ids=["nothing left", "archive left"])
def test_a_whole_new_worker_between_any_two_writes_of_an_old_one(
    old: Writer, new: Writer, step: int, half: bool
) -> None:
    place = old.place
    if half:
        old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    old_place = replace(place, store=Interrupting(place.store, step, lambda: new.publish(1) and None))
    try:
        publish_shard(old_place, old.made(1))
    except EnvironmentMismatch:
        new.publish(1)
    assert is_whole(place, 1)
    assert new.publish(1) == read_receipt(place, 1)


@pytest.mark.parametrize("step", range(1, 8))
def test_two_workers_of_the_new_epoch_take_over_together(old: Writer, new: Writer, step: int) -> None:
    place = old.place
    old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    other = replace(place, store=Interrupting(place.store, step, lambda: new.publish(1) and None))
    assert publish_shard(other, new.made(1)) == new.made(1).receipt
    assert is_whole(place, 1)


@on_every_store
def test_a_reserved_shard_is_not_finished_and_its_environment_may_go_on(old: Writer, new: Writer) -> None:
    place = old.place
    old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    place.store.create(receipt_key(1), Reservation(environment=NEW.digest).canonical())
    assert not is_finished(place, 1)
    assert finished_numbers(place) == set()
    with pytest.raises(ObjectMissing, match="reservation"):
        read_receipt(place, 1)
    with pytest.raises(EnvironmentMismatch):
        old.publish(1)
    new.publish(1)
    assert is_finished(place, 1)
    assert is_whole(place, 1)


def test_a_reservation_of_another_environment_is_left_to_a_person(old: Writer, new: Writer) -> None:
    place, third = old.place, Writer(old.place, OTHER, mark=b"third")
    old.leave_half(1)
    open_epoch(place.store)
    fix_environment(place.store, NEW)
    place.store.create(receipt_key(1), Reservation(environment=NEW.digest).canonical())
    open_epoch(place.store)
    fix_environment(place.store, OTHER)
    with pytest.raises(BuildConflict, match=r"delete receipts/000001\.json") as refused:
        third.publish(1)
    for key in (receipt_key(1), new.made(1).receipt.shard.key, new.made(1).receipt.table.key):
        assert key in refused.value.hint
        place.store.delete(key)
    third.publish(1)
    assert is_whole(place, 1)


def test_every_receipt_is_larger_than_a_reservation(old: Writer) -> None:
    receipt = old.made(0).receipt
    key = StoredFile(key="k", digest=digest_of(b""), size=0)
    least = receipt.model_copy(update={"shard": key, "table": key, "samples": 0, "counts": (0,), "refused": 0})
    assert len(least.canonical()) > RESERVATION_BYTES
    assert len(Reservation(environment=NEW.digest).canonical()) == RESERVATION_BYTES


def test_a_receipt_under_another_number_is_no_receipt(old: Writer) -> None:
    old.place.store.create(receipt_key(2), old.made(1).receipt.canonical())
    with pytest.raises(IntegrityError, match="000002"):
        read_receipt(old.place, 2)


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[]", b'{"dtype":1}'])
def test_damaged_epoch_documents_are_typed_errors(place: BuildPlace, content: bytes) -> None:
    open_epoch(place.store)
    place.store.put(environment_key(1), content)
    with pytest.raises(DatasetError, match=r"environments/001\.json"):
        fix_environment(place.store, NEW)
    place.store.delete(environment_key(1))
    place.store.put(opening_key(1), content)
    with pytest.raises(DatasetError, match=r"epochs/001\.json"):
        fix_environment(place.store, NEW)
    place.store.put(environment_key(0), b"x" * 100_000)
    with pytest.raises(IntegrityError, match=r"environment\.json"):
        environments_of(place.store)


def test_two_who_take_over_in_turn_end_in_a_typed_error_and_not_in_a_circle(old: Writer, new: Writer) -> None:
    place = old.place
    made = new.made(1)

    class Restless(Interrupting):
        def replace(self, key: str, data: bytes, etag: str) -> str:
            self._store.put(key, secrets.token_bytes(8))
            return self._store.replace(key, data, etag)

    old.leave_half(1)
    files = {made.receipt.shard.key: made.shard}
    with pytest.raises(Exception, match="holds still"):
        take_over(Restless(place.store, 0, lambda: None), made.receipt, files)
