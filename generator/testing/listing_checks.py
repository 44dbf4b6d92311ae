"""Checks of listings: all objects, and the directories that hold objects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from generator.errors import SpecError
from generator.store import Store
from generator.testing.expectations import expect, expect_equal, expect_refusal

_KEYS = ["a", "b/c", "b-c", "b/a/z", "b.c", "b=1", "shards/x-000001.tar", "shards/x-000000.tar", "shards0", "z/1"]
_PREFIXES = ("", "b", "b/", "b/a/z", "shards/", "shards", "shards/x-00000", "none", "none/")
_WRITERS = 8


class ListingChecks:
    """What ``list`` and ``children`` promise."""

    page = 1000  # objects in one response of S3; subclasses for stores without pages may set a smaller number

    def test_lists_are_whole(self, store: Store) -> None:
        _create_all(store)
        for prefix in _PREFIXES:
            listed = list(store.list(prefix))
            expected = [key for key in sorted(_KEYS) if key.startswith(prefix)]
            expect_equal(f"list({prefix!r}), sorted", sorted(info.key for info in listed), expected)
            for info in listed:
                expect_equal(f"head({info.key!r})", store.head(info.key), info)

    def test_lists_continue_after_the_first_page(self, store: Store) -> None:
        keys = [f"many/{number:04d}/x" for number in range(self.page + 2)]
        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(partial(store.put, data=b""), keys))
        listed, named = [info.key for info in store.list()], list(store.children("many/"))
        found = f"list gave {len(listed):,} and children {len(named):,} of {len(keys):,} objects, each in a directory"
        expect((sorted(listed), len(named)) == (keys, len(keys)), found)

    def test_children_are_directories(self, store: Store) -> None:
        for key in ("a/x", "a-b/x", "a/deep/er/x", "file"):
            store.create(key, b"")
        for prefix, expected in (("", ["a", "a-b"]), ("a/", ["deep"]), ("a/deep/er/", []), ("none/", [])):
            expect_equal(f"children({prefix!r})", list(store.children(prefix)), expected)
        with expect_refusal(SpecError, "children('a'), a prefix without '/',"):
            store.children("a")

    def test_a_directory_without_objects_is_not_a_child(self, store: Store) -> None:
        for key in ("gone/x", "gone-too/deep/x", "half/x", "half/y"):
            store.create(key, b"")
        for key in ("gone/x", "gone-too/deep/x", "half/y"):
            store.delete(key)
        expect_equal("children after all objects of two directories were deleted", list(store.children()), ["half"])


def _create_all(store: Store) -> None:
    for key in _KEYS:
        store.create(key, key.encode())
