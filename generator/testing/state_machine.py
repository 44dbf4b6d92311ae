"""The rules of the state machine: operations in any order on a store and its model, and writers that are killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import count

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from generator.errors import AlreadyExists
from generator.testing.contents import content_of
from generator.testing.expectations import Violation, within_patience
from generator.testing.killed_writer import Operation, WriteJob
from generator.testing.modelled_store import ModelledStore
from generator.testing.states_run import LARGE_BYTES, StatesRun
from generator.testing.temporary_prefix import remove_all, remove_partial_writes

# Few keys, so that many operations meet the same one. No key is a prefix path of another; 'b-c' sorts before 'b/c'.
KEYS = ("a", "b/c", "b-c", "b/a/z", "d/e/f", "d/e/g")
PREFIXES = ("", "a", "b", "b/", "b/a", "b/a/", "d/", "d/e/", "none", "none/")
_DIRECTORIES = ("", "b/", "b/a/", "d/", "d/e/", "none/")
_MAX_WAIT_SECONDS = 1.0

_keys = st.sampled_from(KEYS)
_numbers = st.integers(0, 60)
_contents = st.builds(content_of, st.integers(0, 3), st.sampled_from((0, 1, 10, 60)))
_operations: st.SearchStrategy[Operation] = st.sampled_from(("create", "replace", "put"))
_next_sizes = st.sampled_from((10, LARGE_BYTES))


class StoreMachine(RuleBasedStateMachine):
    """One example: a store, its model, and the steps so far.

    Whatever Hypothesis draws must not depend on the outcome of a kill, or it could not repeat an example.
    """

    def __init__(self, run: StatesRun) -> None:
        super().__init__()
        self.run, self.pair = run, ModelledStore(run.next_store())
        self.model = self.pair.model
        self.steps: list[str] = []
        self.kills_left = run.kills_an_example
        self._job_numbers = count(100)

    @initialize(writes=st.lists(st.tuples(_keys, _contents), min_size=4, max_size=8))
    def begin_with_objects(self, writes: Sequence[tuple[str, bytes]]) -> None:
        """Most rules need objects, some need older versions of them."""
        for key, data in writes:
            self.put(key, data)

    @rule(key=_keys, data=_contents)
    def create(self, key: str, data: bytes) -> None:
        self._step(f"create {key!r} ({len(data)} bytes)", lambda: self.pair.create(key, data))

    @precondition(lambda self: self.model.objects)
    @rule(which=_numbers, data=_contents)
    def replace(self, which: int, data: bytes) -> None:
        key = _pick(sorted(self.model.objects), which)
        self._step(f"replace {key!r} ({len(data)} bytes)", lambda: self.pair.replace(key, data))

    @precondition(lambda self: any(map(self.model.stale_etags, KEYS)))
    @rule(which=_numbers, version=_numbers, data=_contents)
    def replace_stale(self, which: int, version: int, data: bytes) -> None:
        key = _pick([key for key in KEYS if self.model.stale_etags(key)], which)
        etag, text = _pick(self.model.stale_etags(key), version), f"replace {key!r} with a stale etag"
        self._step(f"{text} ({len(data)} bytes)", lambda: self.pair.replace_stale(key, data, etag))

    @rule(key=_keys, data=_contents)
    def put(self, key: str, data: bytes) -> None:
        self._step(f"put {key!r} ({len(data)} bytes)", lambda: self.pair.put(key, data))

    @precondition(lambda self: self.model.objects)
    @rule(which=_numbers)
    def delete(self, which: int) -> None:
        self.delete_any(_pick(sorted(self.model.objects), which))

    @rule(key=_keys)
    def delete_any(self, key: str) -> None:
        self._step(f"delete {key!r}", lambda: self.pair.delete(key))

    @rule()
    def get_all(self) -> None:
        self._step("get every key", lambda: _for_each(self.pair.compare_get, KEYS))

    @rule(key=_keys, start=_numbers, length=_numbers)
    def read(self, key: str, start: int, length: int) -> None:
        self._step(f"read {length} bytes of {key!r} from {start}", lambda: self.pair.compare_read(key, start, length))

    @precondition(lambda self: self.model.objects)
    @rule(start=st.integers(0, 9), length=_numbers)
    def read_all(self, start: int, length: int) -> None:
        def read(key: str) -> None:
            self.pair.compare_read(key, start, length)

        keys = sorted(self.model.objects)
        self._step(f"read {length} bytes of every object from {start}", lambda: _for_each(read, keys))

    @rule(key=_keys)
    def head(self, key: str) -> None:
        self._step(f"head {key!r}", lambda: self.pair.compare_head(key))

    @rule(prefix=st.sampled_from(PREFIXES))
    def list(self, prefix: str) -> None:
        self._step(f"list {prefix!r}", lambda: self.pair.compare_list(prefix))

    @precondition(lambda self: self.run.exact_children)
    @rule()
    def children_of_all(self) -> None:
        self._step("children of every directory", lambda: _for_each(self.pair.compare_children, _DIRECTORIES))

    @rule()
    def open_again(self) -> None:
        self._step("open the store again", self.pair.open_again)

    @rule()
    def remove_unfinished_writes(self) -> None:
        def remove() -> None:
            self.run.counts["unfinished writes removed"] += remove_partial_writes(self.pair.store)

        self._step("remove unfinished writes", remove)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, then=_next_sizes)
    def kill_creator(self, key: str, then: int) -> None:
        self._kill("create", key, then)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, then=_next_sizes)
    def kill_replacer(self, key: str, then: int) -> None:
        if key not in self.model.objects:
            self._step(f"put {key!r} (10 bytes)", lambda: self.pair.put(key, content_of(0, 10)))
        self._kill("replace", key, then)

    @precondition(lambda self: self.kills_left > 0)
    @rule(key=_keys, then=_next_sizes)
    def kill_putter(self, key: str, then: int) -> None:
        self._kill("put", key, then)

    @precondition(lambda self: self.run.writer is None)
    @rule(operation=_operations, key=_keys, arrives=st.booleans())
    def lose_answer(self, operation: Operation, key: str, arrives: bool) -> None:
        absent = key not in self.model.objects
        job = self._large_write("put" if operation == "replace" and absent else operation, key)

        def lose() -> None:
            self.pair.open_again()
            if arrives:
                with suppress(AlreadyExists):
                    job.run(self.pair.store)
            self.run.counts["answers lost"] += 1
            self.pair.adopt(job, may_be_old=True, may_be_new=absent or job.operation != "create")

        self._step(f"{job.operation} {key!r} ({LARGE_BYTES:,} bytes), and lose the answer", lose)

    @invariant()
    def compare(self) -> None:
        with self.run.observe(self.steps):
            self.pair.compare_list("")

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self._step("compare everything", self._compare_all)
        finally:
            self._clear()

    def _clear(self) -> None:
        self.run.counts["examples"] += 1
        with suppress(Exception):  # temporary_prefix removes the rest, and reports what it cannot remove
            remove_all(self.pair.store)

    def _compare_all(self) -> None:
        _for_each(self.pair.compare_get, KEYS)
        _for_each(self.pair.compare_head, KEYS)
        if self.run.exact_children:
            _for_each(self.pair.compare_children, _DIRECTORIES)

    def _step(self, text: str, act: Callable[[], object]) -> None:
        self.steps.append(text)
        self.run.counts["steps"] += 1
        with self.run.observe(self.steps):
            act()

    def _kill(self, operation: Operation, key: str, size: int) -> None:
        """Kill a writer of ``key``, read what is there, and put ``size`` bytes."""
        job, seconds = self._large_write(operation, key), self.run.next_kill_moment()
        self.kills_left -= 1
        text = f"{operation} {key!r} ({LARGE_BYTES:,} bytes) in a process that is killed after {seconds * 1000:.0f} ms"
        self._step(f"{text}, then put ({size:,} bytes)", lambda: self._kill_and_put(job, seconds, size))

    def _kill_and_put(self, job: WriteJob, seconds: float, size: int) -> None:
        assert self.run.writer is not None
        refused = job.operation == "create" and job.key in self.model.objects
        outcome = self.run.writer.write(self.pair.store, job, seconds)
        self.run.counts["writers killed" if outcome.killed else "writers not killed"] += 1
        self.pair.open_again()
        if outcome.failed and not (refused and outcome.failed.startswith("AlreadyExists:")):
            raise Violation(f"{job.operation} in another process raised {outcome.failed}")
        self._wait_for_late_write(job)
        found = self.pair.adopt(job, may_be_old=outcome.killed or refused, may_be_new=not refused)
        self.run.counts[f"{found} version found"] += 1

        data, call = content_of(1, size), f"put({job.key!r}) after a writer of it was killed"
        self.pair.record(job.key, data, within_patience(call, lambda: self.pair.store.put(job.key, data)))
        self.model.forget_history(job.key)  # it depends on the outcome of the kill

    def _wait_for_late_write(self, job: WriteJob) -> None:
        """A server may still be processing a request of the killed writer; a local directory has no server."""
        if self.pair.is_unchanged(job.key) and not self.pair.store.url.startswith("file:"):
            time.sleep(min(_MAX_WAIT_SECONDS, 2 * self.run.kill_window))

    def _large_write(self, operation: Operation, key: str) -> WriteJob:
        version = self.model.objects.get(key)
        return WriteJob(operation, key, next(self._job_numbers), LARGE_BYTES, version.etag if version else "")


def _pick(choices: list[str], which: int) -> str:
    return choices[which % len(choices)]


def _for_each(act: Callable[[str], None], names: Iterable[str]) -> None:
    for name in names:
        act(name)
