"""The contract is tested itself: stores that break one promise each are found, whole ones are not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from generator.errors import StoreError
from generator.store import Store, open_store
from generator.testing import StoreContract, Violation, check_states, states_run
from generator.testing.runner import run_checks
from tests.support import broken_stores as broken

BROKEN = [
    (broken.CreateOverwrites, "a create never overwrites"),
    (broken.ReplaceTakesAnyEtag, "a replace needs the current etag"),
    (broken.ReplaceTakesAnyEtag, "a replace refuses the etag of another object"),
    (broken.ReplaceMakesWhatIsGone, "a replace of a deleted object is refused"),
    (broken.ChecksBeforeItCreates, "one of many creators wins"),
    (broken.ChecksBeforeItReplaces, "one of many replacers wins"),
    (broken.EtagOfTheKey, "successive versions have different etags"),
    (broken.EtagOfTheKey, "a replace needs the current etag"),
    (broken.EtagOfItsOwn, "writes return the etag that head and list show"),
    (broken.DeleteOfNothingRaises, "a delete of a missing object succeeds"),
    (broken.DeleteDoesNothing, "a delete of a missing object succeeds"),
    (broken.DeleteTakesDirectories, "a directory is not an object"),
    (broken.ListEndsWithAPage, "lists continue after the first page"),
    (broken.ListTakesWholeDirectories, "lists are whole"),
    (broken.ChildrenNameWhatWas, "a directory without objects is not a child"),
    (broken.ChildrenNameObjects, "children are directories"),
    (broken.MissingIsAKeyError, "errors name the missing object"),
    (broken.MissingIsEmpty, "errors name the missing object"),
    (broken.RangeIncludesItsEnd, "a range is a slice"),
    (broken.GetHasNoLimit, "get refuses an object over its limit"),
    (broken.KeysAreUnchecked, "invalid keys are refused by every method"),
    (broken.CaseIsLost, "upper and lower case are two keys"),
    (broken.PrefixIsForgotten, "a store below a prefix sees only that"),
    (broken.ReadsAreStale, "a put overwrites any version"),
    (broken.WritesInHalves, "readers see whole versions"),
    (broken.VanishesMeanwhile, "readers see whole versions"),
    (broken.ProbeStays, "check writable leaves nothing behind"),
    (broken.TimesAreLocal, "what is created is read back"),
    (broken.PickledElsewhere, "a pickled store is the same store"),
]
IN_SEQUENCES = [
    broken.CreateOverwrites,
    broken.ReplaceTakesAnyEtag,
    broken.EtagOfTheKey,
    broken.DeleteOfNothingRaises,
    broken.ChildrenNameWhatWas,
    broken.RangeIncludesItsEnd,
    broken.ReadsAreStale,
]
Kind = type[broken.WrappedStore]


def memory_store(kind: Kind) -> broken.WrappedStore:
    return kind(open_store(f"memory://space-{uuid.uuid4().hex}/some"))


@pytest.mark.parametrize(("kind", "check"), BROKEN, ids=lambda part: getattr(part, "__name__", part))
def test_a_broken_store_is_found(kind: Kind, check: str) -> None:
    store = memory_store(kind)
    test: Callable[[object], None] = getattr(StoreContract(), "test_" + check.replace(" ", "_"))
    with pytest.raises((Violation, StoreError, LookupError)) as found:
        test(store)
    assert str(found.value)


def test_a_store_that_forgets_unfinished_writes_is_found(tmp_path: Path) -> None:
    class Contract(StoreContract):
        def leave_unfinished_write(self, store: Store, key: str) -> bool:
            assert isinstance(store, broken.ForgetsPartialWrites)
            return super().leave_unfinished_write(store.inner, key)

    with pytest.raises(Violation, match="the number of unfinished writes"):
        Contract().test_unfinished_writes_are_reported_and_removed(
            broken.ForgetsPartialWrites(open_store(str(tmp_path)))
        )


@pytest.mark.parametrize("kind", [broken.WrappedStore, broken.ListIsUnordered])  # S3 does not promise an order
def test_a_whole_store_passes_inside_a_wrapper_too(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreContract, "page", 10)
    results = list(run_checks(memory_store(kind), lambda url: kind(open_store(url)), examples=5))
    assert [(result.check, result.found) for result in results if result.status == "failed"] == []
    assert len(results) > 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", IN_SEQUENCES)
def test_a_broken_store_is_found_by_random_sequences(kind: Kind) -> None:
    with pytest.raises(states_run.StatesViolation) as found:
        check_states(memory_store(kind), examples=400, shrink_seconds=1.0)  # it stops at the first failure
    assert found.value.steps


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [(broken.WritesInPlace, "neither the old version"), (broken.LocksForEver, "after a writer of it was killed")],
)
def test_a_store_that_a_killed_writer_harms_is_found(kind: Kind, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(states_run.StatesViolation, match=sentence) as found:
        check_states(kind(open_store(str(tmp_path / "root"))), examples=200, shrink_seconds=1.0)
    assert any("in a process that is killed" in step for step in found.value.steps)


def test_children_that_were_wrong_are_not_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreContract, "page", 10)
    store = memory_store(broken.ChildrenNameWhatWas)
    results = {result.check: result for result in run_checks(store, broken_by_url, examples=10)}
    assert [check for check, result in results.items() if result.status == "failed"] == [
        "a directory without objects is not a child"
    ]
    last = list(results.values())[-1]
    assert (last.part, last.status) == ("states", "ok")
    assert last.found.endswith("not compared, because it failed above: children")


def broken_by_url(url: str) -> broken.WrappedStore:
    return broken.ChildrenNameWhatWas(open_store(url))
