"""Operations in any order on a store, beside a dictionary that says what should be there."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from threading import Thread

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from generator.errors import AlreadyExists, Changed, ObjectMissing
from generator.store import ObjectInfo
from generator.testing.contents import content_of
from generator.testing.expectations import Violation, expect, expect_equal, expect_refusal
from generator.testing.killed_writer import Operation, WriteJob
from generator.testing.object_model import ObjectModel, Version
from generator.testing.states_run import LARGE_BYTES, StatesRun
from generator.testing.temporary_prefix import remove_all, remove_partial_writes

# Few, so that sequences meet again; no key is a prefix path of another; 'b-c' comes before 'b/c'.
KEYS = ("a", "b/c", "b-c", "b/a/z", "d/e/f", "d/e/g")
PREFIXES = ("", "a", "b", "b/", "b/a", "b/a/", "d/", "d/e/", "none", "none/")
_DIRECTORIES = ("", "b/", "b/a/", "d/", "d/e/", "none/")
_PATIENCE_SECONDS = 30.0

_keys = st.sampled_from(KEYS)
_contents = st.binary(max_size=40)
_numbers = st.integers(0, 60)
_operations: st.SearchStrategy[Operation] = st.sampled_from(("create", "replace", "put"))
_moments = st.integers(0, 100)  # percent of the time in which a write may be killed
_sizes = st.sampled_from((10, LARGE_BYTES))


class StoreMachine(RuleBasedStateMachine):
    """One example: an empty store, a model of it, and the steps so far."""

    def __init__(self, run: StatesRun) -> None:
        super().__init__()
        self.run, self.store, self.model = run, run.next_store(), ObjectModel()
        self.steps: list[str] = []
        self.kills_left = run.kills_an_example
        self._contents = count()

    # Writes ----------------------------------------------------------------------------------------------------------

    @rule(key=_keys, data=_contents)
    def create(self, key: str, data: bytes) -> None:
        def create() -> None:
            if key in self.model.objects:
                with expect_refusal(AlreadyExists, f"create({key!r}) over an object"):
                    self.store.create(key, data)
                return
            try:
                etag = self.store.create(key, data)
            except AlreadyExists:
                etag = self._etag_of_own_write(key, data, "create where there is no object")
            self._wrote(key, data, etag)

        self._step(f"create {key!r} ({len(data)} bytes)", create)

    @precondition(lambda self: self.model.objects)
    @rule(which=_numbers, data=_contents)
    def replace(self, which: int, data: bytes) -> None:
        key = _pick(sorted(self.model.objects), which)

        def replace() -> None:
            try:
                etag = self.store.replace(key, data, self.model.objects[key].etag)
            except Changed:
                etag = self._etag_of_own_write(key, data, "replace with the current etag")
            self._wrote(key, data, etag)

        self._step(f"replace {key!r} ({len(data)} bytes)", replace)

    @precondition(lambda self: any(map(self.model.stale_etags, KEYS)))
    @rule(which=_numbers, version=_numbers, data=_contents)
    def replace_stale(self, which: int, version: int, data: bytes) -> None:
        key = _pick([key for key in KEYS if self.model.stale_etags(key)], which)
        etag = _pick(self.model.stale_etags(key), version)

        def replace() -> None:
            with expect_refusal(Changed, f"replace of {key!r} with the etag of an older version"):
                self.store.replace(key, data, etag)

        self._step(f"replace {key!r} with a stale etag ({len(data)} bytes)", replace)

    @rule(key=_keys, data=_contents)
    def put(self, key: str, data: bytes) -> None:
        self._step(f"put {key!r} ({len(data)} bytes)", lambda: self._wrote(key, data, self.store.put(key, data)))

    @rule(key=_keys)
    def delete(self, key: str) -> None:
        def delete() -> None:
            self.store.delete(key)
            self.model.delete(key)

        self._step(f"delete {key!r}", delete)

    # Reads -----------------------------------------------------------------------------------------------------------

    @rule()
    def get_all(self) -> None:
        def get() -> None:
            for key in KEYS:
                self._compare_read(key, 0, None)

        self._step("get every key", get)

    @rule(key=_keys, start=_numbers, length=_numbers)
    def read(self, key: str, start: int, length: int) -> None:
        self._step(f"read {key!r} from {start}, {length} bytes", lambda: self._compare_read(key, start, length))

    @rule(key=_keys)
    def head(self, key: str) -> None:
        def head() -> None:
            info, version = self.store.head(key), self.model.objects.get(key)
            facts = info and (info.key, info.size, info.etag)
            expect_equal(f"head({key!r})", facts, version and (key, len(version.data), version.etag))

        self._step(f"head {key!r}", head)

    @rule(prefix=st.sampled_from(PREFIXES))
    def list(self, prefix: str) -> None:
        self._step(f"list {prefix!r}", lambda: self._compare_list(prefix))

    @precondition(lambda self: self.run.exact_children)
    @rule()
    def children_of_all(self) -> None:
        def children() -> None:
            for prefix in _DIRECTORIES:
                expect_equal(f"children({prefix!r})", [*self.store.children(prefix)], self.model.children(prefix))

        self._step("children of every directory", children)

    # Other clients ---------------------------------------------------------------------------------------------------

    @rule()
    def open_anew(self) -> None:
        self._step("open the store anew", self._open_anew)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, moment=_moments, then=_sizes)
    def kill_creator(self, key: str, moment: int, then: int) -> None:
        self._kill("create", key, moment, then)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, moment=_moments, then=_sizes)
    def kill_replacer(self, key: str, moment: int, then: int) -> None:
        self._kill("replace" if key in self.model.objects else "put", key, moment, then)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, moment=_moments, then=_sizes)
    def kill_putter(self, key: str, moment: int, then: int) -> None:
        self._kill("put", key, moment, then)

    @precondition(lambda self: self.run.writer is None)
    @rule(operation=_operations, key=_keys, arrives=st.booleans())
    def lose_answer(self, operation: Operation, key: str, arrives: bool) -> None:
        absent = key not in self.model.objects
        job = self._large_write("put" if operation == "replace" and absent else operation, key)

        def lose() -> None:
            self._open_anew()
            refused = job.operation == "create" and key in self.model.objects
            if arrives:
                with suppress(AlreadyExists):
                    job.run(self.store)
            self.run.counts["answers lost"] += 1
            self._adopt(job, may_be_old=True, may_be_new=not refused)

        self._step(f"{job.operation} {key!r} ({LARGE_BYTES:,} bytes), its answer lost", lose)

    @rule()
    def remove_unfinished_writes(self) -> None:
        def remove() -> None:
            self.run.counts["unfinished writes removed"] += remove_partial_writes(self.store)

        self._step("remove what killed writers left", remove)

    @invariant()
    def compare(self) -> None:
        with self.run.observe(self.steps):
            self._compare_list("")

    def teardown(self) -> None:
        self.run.counts["examples"] += 1
        with suppress(Exception):  # whoever gave the store removes what is left
            remove_all(self.store)

    # -----------------------------------------------------------------------------------------------------------------

    def _step(self, text: str, act: Callable[[], None]) -> None:
        self.steps.append(text)
        self.run.counts["steps"] += 1
        with self.run.observe(self.steps):
            act()

    def _kill(self, operation: Operation, key: str, moment: int, size: int) -> None:
        """Kill a writer of ``key``, read what is there, and let the next one write ``size`` bytes."""
        job, seconds = self._large_write(operation, key), moment / 100 * self.run.kill_window
        then = content_of(1, size)
        self.kills_left -= 1

        def kill() -> None:
            writer = self.run.writer
            assert writer is not None
            outcome = writer.write(self.store, job, seconds)
            self._open_anew()
            self.run.counts["writers killed" if outcome.killed else "writers that were done"] += 1
            refused = job.operation == "create" and key in self.model.objects
            if outcome.failed and not (refused and outcome.failed.startswith("AlreadyExists:")):
                raise Violation(f"{job.operation} in another process raised {outcome.failed}")
            self._wait_for_late_write(job)
            self._adopt(job, may_be_old=outcome.killed or refused, may_be_new=not refused)
            call = f"put({key!r}) after a writer of it was killed"
            self._wrote(key, then, within_patience(call, lambda: self.store.put(key, then)))
            self.model.forget_history(key)  # which rules come next may not hang on the moment of the kill

        text = f"{operation} {key!r} ({LARGE_BYTES:,} bytes) in a process killed after {seconds * 1000:.0f} ms"
        self._step(f"{text}, then put ({size:,} bytes)", kill)

    def _open_anew(self) -> None:
        self.store = pickle.loads(pickle.dumps(self.store))

    def _large_write(self, operation: Operation, key: str) -> WriteJob:
        version = self.model.objects.get(key)
        return WriteJob(operation, key, 100 + next(self._contents), LARGE_BYTES, version.etag if version else "")

    def _wrote(self, key: str, data: bytes, etag: str) -> None:
        before = self.model.objects.get(key)
        if before is not None and before.data != data:
            expect(etag != before.etag, f"other bytes were written to {key!r}, and its etag is still {etag}")
        self.model.write(key, data, etag)

    def _etag_of_own_write(self, key: str, data: bytes, call: str) -> str:
        """A write that is sent again meets itself: a refusal is right where our own bytes lie there."""
        info = self.store.head(key)
        if info is None or self.store.get(key) != data:
            raise Violation(f"{call} was refused, and {key!r} does not hold what it was to write")
        return info.etag

    def _wait_for_late_write(self, job: WriteJob) -> None:
        """A server may still be at work on what a writer had sent whole before it was killed."""
        version, info = self.model.objects.get(job.key), self.store.head(job.key)
        if (info and info.etag) == (version and version.etag) and self.store.url.partition(":")[0] != "file":
            time.sleep(min(1.0, 2 * self.run.kill_window))

    def _adopt(self, job: WriteJob, *, may_be_old: bool, may_be_new: bool) -> None:
        """Read an object whose write may have happened or not, and let the model follow it."""
        old, new = self.model.objects.get(job.key), content_of(job.number, job.size)
        info, held = self.store.head(job.key), self._read_or_none(job.key)
        found = None if info is None or held is None else Version(held, info.etag)
        if may_be_new and found is not None and held == new:
            self.run.counts["found new"] += 1
            self._wrote(job.key, new, found.etag)
        elif may_be_old and found == old and (info is None) == (held is None):
            self.run.counts["found old"] += 1
        else:
            raise Violation(_torn_text(job, old, info, held))

    def _read_or_none(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except ObjectMissing:
            return None

    def _compare_read(self, key: str, start: int, length: int | None) -> None:
        call = f"get({key!r})" if length is None else f"read({key!r}, {start}, {length})"
        version = self.model.objects.get(key)
        if version is None:
            with expect_refusal(ObjectMissing, f"{call} where there is no object"):
                _ = self.store.get(key) if length is None else self.store.read(key, start, length)
        elif length is None:
            expect_equal(call, self.store.get(key), version.data)
        else:
            expect_equal(call, self.store.read(key, start, length), version.data[start : start + length])

    def _compare_list(self, prefix: str) -> None:
        listed = [(info.key, info.size, info.etag) for info in self.store.list(prefix)]
        versions = [(key, self.model.objects[key]) for key in self.model.keys(prefix)]
        expected = [(key, len(version.data), version.etag) for key, version in versions]
        expect_equal(f"list({prefix!r})", listed if self.run.ordered else sorted(listed), expected)


def _pick(choices: list[str], which: int) -> str:
    return choices[which % len(choices)]


def _torn_text(job: WriteJob, old: Version | None, info: ObjectInfo | None, held: bytes | None) -> str:
    there = "no object" if held is None else f"an object of {len(held):,} bytes, etag {info.etag if info else None}"
    before = f"one of {len(old.data):,} bytes, etag {old.etag}" if old else "no object"
    call = f"after {job.operation}({job.key!r}) of {job.size:,} bytes was interrupted"
    return f"{call} there is {there}, neither what was there before ({before}) nor what was written"


def within_patience(call: str, act: Callable[[], str]) -> str:
    """What ``act`` gives. Raises ``Violation`` where it fails, and where it has not returned after half a minute."""
    given: list[str | Exception] = []

    def attempt() -> None:
        try:
            given.append(act())
        except Exception as error:
            given.append(error)

    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(_PATIENCE_SECONDS)
    if not given:
        raise Violation(f"{call} did not return within {_PATIENCE_SECONDS:.0f} s")
    if isinstance(given[0], Exception):
        raise Violation(f"{call} raised {type(given[0]).__name__}: {given[0]}") from given[0]
    return given[0]
