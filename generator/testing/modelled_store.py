"""A store and its model: every operation is applied to both, and the results are compared."""

from __future__ import annotations

import pickle
from typing import Literal, final

from generator.errors import AlreadyExists, Changed, ObjectMissing
from generator.store import ObjectInfo, Store
from generator.testing.contents import content_of
from generator.testing.expectations import Violation, expect, expect_equal, expect_refusal
from generator.testing.killed_writer import WriteJob
from generator.testing.object_model import ObjectModel, Version


@final
class ModelledStore:
    """Every method raises ``Violation`` if the store differs from the model."""

    def __init__(self, store: Store) -> None:
        self.store, self.model = store, ObjectModel()

    def open_again(self) -> None:
        """Go on with a pickled copy of the store, as another client."""
        self.store = pickle.loads(pickle.dumps(self.store))

    def create(self, key: str, data: bytes) -> None:
        if key in self.model.objects:
            with expect_refusal(AlreadyExists, f"create({key!r}) over an object"):
                self.store.create(key, data)
            return
        try:
            etag = self.store.create(key, data)
        except AlreadyExists:
            etag = self._etag_of_own_write(key, data, "create where there is no object")
        self.record(key, data, etag)

    def replace(self, key: str, data: bytes) -> None:
        """Overwrite the current version."""
        try:
            etag = self.store.replace(key, data, self.model.objects[key].etag)
        except Changed:
            etag = self._etag_of_own_write(key, data, "replace with the current etag")
        self.record(key, data, etag)

    def replace_stale(self, key: str, data: bytes, etag: str) -> None:
        """Try to overwrite a version that is no longer current."""
        with expect_refusal(Changed, f"replace({key!r}) with the etag of an older version"):
            self.store.replace(key, data, etag)

    def put(self, key: str, data: bytes) -> None:
        self.record(key, data, self.store.put(key, data))

    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.delete(key)

    def record(self, key: str, data: bytes, etag: str) -> None:
        """Record a write of the store in the model."""
        before = self.model.objects.get(key)
        if before is not None and before.data != data:
            expect(etag != before.etag, f"other bytes were written to {key!r}, but its etag is still {etag}")
        self.model.write(key, data, etag)

    def compare_get(self, key: str) -> None:
        version = self.model.objects.get(key)
        if version is not None:
            expect_equal(f"get({key!r})", self.store.get(key), version.data)
            return
        with expect_refusal(ObjectMissing, f"get({key!r}) where there is no object"):
            self.store.get(key)

    def compare_read(self, key: str, start: int, length: int) -> None:
        call, version = f"read({key!r}, {start}, {length})", self.model.objects.get(key)
        if version is not None:
            expect_equal(call, self.store.read(key, start, length), version.data[start : start + length])
            return
        with expect_refusal(ObjectMissing, f"{call} where there is no object"):
            self.store.read(key, start, length)

    def compare_head(self, key: str) -> None:
        info, version = self.store.head(key), self.model.objects.get(key)
        facts = info and (info.key, info.size, info.etag)
        expect_equal(f"head({key!r})", facts, version and (key, len(version.data), version.etag))

    def compare_list(self, prefix: str) -> None:
        listed = sorted((info.key, info.size, info.etag) for info in self.store.list(prefix))
        versions = [(key, self.model.objects[key]) for key in self.model.keys(prefix)]
        expected = [(key, len(version.data), version.etag) for key, version in versions]
        expect_equal(f"list({prefix!r}), sorted", listed, expected)

    def compare_children(self, prefix: str) -> None:
        expect_equal(f"children({prefix!r})", [*self.store.children(prefix)], self.model.children(prefix))

    def is_unchanged(self, key: str) -> bool:
        """Whether the store reports the etag of the model."""
        info, version = self.store.head(key), self.model.objects.get(key)
        return (info and info.etag) == (version and version.etag)

    def adopt(self, job: WriteJob, *, may_be_old: bool, may_be_new: bool) -> Literal["old", "new"]:
        """Read an object whose write was interrupted, and record in the model which version is there."""
        old, new = self.model.objects.get(job.key), content_of(job.number, job.size)
        info, held = self.store.head(job.key), self._get_or_none(job.key)
        found = None if info is None or held is None else Version(held, info.etag)
        if may_be_new and found is not None and held == new:
            self.record(job.key, new, found.etag)
            return "new"
        if may_be_old and found == old and (info is None) == (held is None):
            return "old"
        if held == new and not may_be_new:
            raise Violation(f"{job.operation}({job.key!r}) over an object has overwritten it, expected a refusal")
        raise Violation(_torn_text(job, old, info, held))

    def _get_or_none(self, key: str) -> bytes | None:
        try:
            return self.store.get(key)
        except ObjectMissing:
            return None

    def _etag_of_own_write(self, key: str, data: bytes, call: str) -> str:
        """A write that is retried after a lost answer finds its own object: then the refusal is right."""
        info = self.store.head(key)
        if info is None or self.store.get(key) != data:
            raise Violation(f"{call} was refused, but {key!r} does not hold the bytes of that call")
        return info.etag


def _torn_text(job: WriteJob, old: Version | None, info: ObjectInfo | None, held: bytes | None) -> str:
    there = "no object" if held is None else f"an object of {len(held):,} bytes, etag {info.etag if info else None}"
    before = f"{len(old.data):,} bytes, etag {old.etag}" if old else "no object"
    call = f"after {job.operation}({job.key!r}) of {job.size:,} bytes was interrupted"
    return f"{call} there is {there}: neither the old version ({before}) nor the new one"
