"""Makes the golden bundle and builds: ``python -m tests.golden.make DIRECTORY``.

Everything is made by the ``latentmill`` command, in processes that use the plainest instructions of the processor, so
that the bytes are the same on every x86-64 machine with the pinned libraries. They are forked from one that was started
so, with these instructions chosen.

``tests/golden/kept`` was made so by the last commit before the files of ``generator`` and ``workers`` were moved: a
bundle, and builds of version 1 recipes; ``digests.json`` lists it. ``tests/golden/kept_version_2`` was made by the
commit that brought version 2 recipes: builds, and those files of the bundle that differ from the earlier one's, which
had no map; ``digests_version_2.json`` lists the whole bundle and the builds. ``tests/golden/kept_publication`` has
builds of that bundle whose recipes state day of publication, license, creator and citation;
``digests_publication.json`` lists them and the bundle. ``digests_by_processor.json``: what the same code makes on other
kinds of processors (``describe_processor``).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from isal import isal_zlib

from tests.support.command_server import run_forked, shared_fork_server
from tests.support.fork_server import ForkedCommand

BUNDLE = "digits.bundle"
BUILDS: dict[str, dict[str, Any]] = {  # of version 1 recipes
    "plain": {"image": {"format": "png"}},
    "screened": {
        "image": {"format": "jpeg", "quality": 90},
        "density_floor": 0.05,
        "label_floor": 0.02,
        "novelty_floor": 0.02,
        "temperature": 0.9,
    },
}
BUILDS_OF_VERSION_2: dict[str, dict[str, Any]] = {
    "mapped": {"image": {"format": "jpeg", "quality": 90}, "density_floor": 0.05, "label_floor": 0.02},
    "floors": {"image": {"format": "png"}, "density_floor": 0.05, "max_attempts": 1000},  # the judge confirms no fives
    "bare": {"image": {"format": "png"}, "latents": False, "label_floor": None, "novelty_floor": None},
}
BUILDS_WITH_PUBLICATION: dict[str, dict[str, Any]] = {  # of version 2 recipes, of the kept bundle
    "dated": {"image": {"format": "png"}, "published": "2026-01-15", "label_floor": None, "novelty_floor": None},
    "cited": {
        "image": {"format": "jpeg", "quality": 90},
        "density_floor": 0.05,
        "label_floor": 0.02,
        "published": "2026-02-28",
        "license": "CC-BY-4.0",
        "creator": {"name": "Example Imaging Group", "kind": "organization", "url": "https://example.org/imaging"},
        "citation": "Example Imaging Group: Synthetic digits, 2026.",
    },
}
PLAINEST = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
}
_TRAIN = (
    *("train", "digits", "--size", "8", "--latent-dim", "4", "--width", "8", "--epochs", "30", "--batch", "32"),
    *("--beta", "0.1", "--seed", "7", "--judge-width", "8", "--judge-steps", "300", "--clusters", "2"),
    *("--device", "cpu"),
)
_SMALL_TRAINING = """
import hashlib, torch
from torch import nn
torch.manual_seed(0)
layers = (nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.Flatten())
network = nn.Sequential(*layers, nn.Linear(128, 16))
optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
for _ in range(200):
    optimizer.zero_grad()
    network(torch.rand(32, 1, 8, 8)).square().mean().backward()
    optimizer.step()
print(hashlib.sha256(b"".join(each.detach().numpy().tobytes() for each in network.parameters())).hexdigest())
"""


def make(directory: Path) -> None:
    """Train the bundle and make every build of a version 2 recipe in ``directory``."""
    latentmill(directory, [*_TRAIN, "--out", BUNDLE], *(build(directory, name) for name in BUILDS_OF_VERSION_2))


def build(directory: Path, name: str) -> list[str]:
    """The command that makes one build below ``directory/builds``, or goes on with it; its spec is written."""
    spec = {"bundle": BUNDLE, "destination": "builds", "name": name, "count": 60, "shard_size": 25}
    later = {"published": None, "page": False} | (BUILDS_OF_VERSION_2 | BUILDS_WITH_PUBLICATION).get(name, {})
    own = {"recipe_version": 1, **BUILDS[name]} if name in BUILDS else later
    (directory / f"{name}.json").write_text(json.dumps(spec | {"seed": 3, "batch": 16} | own))
    return ["generate", f"{name}.json", "--device", "cpu", "--compile", "never"]


def latentmill(directory: Path, *commands: list[str]) -> list[Any]:
    """What each of ``commands``, run in one process, prints with ``--json``. Raises ``RuntimeError`` if one fails."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")}
    places = ("ROOT", "STATE_DIR", "CACHE_DIR", "SOURCE_CACHE")
    state = {f"LATENTMILL_{name}": str(directory / ".state") for name in places}
    script = str(Path(__file__).with_name("commands.py"))
    command = ForkedCommand("script", [script, json.dumps(commands)], directory, own | state | PLAINEST)
    done = run_forked(command, 240.0, shared_fork_server(**PLAINEST))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def describe_machine() -> dict[str, str]:
    """What these bytes depend on beside our code: versions of libraries, and what two of them make of fixed input."""
    found = {name: version(name) for name in ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "pillow", "isal")}
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    samples = {
        "isal's deflate": isal_zlib.compress(bytes(range(256)) * 64, 1),
        "simplejpeg's JPEG": simplejpeg.encode_jpeg(pixels, quality=90),
    }
    return found | {"machine": platform.machine()} | {name: _sha256(data) for name, data in samples.items()}


def describe_processor() -> str:
    """The digest of what torch makes of a small training. Even the plainest instructions round differently where sums
    are split by the sizes of a processor's caches."""
    command = [sys.executable, "-c", _SMALL_TRAINING]
    return subprocess.run(command, env=os.environ | PLAINEST, check=True, capture_output=True, text=True).stdout.strip()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests(directory: Path) -> dict[str, str]:
    """The sha256 of every file of the bundle and the builds, without ``runs/`` (measured times) and lock files."""
    files = sorted(path for part in (BUNDLE, "builds") for path in (directory / part).rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): _sha256(path.read_bytes())
        for path in files
        if "runs" not in path.parts and path.name != ".lock"
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    make(target)
    sys.stdout.write(json.dumps(digests(target), indent=1) + "\n")
