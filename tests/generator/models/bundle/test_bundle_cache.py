"""The cache of bundles: its size, its roots, damage, and other processes that evict."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generator.errors import BundleError, BundleMissing, StoreUnavailable
from generator.models.bundle import BundleCache, bundle_store, push
from generator.store import open_store
from generator.store.base import Store
from tests.support.bundles import tiny_bundle


def pushed(tmp_path: Path, count: int) -> tuple[Store, list[str]]:
    """A root with ``count`` bundles, and their digests."""
    root = open_store(str(tmp_path / "root"))
    return root, [push(open_store(str(tiny_bundle(tmp_path / f"b{n}", seed=n))), root) for n in range(count)]


def test_the_cache_keeps_to_its_size_and_to_its_roots(tmp_path: Path) -> None:
    root, digests = pushed(tmp_path, 3)
    cache = BundleCache(tmp_path / "cache", max_bytes=1)
    for digest in digests:
        assert cache.load(digest, (root,)).digest == digest
        assert [home.name for home in (tmp_path / "cache").iterdir()] == [digest.removeprefix("sha256:")]
    with pytest.raises(BundleMissing, match="push it first"):
        cache.load("sha256:" + "1" * 64, (root,))
    with pytest.raises(BundleMissing, match="no root"):
        cache.load(digests[0], ())


def test_the_cache_answers_without_its_roots(tmp_path: Path) -> None:
    root, digests = pushed(tmp_path, 2)
    cache = BundleCache(tmp_path / "cache", max_bytes=2**30)
    for digest in digests:
        cache.load(digest, (open_store("memory://empty"), root))
    assert [cache.load(digest, ()).digest for digest in digests] == digests


@pytest.mark.parametrize("name", ["bundle.json", "decoder.safetensors", "codes.safetensors"])
def test_a_damaged_cache_entry_is_pulled_again(tmp_path: Path, name: str) -> None:
    root, [digest] = pushed(tmp_path, 1)
    cache = BundleCache(tmp_path / "cache", max_bytes=2**30)
    cache.load(digest, (root,))
    path = tmp_path / "cache" / digest.removeprefix("sha256:") / name
    intact = path.read_bytes()
    path.write_bytes(bytes([intact[0] ^ 1]) + intact[1:])
    assert cache.load(digest, (root,)).digest == digest
    assert path.read_bytes() == intact
    path.unlink()
    assert cache.load(digest, (root,)).digest == digest
    assert path.read_bytes() == intact


def test_a_damaged_root_does_not_enter_the_cache(tmp_path: Path) -> None:
    root, [digest] = pushed(tmp_path, 1)
    bundle_store(root, digest).put("decoder.safetensors", b"something else")
    cache = BundleCache(tmp_path / "cache", max_bytes=2**30)
    with pytest.raises(BundleError, match=r"decoder\.safetensors") as caught:
        cache.load(digest, (root,))
    assert not isinstance(caught.value, BundleMissing)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_bundle_is_left_alone_in_the_cache(tmp_path: Path) -> None:
    root, digests = pushed(tmp_path, 2)
    cache = BundleCache(tmp_path / "cache", max_bytes=1)
    strays = ["notes.txt", "f" * 64, ".DS_Store"]
    (tmp_path / "cache" / "lost+found").mkdir(parents=True)
    for stray in strays:
        (tmp_path / "cache" / stray).write_text("not a bundle")
    for digest in digests:
        cache.load(digest, (root,))
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {*strays, "lost+found", digests[-1].removeprefix("sha256:")}


def test_a_cache_that_cannot_be_written_is_a_fault_of_this_host_alone(tmp_path: Path) -> None:
    root, [digest] = pushed(tmp_path, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cache"):
        BundleCache(tmp_path / "file" / "cache", max_bytes=1).load(digest, (root,))


def test_loading_never_fails_while_others_evict(tmp_path: Path) -> None:
    root, digests = pushed(tmp_path, 2)
    cache = BundleCache(tmp_path / "cache", max_bytes=0)

    def loads(worker: int) -> list[str]:
        return [cache.load(digests[(worker + turn) % 2], (root,)).digest for turn in range(15)]

    with ThreadPoolExecutor(8) as pool:
        for worker, loaded in enumerate(pool.map(loads, range(8))):
            assert loaded == [digests[(worker + turn) % 2] for turn in range(15)]
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]
