"""One contract, three stores: the same laws hold in memory, in a directory, and over HTTP."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier

import pytest

from generator.errors import AlreadyExists, BuildConflict, Changed, ObjectMissing, SpecError
from generator.spec.canonical import digest_of
from generator.store import Store, open_store
from generator.store.put_once import put_once

HOSTILE_KEYS = [
    "", "/", "/etc/passwd", "..", "../up", "a/../../up", "a/./b", ".", "a//b", "a/", "a\\b", "a b", "a\n", "a\0b",
    "~", "a?b", "a#b", "a%2e%2e", "é", "a:b", ".hidden", "a/.lock", ".tmp-0123", "x" * 256, "k/" * 460 + "k", "a*",
]  # fmt: skip
WRITERS = 16


def test_what_is_created_is_read_back(store: Store) -> None:
    etag = store.create("a/b.bin", b"0123456789")
    assert store.get("a/b.bin") == b"0123456789"
    info = store.head("a/b.bin")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("a/b.bin", 10, etag)
    assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=5)
    assert info.modified.tzinfo is UTC


def test_a_create_never_overwrites(store: Store) -> None:
    store.create("a", b"first")
    with pytest.raises(AlreadyExists) as refused:
        store.create("a", b"second")
    assert refused.value.field == f"{store.url}/a"
    assert store.get("a") == b"first"


def test_a_replace_needs_the_version_it_read(store: Store) -> None:
    first = store.create("a", b"first")
    second = store.replace("a", b"other", first)  # of the same length
    assert second != first
    with pytest.raises(Changed):
        store.replace("a", b"stale", first)
    assert store.get("a") == b"other"
    assert store.replace("a", b"third", second)
    assert store.get("a") == b"third"


def test_what_is_gone_has_changed(store: Store) -> None:
    etag = store.create("a/b", b"x")
    store.delete("a/b")
    for key in ("a/b", "never/was"):
        with pytest.raises(Changed):
            store.replace(key, b"y", etag)
    assert list(store.list()) == []


def test_versions_written_in_a_row_have_different_etags(store: Store) -> None:
    etags = [store.create("a", b"0")]
    etags += [store.put("a", str(number % 10).encode()) for number in range(1, 10)]
    assert len(set(etags)) == 10


def test_a_put_writes_whatever_is_there(store: Store) -> None:
    store.put("a", b"one")
    etag = store.put("a", b"two")
    info = store.head("a")
    assert info is not None
    assert info.etag == etag
    assert store.get("a") == b"two"


def test_a_delete_of_nothing_is_fine(store: Store) -> None:
    store.delete("never/was")
    store.create("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    assert store.head("a/b") is None
    store.create("a/b", b"again")


def test_what_is_missing_is_said_by_name(store: Store) -> None:
    store.create("a", b"x")
    for ask in (store.get, lambda key: store.read(key, 0, 1), lambda key: store.read(key, 0, 0)):
        for key in ("b", "some/b", "a/below-an-object"):
            with pytest.raises(ObjectMissing, match=f"{store.url}/{key}"):
                ask(key)
    assert store.head("b") is None
    assert store.head("a/below-an-object") is None


def test_a_directory_is_no_object(store: Store) -> None:
    store.create("a/b", b"x")
    assert store.head("a") is None
    with pytest.raises(ObjectMissing):
        store.get("a")
    store.delete("a")
    assert store.get("a/b") == b"x"


@pytest.mark.parametrize(("start", "length"), [(0, 10), (3, 4), (8, 100), (9, 1), (10, 1), (99, 5), (2, 0), (10, 0)])
def test_a_range_is_a_slice(store: Store, start: int, length: int) -> None:
    store.create("a", b"0123456789")
    assert store.read("a", start, length) == b"0123456789"[start : start + length]


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.create("empty", b"")
    assert store.get("empty") == b""
    assert store.read("empty", 0, 10) == b""
    assert [info.size for info in store.list()] == [0]
    with pytest.raises(AlreadyExists):
        store.create("empty", b"")


def test_a_large_object_comes_back_whole(store: Store) -> None:
    data = bytes(range(256)) * (20 * 4096)
    store.create("large", data)
    assert digest_of(store.get("large")) == digest_of(data)
    assert store.read("large", len(data) - 3, 10) == data[-3:]


def test_lists_are_whole_and_ascending(store: Store) -> None:
    keys = ["a", "b/c", "b-c", "b/a/z", "b.c", "b=1", "shards/x-000001.tar", "shards/x-000000.tar", "shards0", "z/1"]
    for key in keys:
        store.create(key, key.encode())
    for prefix in ("", "b", "b/", "b/a/z", "shards/", "shards", "shards/x-00000", "none", "none/"):
        expected = sorted(key for key in keys if key.startswith(prefix))
        listed = list(store.list(prefix))
        assert [info.key for info in listed] == expected, prefix
        assert all(store.head(info.key) == info for info in listed)


def test_children_are_directories_with_something_in_them(store: Store) -> None:
    for key in ("a/x", "a-b/x", "a/deep/er/x", "file", "gone/x"):
        store.create(key, b"")
    store.delete("gone/x")
    assert list(store.children()) == ["a", "a-b"]
    assert list(store.children("a/")) == ["deep"]
    assert list(store.children("a/deep/er/")) == []
    assert list(store.children("none/")) == []
    with pytest.raises(SpecError):
        store.children("a")


def test_a_store_below_a_prefix_sees_only_that(store: Store) -> None:
    below = store.at("builds/one/")
    below.create("receipts/0.json", b"{}")
    store.create("builds/one-more", b"")
    assert below.url == f"{store.url}/builds/one"
    assert [info.key for info in below.list()] == ["receipts/0.json"]
    assert store.get("builds/one/receipts/0.json") == b"{}"
    assert [info.key for info in below.at("receipts").list()] == ["0.json"]
    assert list(store.at("builds").children()) == ["one"]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_hostile_keys_are_refused_everywhere(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get(key),
        lambda: store.read(key, 0, 1),
        lambda: store.head(key),
        lambda: store.create(key, b"x"),
        lambda: store.replace(key, b"x", "etag"),
        lambda: store.put(key, b"x"),
        lambda: store.delete(key),
        lambda: store.at(key) if key != "a/" else store.at("a//"),
        lambda: store.list(key) if key not in ("", "a/") else store.list("/"),
        lambda: store.children(f"{key}/"),
    ]
    for call in calls:
        with pytest.raises(SpecError):
            call()
    assert list(store.list()) == []


def test_a_prefix_and_a_key_are_measured_together(store: Store) -> None:
    below = store.at("/".join(["p" * 200] * 4))
    with pytest.raises(SpecError):
        below.create("k" * 200, b"x")


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1)])
def test_negative_ranges_are_refused(store: Store, start: int, length: int) -> None:
    store.create("a", b"0123456789")
    with pytest.raises(SpecError):
        store.read("a", start, length)


def _race(write: Callable[[bytes], object], refusal: type[Exception]) -> bytes:
    """What the only winner wrote, of many writers that start at one moment."""
    start = Barrier(WRITERS)

    def attempt(number: int) -> bytes | None:
        data = b"%d" % number * 1000
        start.wait()
        try:
            write(data)
        except refusal:
            return None
        return data

    with ThreadPoolExecutor(WRITERS) as pool:
        (winner,) = filter(None, pool.map(attempt, range(WRITERS)))
    return winner


def test_of_many_creators_one_wins(store: Store) -> None:
    for key in ("race/a", "race/b", "race/c"):
        winner = _race(partial(store.create, key), AlreadyExists)
        assert store.get(key) == winner


def test_of_many_replacers_one_wins(store: Store) -> None:
    for key in ("race/a", "race/b", "race/c"):
        winner = _race(partial(store.replace, key, etag=store.create(key, b"start")), Changed)
        assert store.get(key) == winner


def test_put_once_tells_a_repeat_from_a_conflict(store: Store) -> None:
    assert put_once(store, "a", b"same") is True
    assert put_once(store, "a", b"same") is False
    with pytest.raises(BuildConflict) as conflict:
        put_once(store, "a", b"else")
    assert conflict.value.field == f"{store.url}/a"
    assert (conflict.value.expected, conflict.value.got) == (digest_of(b"else"), digest_of(b"same"))
    assert store.get("a") == b"same"


def test_proving_writability_leaves_nothing(store: Store) -> None:
    store.at("some/where").check_writable()
    store.check_writable()
    assert list(store.list()) == []
    assert list(store.children()) == []


def test_a_pickled_store_is_the_same_store(store: Store) -> None:
    store.create("before", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.url == store.url
    assert copy.get("before") == b"1"
    copy.create("after", b"2")
    assert store.get("after") == b"2"


def test_a_store_is_found_again_by_its_url(store: Store, request: pytest.FixtureRequest) -> None:
    store.create("a", b"x")
    settings = request.getfixturevalue("s3_settings") if store.url.startswith("s3:") else None
    assert open_store(store.url, settings).get("a") == b"x"
