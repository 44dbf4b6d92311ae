"""Faults of the local store: crashes, links, full disks, files in place of directories."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from generator.errors import AccessDenied, AlreadyExists, Changed, ObjectMissing, StoreUnavailable
from generator.store import Store, open_store
from generator.store.partial_writes import prune_directories

_WRITER = """
import sys
from itertools import count
from generator.store import open_store
store = open_store(sys.argv[1])
for number in count():
    store.create(f"d{number % 7}/{number:08d}", bytes([number % 251]) * 300_000)
    store.put("latest", b"%08d" % number * 10_000)
    print(number, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "root"))


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_only_whole_objects(store: Store, tmp_path: Path) -> None:
    acknowledged = -1
    for moment in (0, 0.013, 0.037):
        root = str(tmp_path / "root" / str(moment))
        command = [sys.executable, "-c", _WRITER, root]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = int(writer.stdout.readline())
            time.sleep(moment)
            writer.send_signal(signal.SIGKILL)
        below = open_store(root)
        sizes = {info.key: len(below.get(info.key)) for info in below.list("d")}
        assert f"d{acknowledged}/{acknowledged:08d}" in sizes
        assert set(sizes.values()) == {300_000}
        assert len(set(below.get(f"d0/{0:08d}"))) == 1
        assert len(below.get("latest")) == 80_000


def test_leftovers_of_a_crash_are_invisible(store: Store, tmp_path: Path) -> None:
    store.create("a/b", b"x")
    for name in (".tmp-0123456789abcdef", ".lock", ".latentmill-probe-0"):
        (tmp_path / "root" / "a" / name).write_bytes(b"half")
    (tmp_path / "root" / "only-leftovers").mkdir()
    (tmp_path / "root" / "only-leftovers" / ".tmp-0").write_bytes(b"half")
    assert [info.key for info in store.list()] == ["a/b"]
    assert list(store.children()) == ["a"]


def test_nothing_hidden_is_left_by_writing(store: Store, tmp_path: Path) -> None:
    store.create("a/b", b"x")
    with pytest.raises(AlreadyExists):
        store.create("a/b", b"y")
    store.check_writable()
    assert [path.name for path in (tmp_path / "root").rglob("*")] == ["a", "b"]


def test_proving_writability_makes_no_directory(tmp_path: Path) -> None:
    open_store(str(tmp_path / "not" / "yet")).check_writable()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_root_is_an_empty_store(store: Store, tmp_path: Path) -> None:
    assert list(store.list()) == list(store.children()) == []
    assert store.head("a") is None
    store.delete("a")
    with pytest.raises(Changed):
        store.replace("a", b"", "etag")
    assert not (tmp_path / "root").exists()


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    store.put("a", b"old")
    for write in (lambda: store.create("b", b"x" * 100_000), lambda: store.put("a", b"x" * 100_000)):
        with _files_of_at_most(50_000), pytest.raises(StoreUnavailable) as failed:
            write()
        assert isinstance(failed.value.__cause__, OSError)
    assert store.get("a") == b"old"
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == [".lock", "a"]
    store.create("b", b"x" * 100_000)


def _unwritable(tmp_path: Path) -> list[str]:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    return [str(tmp_path / "file"), str(tmp_path / "file" / "below"), "/proc/latentmill", str(tmp_path / "dangling")]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for url in _unwritable(tmp_path):
        store = open_store(url)
        calls: list[Callable[[], object]] = [
            store.check_writable,
            store.at("some/where").check_writable,
            lambda store=store: store.create("a", b"x"),
            lambda store=store: store.put("a", b"x"),
        ]
        for call in calls:
            with pytest.raises(AccessDenied):
                call()


def test_a_file_and_a_directory_cannot_share_a_name(store: Store) -> None:
    store.create("a", b"x")
    store.create("d/e", b"x")
    for write in (store.create, store.put):
        with pytest.raises(AccessDenied):
            write("a/b", b"y")
        with pytest.raises(AccessDenied):
            write("d", b"y")
    assert [info.key for info in store.list()] == ["a", "d/e"]


