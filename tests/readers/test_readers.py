"""Builds and exports, read by the libraries that they are made for: every sample once, right pixels, right labels.

The libraries live in an environment of their own, ``.venv-readers`` (``make test-readers``), and run in processes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generator.datasets.exports import Target, export_build
from generator.datasets.torch_dataset import open_dataset
from generator.spec.recipe import JpegSettings, ShardFormatName
from tests.support.small_builds import SmallBuild

HERE = Path(__file__).parent
PYTHON = HERE.parents[1] / ".venv-readers" / "bin" / "python"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="the environment of the readers is missing: make test-readers"),
]

FORMATS: tuple[ShardFormatName, ...] = ("webdataset", "parquet", "mds")
KINDS: dict[str, dict[str, Any]] = {
    "grey png": {"counts": (70, 63), "shard_size": 40},
    "colour jpeg": {"counts": (20, 20), "shard_size": 10, "channels": 3, "size": 16, "image": JpegSettings()},
    "unlabelled png": {"classes": (), "counts": (41,), "shard_size": 12, "channels": 3},
}


class Builds:
    """The builds of one kind in every format, their exports, and their samples as ``open_dataset`` gives them."""

    def __init__(self, home: Path, kind: str) -> None:
        self._home, self._fields = home, KINDS[kind]
        self.build = {name: self._commit(name) for name in FORMATS}
        first, *others = (self._samples(directory) for directory in self.build.values())
        assert others == [first, first]
        self.samples = first

    def export(self, source: ShardFormatName, target: Target) -> Path:
        out = self._home / f"{source}-{target}"
        export_build(str(self.build[source]), target, out)
        return out

    def _commit(self, name: ShardFormatName) -> Path:
        build = SmallBuild(name=name, format=name, published="2026-01-31", **self._fields)
        location, _ = build.commit(str(self._home))
        return Path(location.url.removeprefix("file://"))

    def _samples(self, directory: Path) -> list[tuple[str, int | None]]:
        return sorted(
            (hashlib.sha256(rgb(image).tobytes()).hexdigest(), None if label < 0 else label)
            for image, label, _ in open_dataset(str(directory))
        )


def rgb(image_HWC: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image_HWC if image_HWC.shape[2] == 3 else image_HWC.repeat(3, axis=2))


@pytest.fixture(scope="module", params=list(KINDS))
def builds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    return Builds(tmp_path_factory.mktemp("builds"), request.param)


def read(library: str, directory: Path, tmp_path: Path) -> list[tuple[str, int | None]]:
    """The samples that ``library`` reads in ``directory``, sorted, without network."""
    (scratch := tmp_path / "scratch").mkdir()
    found = tmp_path / "found.json"
    done = subprocess.run(
        [PYTHON, HERE / "read_with.py", library, directory, scratch, found],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return sorted((pixels, label) for pixels, label in json.loads(found.read_text()))


@pytest.mark.parametrize(
    ("library", "source"),
    [
        ("webdataset", "webdataset"),
        ("webdataset-workers", "webdataset"),
        ("datasets", "webdataset"),
        ("datasets-streaming", "webdataset"),
        ("datasets", "parquet"),
        ("datasets-streaming", "parquet"),
    ],
)
def test_a_build_is_read_by(library: str, source: ShardFormatName, builds: Builds, tmp_path: Path) -> None:
    assert read(library, builds.build[source], tmp_path) == builds.samples


@pytest.mark.parametrize("library", ["mosaic", "mosaic-remote", "litdata"])
def test_the_shards_of_an_mds_build_are_read_by(library: str, builds: Builds, tmp_path: Path) -> None:
    assert read(library, builds.build["mds"] / "shards", tmp_path) == builds.samples


@pytest.mark.parametrize("library", ["streaming", "litdata"])
def test_the_examples_of_the_card_run(library: str, builds: Builds) -> None:
    directory = builds.build["mds"]
    blocks = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), flags=re.DOTALL)
    (example,) = [block for block in blocks if f"from {library} " in block]
    first = f"import sys; sys.path.insert(0, {str(HERE)!r}); import read_with"
    prepare = "; read_with.declare_torchvision_operators()" if library == "streaming" else ""
    script = f"{first}{prepare}\n{example}\nprint(len(images))"
    done = subprocess.run(
        [PYTHON, "-c", script], cwd=directory, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == str(len(builds.samples))


@pytest.mark.parametrize(
    ("library", "source", "target"),
    [
        ("energon", "webdataset", "energon"),
        ("energon-by-name", "parquet", "energon"),
        ("datasets", "webdataset", "hf-folder"),
        ("datasets-streaming", "mds", "hf-folder"),
        ("lance", "webdataset", "lance"),
        ("lance", "mds", "lance"),
        ("mosaic", "parquet", "mds"),
        ("litdata", "webdataset", "mds"),
    ],
)
def test_an_export_is_read_by(
    library: str, source: ShardFormatName, target: Target, builds: Builds, tmp_path: Path
) -> None:
    out = builds.export(source, target)
    assert read(library, out, tmp_path) == builds.samples
