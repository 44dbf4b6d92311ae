"""The README's training loop under torchrun and ``accelerate launch``: two processes share every epoch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from generator.drafts import parse_draft, resolve_draft
from generator.models.bundle import load_bundle, push
from generator.production.commit import locate_build
from generator.production.mill import build
from generator.store import open_store
from tests.support.bundles import tiny_bundle

ROOT = Path(__file__).parents[2]
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
    # With --cpu, accelerate starts several processes by MPI alone; --multi_gpu starts them as torchrun does.
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"],
}
ACCELERATE = ["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]

pytestmark = [pytest.mark.slow, pytest.mark.server]


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the README's build, made small, and its bundle in a store root."""
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "photos.bundle")
    (text,) = blocks("README.md", "yaml")
    spec, bundle = resolve_draft(parse_draft(yaml.safe_load(text) | {"count": 90, "shard_size": 40}))
    build(locate_build(spec), load_bundle(bundle), device="cpu")
    push(open_store("photos.bundle"), open_store("root"))
    return tmp_path


def launch(launcher: str, script: str) -> str:
    """What the processes printed."""
    done = run(LAUNCHERS[launcher] + (ACCELERATE if launcher == "accelerate" else []), script)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def printed(output: str, word: str) -> list[list[int]]:
    """What each process printed after ``word``, as JSON, by rank."""
    lines = re.findall(rf"{word} (\d) (\[.*?\])", output)
    return [json.loads(found) for _, found in sorted(lines)]


def readme_loop() -> str:
    loop = next(block for block in blocks("README.md") if "open_dataset" in block)
    return (
        "import os\nread = []\n"
        + loop.replace("...", "read.extend(provenance['index'].tolist())")
        + "print(f\"read {os.environ['RANK']} {read}\\n\", end='', flush=True)\n"
    )


def check_readme_loop(output: str) -> None:
    ranks = printed(output, "read")
    assert len(ranks) == 2
    assert {len(rank) for rank in ranks} == {45}
    assert sorted(ranks[0] + ranks[1]) == list(range(90))


def run(command: list[str], script: str, *words: str) -> subprocess.CompletedProcess[str]:
    Path("training.py").write_text(script)
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HOME": str(Path("hf").absolute())}
    environment |= {"ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        [sys.executable, "-m", *command, "training.py", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_readmes_loop_with_torchrun(home: Path) -> None:
    check_readme_loop(launch("torchrun", readme_loop()))


def test_a_bundle_is_trained_by_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "digits",
        "--size",
        "16",
        "--model",
        "linear",
        "--epochs",
        "1",
        "--judges",
        "0",
        "--json",
        "--out",
        "digits.bundle",
    ]
    script = "from workers.cli import main\nmain()\n"
    done = run(LAUNCHERS["torchrun"], script, "train", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["digest"] == load_bundle(open_store("digits.bundle")).digest
    again = run(LAUNCHERS["torchrun"], script, "train", *words)
    assert again.returncode != 0
    assert "a path that does not exist" in again.stderr


def test_the_readmes_loop_and_then_the_training_of_the_page_with_accelerate(home: Path) -> None:
    (training,) = (block for block in blocks("docs/consume.md") if "Accelerator" in block)
    training += "print(f'trained {accelerator.process_index} {seen}\\n', end='', flush=True)\n"
    output = launch("accelerate", readme_loop() + training)
    check_readme_loop(output)
    ranks = printed(output, "trained")
    assert len(ranks) == 2
    assert {len(rank) for rank in ranks} == {3 * 32}  # three epochs of two batches of 16
    epochs = [set(ranks[0][32 * epoch : 32 * epoch + 32]) | set(ranks[1][32 * epoch :][:32]) for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [64] * 3


KILL = """\
            if len(sys.argv) > 4 and epoch == 1:
                import os, signal
                os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_whole_training_of_the_page_is_killed_and_goes_on_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_bundle(tmp_path / "photos.bundle", channels=3)
    fields = {"bundle": "photos.bundle", "destination": "datasets", "name": "photos", "count": 500}
    spec, bundle = resolve_draft(parse_draft(fields))
    build(locate_build(spec), load_bundle(bundle), device="cpu")
    rng = np.random.default_rng(0)
    for number in range(400):
        path = tmp_path / "photos" / ("cat", "dog", "owl")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (script,) = (block for block in blocks("docs/consume.md") if "DistributedDataParallel" in block)
    place = 'checkpoint.with_suffix(".part").replace(checkpoint)\n'
    assert place in script
    words = ("datasets/photos", "photos", "checkpoint.pt")
    killed = run(LAUNCHERS["torchrun"], script.replace(place, place + KILL), *words, "kill")
    assert killed.returncode != 0
    assert "epoch 0: loss" in killed.stdout
    assert "epoch 1: loss" not in killed.stdout
    alone = run(["torch.distributed.run", "--standalone", "--nproc-per-node=1"], script, *words)
    assert alone.returncode == 0, alone.stderr[-3000:]
    assert "going on in epoch 1 after 640 samples" in alone.stdout
    assert re.findall(r"epoch (\d): loss [\d.]+ after (\d+) samples", alone.stdout) == [("1", "800"), ("2", "800")]
