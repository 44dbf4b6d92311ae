"""Checks of single objects: write, read, replace, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from generator.errors import AlreadyExists, Changed, IntegrityError, ObjectMissing, SpecError
from generator.spec.canonical import digest_of
from generator.store import Store
from generator.testing.expectations import expect, expect_equal, expect_object, expect_refusal

_DIGITS = b"0123456789"
_RANGES = [(0, 10), (3, 4), (8, 100), (9, 1), (10, 1), (99, 5), (2, 0), (10, 0)]
_CLOCK_SKEW = timedelta(minutes=5)


class ObjectChecks:
    """What ``create``, ``replace``, ``put``, ``delete``, ``get``, ``read`` and ``head`` promise."""

    def test_what_is_created_is_read_back(self, store: Store) -> None:
        etag = store.create("a/b.bin", _DIGITS)
        expect_equal("get of a new object", store.get("a/b.bin"), _DIGITS)
        info = expect_object("head of a new object", store.head("a/b.bin"))
        expect_equal("head (key, size, etag)", (info.key, info.size, info.etag), ("a/b.bin", len(_DIGITS), etag))
        expect(info.modified.tzinfo is UTC, f"head gave a time that is not in UTC: {info.modified!r}")
        skew = abs(info.modified - datetime.now(UTC))
        expect(skew < _CLOCK_SKEW, f"head gave {info.modified} for an object written just now: the clock is {skew} off")

    def test_a_create_never_overwrites(self, store: Store) -> None:
        etag = store.create("a", b"first")
        with expect_refusal(AlreadyExists, "create over an object") as refused:
            store.create("a", b"second")
        expect_equal("the field of AlreadyExists", refused.error.field, f"{store.url}/a")
        expect_equal("get after a refused create", store.get("a"), b"first")
        info = expect_object("head after a refused create", store.head("a"))
        expect_equal("the etag after a refused create", info.etag, etag)

    def test_a_replace_needs_the_current_etag(self, store: Store) -> None:
        first = store.create("a", b"first")
        second = store.replace("a", b"other", first)  # of the same length
        expect(second != first, f"replace gave the etag of the version before, {first}")
        with expect_refusal(Changed, "replace with the etag of an older version"):
            store.replace("a", b"stale", first)
        expect_equal("get after a refused replace", store.get("a"), b"other")
        store.replace("a", b"third", second)
        expect_equal("get after a replace", store.get("a"), b"third")

    def test_a_replace_refuses_the_etag_of_another_object(self, store: Store) -> None:
        store.create("a", b"first")
        foreign = store.create("b", b"another object")
        with expect_refusal(Changed, "replace with the etag of another object"):
            store.replace("a", b"second", foreign)
        expect_equal("get after a refused replace", store.get("a"), b"first")

    def test_a_replace_of_a_deleted_object_is_refused(self, store: Store) -> None:
        etag = store.create("a/b", b"x")
        store.delete("a/b")
        for key in ("a/b", "never/was"):
            with expect_refusal(Changed, f"replace of {key!r}, which does not exist,"):
                store.replace(key, b"y", etag)
        expect_equal("list after refused replaces", [info.key for info in store.list()], [])

    def test_successive_versions_have_different_etags(self, store: Store) -> None:
        etags = [store.create("a", b"0")]
        etags += [store.put("a", b"%d" % number) for number in range(1, 10)]
        expect_equal("ten versions in a row: the number of etags", len(set(etags)), 10)

    def test_writes_return_the_etag_that_head_and_list_show(self, store: Store) -> None:
        def told() -> list[str]:
            info = store.head("a")
            return [info.etag if info else "nothing", *(each.etag for each in store.list("a"))]

        etag = store.create("a", b"one")
        expect_equal("head and list after a create", told(), [etag] * 2)
        etag = store.replace("a", b"two", etag)
        expect_equal("head and list after a replace", told(), [etag] * 2)
        etag = store.put("a", b"three")
        expect_equal("head and list after a put", told(), [etag] * 2)

    def test_a_put_overwrites_any_version(self, store: Store) -> None:
        for data in (b"one", b"two, and longer", b"3"):
            etag = store.put("a", data)
            info = expect_object("head after a put", store.head("a"))
            expect_equal("head after a put (size, etag)", (info.size, info.etag), (len(data), etag))
            expect_equal("get after a put", store.get("a"), data)

    def test_a_delete_of_a_missing_object_succeeds(self, store: Store) -> None:
        store.delete("never/was")
        store.create("a/b", b"x")
        store.delete("a/b")
        store.delete("a/b")
        expect_equal("head after a delete", store.head("a/b"), None)
        expect_equal("list after a delete", [info.key for info in store.list()], [])
        with expect_refusal(ObjectMissing, "get after a delete"):
            store.get("a/b")
        store.create("a/b", b"again")
        expect_equal("get after a second create", store.get("a/b"), b"again")

    def test_errors_name_the_missing_object(self, store: Store) -> None:
        store.create("a", b"x")
        for key in ("b", "some/b", "a/below-an-object"):
            calls: dict[str, Callable[[], bytes]] = {
                f"get({key!r})": partial(store.get, key),
                f"read({key!r}, 0, 1)": partial(store.read, key, 0, 1),
                f"read({key!r}, 0, 0)": partial(store.read, key, 0, 0),
            }
            for call, ask in calls.items():
                with expect_refusal(ObjectMissing, f"{call} where there is no object") as refused:
                    ask()
                expect_equal("the field of ObjectMissing", refused.error.field, f"{store.url}/{key}")
            expect_equal(f"head({key!r}) where there is no object", store.head(key), None)

    def test_a_directory_is_not_an_object(self, store: Store) -> None:
        store.create("a/b", b"x")
        expect_equal("head('a') beside the object 'a/b'", store.head("a"), None)
        with expect_refusal(ObjectMissing, "get('a') beside the object 'a/b'"):
            store.get("a")
        store.delete("a")
        expect_equal("get('a/b') after delete('a')", store.get("a/b"), b"x")

    def test_a_range_is_a_slice(self, store: Store) -> None:
        store.create("a", _DIGITS)
        for start, length in _RANGES:
            expect_equal(
                f"read({start}, {length}) of 10 bytes", store.read("a", start, length), _DIGITS[start : start + length]
            )

    def test_a_part_reader_reads_ranges(self, store: Store) -> None:
        store.create("a/b", _DIGITS)
        read = store.part_reader("a/b")
        for start, length in _RANGES:
            expect_equal(f"part {start}, {length}", read(start, length), _DIGITS[start : start + length])
        with expect_refusal(SpecError, "a part before the beginning"):
            read(-1, 2)
        with expect_refusal(ObjectMissing, "a part of a missing object"):
            store.part_reader("a/c")(0, 1)

    def test_negative_ranges_are_refused(self, store: Store) -> None:
        store.create("a", _DIGITS)
        for start, length in ((-1, 1), (0, -1)):
            with expect_refusal(SpecError, f"read({start}, {length})"):
                store.read("a", start, length)

    def test_get_refuses_an_object_over_its_limit(self, store: Store) -> None:
        store.create("a", _DIGITS)
        expect_equal("get with the object's size as its limit", store.get("a", len(_DIGITS)), _DIGITS)
        with expect_refusal(IntegrityError, "get with a limit below the object's size"):
            store.get("a", len(_DIGITS) - 1)

    def test_a_digest_is_that_of_the_bytes(self, store: Store) -> None:
        data = _DIGITS * 60_000
        store.create("a", data)
        expect_equal("digest of an object", store.digest("a"), (digest_of(data), len(data)))
        with expect_refusal(IntegrityError, "digest over its limit"):
            store.digest("a", len(data) - 1)
        with expect_refusal(ObjectMissing, "digest of a missing object"):
            store.digest("b")

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        store.create("empty", b"")
        expect_equal("get of an empty object", store.get("empty"), b"")
        expect_equal("read of an empty object", store.read("empty", 0, 10), b"")
        expect_equal("list: the sizes", [info.size for info in store.list()], [0])
        with expect_refusal(AlreadyExists, "create over an empty object"):
            store.create("empty", b"")

    def test_a_large_object_comes_back_whole(self, store: Store) -> None:
        data = bytes(range(256)) * (20 * 4096)
        store.create("large", data)
        expect_equal("the digest of 20 MiB that were read", digest_of(store.get("large")), digest_of(data))
        expect_equal("read at the end of 20 MiB", store.read("large", len(data) - 3, 10), data[-3:])
        expect_equal("read in the middle of 20 MiB", store.read("large", 10**7, 1000), data[10**7 : 10**7 + 1000])
