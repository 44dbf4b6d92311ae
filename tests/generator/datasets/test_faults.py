"""Readers among faults: objects that vanish or change, caches that are full or of another user, killed readers."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from generator.datasets.builds import resolve_build
from generator.datasets.torch_dataset import open_dataset
from generator.errors import DatasetError, IntegrityError, ObjectMissing
from generator.store import open_store
from tests.support.command_server import run_script
from tests.support.small_builds import SmallBuild

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
SMALL = SmallBuild(counts=(30, 23), shard_size=10)
NOBODY = 65534


@pytest.fixture
def url(tmp_path: Path) -> str:
    SMALL.commit(str(tmp_path / "out"))
    return f"{tmp_path}/out/small"


@pytest.fixture
def remote_url(url: str, bucket: str, s3_settings: Any) -> str:
    """The same build in S3."""
    source, target = open_store(url), open_store(f"{bucket}/small", s3_settings)
    for info in source.list():
        target.put(info.key, source.get(info.key))
    return f"{bucket}/small"


def run_python(home: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    script = home / "program.py"
    script.write_text(program)
    return run_script(script, *words)


def test_a_prefix_of_other_files_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train-000000.tar").write_bytes(bytes(10240))
    with pytest.raises(DatasetError, match="neither"):
        open_dataset(str(tmp_path / "foreign"))
    (tmp_path / "foreign" / "manifest.json").write_text('{"version": 3, "files": []}')
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        open_dataset(str(tmp_path / "foreign"))


@pytest.mark.parametrize("place", ["url", "remote_url"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_object_that_vanishes_while_it_is_read(
    place: str, workers: int, request: pytest.FixtureRequest, s3_settings: Any
) -> None:
    dataset = open_dataset(request.getfixturevalue(place), s3=s3_settings)
    store, manifest = resolve_build(dataset.url, s3_settings)
    store.delete(manifest.shards[3].shard.key)
    seen: list[int] = []
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    with pytest.raises(ObjectMissing, match="small-000003"):
        seen.extend(sample.provenance["index"] for sample in loader)
    assert seen == list(range(sum(each.samples for each in manifest.shards[:3])))
    mapped = open_dataset(dataset.url, map_style=True, s3=s3_settings)
    assert mapped[0].provenance["index"] == 0
    with pytest.raises(ObjectMissing, match="small-000003"):
        mapped[len(seen)]


@pytest.mark.parametrize("place", ["url", "remote_url"])
def test_an_object_that_changes_while_it_is_read(place: str, request: pytest.FixtureRequest, s3_settings: Any) -> None:
    """What is read is what was committed, or an error: never other pixels."""
    dataset = open_dataset(request.getfixturevalue(place), s3=s3_settings)
    mapped = open_dataset(dataset.url, map_style=True, s3=s3_settings)
    store, manifest = resolve_build(dataset.url, s3_settings)
    wanted, steps = mapped[3].image, iter(dataset)
    first = next(steps)
    for receipt in manifest.shards:
        data = bytearray(store.get(receipt.shard.key))
        for place_of_byte in range(600, len(data) - 10240, 256):
            data[place_of_byte] ^= 1
        store.put(receipt.shard.key, bytes(data))
    rest = [sample.provenance["index"] for _, sample in zip(range(manifest.shards[0].samples - 1), steps, strict=False)]
    assert [first.provenance["index"], *rest] == list(range(manifest.shards[0].samples))  # it was in memory
    with pytest.raises(IntegrityError, match="small-000001"):
        next(steps)
    if place == "url":  # a file that is open goes on as it was
        np.testing.assert_array_equal(mapped[3].image, wanted)
    else:
        with pytest.raises(IntegrityError, match="small-000000"):
            mapped[3]
    with pytest.raises(IntegrityError, match="small-000002"):
        mapped[manifest.shards[0].samples + manifest.shards[1].samples]


_WITH_SMALL_FILES = """
import resource, sys
from generator import open_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
dataset = open_dataset(sys.argv[1], cache=sys.argv[2], shuffle=True)
for epoch in range(2):
    dataset.set_epoch(epoch)
    print(sorted(sample.provenance["index"] for sample in dataset) == list(range(53)))
mapped = open_dataset(sys.argv[1], cache=sys.argv[2], map_style=True)
print([mapped[index].provenance["index"] for index in (0, 52)])
"""


@pytest.mark.slow
def test_a_cache_that_is_full_is_read_past(url: str, tmp_path: Path) -> None:
    """The limit of a file's size stands for a full disk: writes fail in their middle."""
    done = run_python(tmp_path, _WITH_SMALL_FILES, url, str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", "True", "[0, 52]"]
    assert list((tmp_path / "cache" / "shards").iterdir()) == []


_ANOTHER_USER = """
import os, sys
from generator import open_dataset
os.setgid(65534)
os.setuid(65534)
dataset = open_dataset(sys.argv[1], cache=sys.argv[2])
print(sum(1 for _ in dataset), os.getuid())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("filled", [False, True])
def test_a_cache_of_another_user_is_read_but_not_written(url: str, tmp_path: Path, filled: bool) -> None:
    cache = tmp_path / "cache"
    for folder in [*tmp_path.parents, tmp_path]:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    ours = open_dataset(url, cache=cache)
    next(iter(ours))
    if filled:
        assert sum(1 for _ in ours) == 53
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (cache / "shards").iterdir())
    done = run_python(tmp_path, _ANOTHER_USER, url, str(cache))
    if filled:
        assert done.stdout.split() == ["53", str(NOBODY)], done.stderr
    else:  # locks that are not there yet cannot be made
        assert done.returncode == 1
        assert "SettingsError: cache: expected a directory that can be written" in done.stderr
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (cache / "shards").iterdir()) == before


_KILLED = """
import os, signal, sys
from torch.utils.data import DataLoader
from generator import open_dataset
dataset = open_dataset(sys.argv[1], shuffle=True, seed=5, batch_size=4, cache=sys.argv[2])
for step, batch in enumerate(DataLoader(dataset, batch_size=None, num_workers=2)):
    print(batch.provenance["index"].tolist(), flush=True)
    if step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_training_that_was_killed_in_mid_epoch_goes_on(url: str, tmp_path: Path) -> None:
    done = run_python(tmp_path, _KILLED, url, str(tmp_path / "cache"))
    assert done.returncode == -signal.SIGKILL
    read = [int(word) for line in done.stdout.splitlines() for word in line.strip("[]").split(", ")]
    assert len(read) == 20
    again = open_dataset(url, shuffle=True, seed=5, batch_size=4, cache=tmp_path / "cache", uneven="keep")
    again.load_state_dict(again.state_dict(consumed=20))
    rest = [index for batch in again for index in batch.provenance["index"].tolist()]
    assert sorted(read + rest) == list(range(53))


def test_a_killed_worker_ends_the_epoch_and_leaves_the_cache_whole(url: str, tmp_path: Path) -> None:
    dataset = open_dataset(url, cache=tmp_path / "cache", transform=_kill_once)
    with pytest.raises(RuntimeError, match="worker"):
        for _ in DataLoader(dataset, batch_size=None, num_workers=1):
            pass
    whole = open_dataset(url, cache=tmp_path / "cache")
    assert sum(1 for _ in whole) == 53


def _kill_once(image: np.ndarray) -> np.ndarray:
    os.kill(os.getpid(), signal.SIGKILL)
    return image