def test_links_are_not_followed(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.create("a/b", b"x")
    root = tmp_path / "root"
    (root / "way-out").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret")
    (root / "loop").symlink_to(root)
    (root / "self").symlink_to("self")
    for key in ("way-out/secret", "file", "loop/a/b", "self"):
        assert store.head(key) is None
        with pytest.raises(ObjectMissing):
            store.get(key)
        store.delete(key)
    for key in ("way-out/new", "loop/new", "self/new", "file"):
        with pytest.raises(AccessDenied):
            store.create(key, b"y")
    with pytest.raises(AccessDenied):
        store.at("way-out").check_writable()
    assert list(store.at("way-out").list()) == []
    assert [info.key for info in store.list()] == ["a/b"]
    assert list(store.children()) == ["a"]
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_a_put_replaces_a_link_and_spares_its_target(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    store.create("a", b"x")
    (tmp_path / "root" / "link").symlink_to(target)
    store.put("link", b"new")
    assert target.read_bytes() == b"old"
    assert store.get("link") == b"new"


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = open_store(str(tmp_path / "link"))
    store.check_writable()
    store.create("a/b", b"x")
    assert open_store(str(tmp_path / "real")).get("a/b") == b"x"


def test_a_new_version_is_never_taken_for_an_old_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions differ even with the same size, reused inodes, and a clock that does not advance."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_800_000_000_000_000_000)
    etags, times = [store.create("a", b"0")], [(tmp_path / "root" / "a").stat().st_mtime_ns]
    for number in range(1, 10):
        etags.append(store.replace("a", str(number).encode(), etags[-1]))
        times.append((tmp_path / "root" / "a").stat().st_mtime_ns)
    assert len(set(etags)) == 10
    assert times == sorted(set(times))


def test_files_have_the_permissions_of_ordinary_files(store: Store, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store.create("a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "root" / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.slow
def test_two_processes_never_both_replace_one_version(store: Store, tmp_path: Path) -> None:
    """Four processes count up in one object: no increment is lost."""
    counter = (
        "import sys\n"
        "from generator.errors import Changed\n"
        "from generator.store import open_store\n"
        "store, left = open_store(sys.argv[1]), 25\n"
        "while left:\n"
        "    info = store.head('n')\n"
        "    value = int(store.get('n'))\n"
        "    try:\n"
        "        store.replace('n', b'%d' % (value + 1), info.etag)\n"
        "        left -= 1\n"
        "    except Changed:\n"
        "        pass\n"
    )
    store.create("n", b"0")
    command = [sys.executable, "-c", counter, str(tmp_path / "root")]
    workers = [subprocess.Popen(command) for _ in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert store.get("n") == b"100"


def test_pruning_removes_empty_directories(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "root"))
    for key in ("builds/a/shards/1.tar", "builds/a/runs/x.json", "builds/b/manifest.json"):
        store.put(key, b"x")
    for key in ("builds/a/shards/1.tar", "builds/a/runs/x.json"):
        store.delete(key)
    (tmp_path / "root/builds/a/foreign").mkdir()
    prune_directories(store.at("builds/a"))
    prune_directories(store.at("builds/b"))
    prune_directories(store)
    assert sorted(path.name for path in (tmp_path / "root/builds").iterdir()) == ["b"]
    assert store.get("builds/b/manifest.json") == b"x"
    prune_directories(open_store(f"memory://{uuid.uuid4().hex}"))


@pytest.mark.slow
def test_pruning_does_not_disturb_concurrent_writers(tmp_path: Path) -> None:
    root, stop = open_store(str(tmp_path)), threading.Event()

    def prune_repeatedly() -> None:
        while not stop.wait(0.01):  # a tight loop would starve the writers
            prune_directories(root.at("a"))

    def write_repeatedly(writer: int) -> None:
        for number in range(60):
            key = f"a/b{number % 3}/{writer}"
            root.create(key, b"1")
            etag = root.put(key, b"2")
            root.replace(key, b"3", etag)
            assert root.get(key) == b"3"
            root.delete(key)

    with ThreadPoolExecutor(5) as threads:
        pruning = threads.submit(prune_repeatedly)
        try:
            for done in [threads.submit(write_repeatedly, writer) for writer in range(3)]:
                done.result(timeout=120)
        finally:
            stop.set()
        pruning.result(timeout=60)
