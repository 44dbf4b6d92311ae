"""Several processes that train together: the weights of one process, one checkpoint, and clear refusals."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from generator.errors import SettingsError, SpecError
from generator.models.autoencoders import replicas as replicas_module
from generator.models.autoencoders.replicas import ALONE, Replicas, launched_replicas
from generator.models.autoencoders.settings import TrainSettings
from generator.models.bundle import load_bundle
from generator.models.latents.config import TransportSettings
from generator.models.learning import TrainingPlan
from generator.models.screening.config import JudgeSettings
from generator.store import open_store
from tests.support import replica_training
from tests.support.command_server import shared_fork_server
from tests.support.fork_server import ForkedCommand
from tests.support.servers import free_port

ROOT = Path(__file__).parents[4]
SCRIPT = Path(replica_training.__file__)


def run_together(
    kind: str, words: Sequence[object], home: Path, count: int = 2, **environment: str
) -> list[tuple[int, str, str]]:
    """Run ``count`` processes as ``torchrun`` would start them; their exit codes and what they printed, by rank."""
    home.mkdir(parents=True, exist_ok=True)
    launched = os.environ | {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = []
    for rank in range(count):
        out, err = home / f"{rank}.out", home / f"{rank}.err"
        variables: Mapping[str, str] = launched | {"RANK": str(rank), "LOCAL_RANK": str(rank), **environment}
        command = ForkedCommand(kind, [str(word) for word in words], ROOT, variables)  # type: ignore[arg-type]
        with out.open("wb") as to_out, err.open("wb") as to_err:
            processes.append(shared_fork_server().start(command, to_out, to_err))
    try:
        codes = [process.wait(120.0) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (code, (home / f"{rank}.out").read_text(), (home / f"{rank}.err").read_text())
        for rank, code in enumerate(codes)
    ]


def train_together(family: str, home: Path, *, count: int = 2, last: int = 3) -> None:
    ended = run_together("script", (SCRIPT, family, home, last), home, count)
    assert [code for code, _, _ in ended] == [0] * count, ended


def results(home: Path, count: int = 2) -> list[bytes]:
    """The files of all processes: weights and losses."""
    return [(home / f"{rank}.safetensors").read_bytes() for rank in range(count)]


@pytest.mark.server
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_take_the_steps_of_one(tmp_path: Path, count: int) -> None:
    train_together("spatial", tmp_path / "together", count=count)
    first, *others = results(tmp_path / "together", count)
    assert all(other == first for other in others)
    (tmp_path / "alone").mkdir()
    alone = replica_training.train("spatial", tmp_path / "alone")
    together = load_file(tmp_path / "together" / "0.safetensors")
    for part, state in (("encoder", alone.encoder_state), ("decoder", alone.decoder_state)):
        for name, weight in state.items():
            np.testing.assert_allclose(together[f"{part}.{name}"], weight, rtol=1e-3, atol=1e-4)
    with safe_open(tmp_path / "together" / "0.safetensors", "pt") as file:
        (record,) = json.loads(file.metadata()["history"])
    assert record["holdout_loss"] == pytest.approx(alone.history[0].holdout_loss, rel=1e-4)
    assert record["train_loss"] == pytest.approx(alone.history[0].train_loss, rel=1e-4)


@pytest.mark.server
def test_processes_that_were_stopped_go_on_together(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train_together("vae", whole)
    train_together("vae", stopped, last=2)
    assert not (stopped / "0.safetensors").exists()
    (tmp_path / "alone").mkdir()
    shutil.copy(stopped / "checkpoint", tmp_path / "alone")
    train_together("vae", stopped)
    assert len({*results(whole), *results(stopped)}) == 1  # of batch norm and noise too
    alone = replica_training.train("vae", tmp_path / "alone")  # another number of processes: the same until then
    with safe_open(whole / "0.safetensors", "pt") as file:
        history = json.loads(file.metadata()["history"])
    records = [record.model_dump() for record in alone.history]
    assert records[:2] == history[:2]
    assert records[2] != history[2]


@pytest.mark.server
def test_the_command_writes_one_bundle(tmp_path: Path) -> None:
    words = ["train", "digits", "--size", "16", "--model", "linear", "--latent-dim", "4", "--judges", "0"]
    words += ["--epochs", "1", "--json", "--out", str(tmp_path / "b")]
    first, second = run_together("latentmill", words, tmp_path / "logs", OMP_NUM_THREADS="1")
    assert (first[0], second[0]) == (0, 0), (first, second)
    printed = json.loads(first[1])
    assert load_bundle(open_store(str(tmp_path / "b"))).digest == printed["digest"]
    assert "waiting for 2 processes" in first[2]
    assert second[1:] == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "b.samples.jpg", "logs"]


def test_a_plan_reaches_other_processes_as_it_is() -> None:
    config = replica_training.CONFIGS["vae"]
    plan = TrainingPlan(config, TrainSettings(), TransportSettings(), JudgeSettings(), {"autoencoder": 1.5})
    assert pickle.loads(pickle.dumps(plan)) == plan


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with launched_replicas("auto") as found:
        assert found is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    with launched_replicas("cuda:3") as found:
        assert found is ALONE


@pytest.mark.parametrize(("rank", "count"), [("a", "2"), ("0", "two"), (None, "2"), ("2", "2"), ("-1", "2")])
def test_what_no_launcher_states_is_refused(monkeypatch: pytest.MonkeyPatch, rank: str | None, count: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", count)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with pytest.raises(SpecError) as caught, launched_replicas("cpu"):
        pass
    assert caught.value.field == "rank"


def test_processes_that_no_launcher_connects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SettingsError, match="2 processes that reach each other") as caught, launched_replicas("cpu"):
        pass
    assert caught.value.field == "MASTER_ADDR"


def test_devices_and_batches_that_cannot_be_shared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(SpecError, match=r"auto, cpu or cuda for 4 processes.*cuda:1"), launched_replicas("cuda:1"):
        pass
    with pytest.raises(SettingsError, match="a CUDA device for each process"):
        replicas_module._take_device(torch.cuda.device_count())
    Replicas(3, 4).check_batch(8)
    ALONE.check_batch(1)
    with pytest.raises(SpecError, match="at least 8 images for 4 processes") as caught:
        Replicas(3, 4).check_batch(7)
    assert caught.value.field == "train.batch"
