"""The command line in real processes: exit codes, text output, JSON."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.bundles import tiny_bundle
from tests.support.command_server import run_command, shared_fork_server
from tests.support.fork_server import ForkedCommand
from workers.cli.main import _MODULES, _SECTIONS, _SUMMARIES

DIGITS = tuple("0123456789")


class Cli:
    """Runs ``latentmill`` in its own directory, with its own settings."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")} | {
            "LATENTMILL_ROOT": str(home / "root"),
            "LATENTMILL_STATE_DIR": str(home / "state"),
            "LATENTMILL_CACHE_DIR": str(home / "cache"),
            "LATENTMILL_SOURCE_CACHE": str(home / "sources"),
        }

    def run(self, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """The finished command; asserts that it ended with ``code`` and printed no traceback."""
        done = run_command([*words], cwd=self.home, env=self.environment | environment, timeout=240)
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def facts(self, *words: str, code: int = 0) -> Any:
        """The JSON that the command prints with ``--json``."""
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def refusal(self, *words: str, code: int = 2, **environment: str) -> dict[str, str]:
        """The error that the command reports with ``--json``."""
        found: dict[str, str] = json.loads(self.run(*words, "--json", code=code, **environment).stderr)
        return found

    def spec(self, **fields: Any) -> str:
        given = {"bundle": "tiny.bundle", "destination": "out", "name": "tiny", "count": 60, "shard_size": 25}
        (self.home / "spec.yaml").write_text(json.dumps(given | fields))
        return "spec.yaml"


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    tiny_bundle(tmp_path / "tiny.bundle")
    return Cli(tmp_path)


def test_help_lists_every_command(cli: Cli) -> None:
    text = cli.run("--help").stdout
    assert all(name in text for name in _MODULES)
    assert set(_MODULES) == set(_SUMMARIES) == {name for names in _SECTIONS.values() for name in names}


@pytest.mark.parametrize("name", sorted(_MODULES))
def test_every_command_explains_itself(name: str) -> None:
    from click.testing import CliRunner

    from workers.cli.main import root

    done = CliRunner().invoke(root, [name, "--help"])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_help_and_client_need_no_torch() -> None:
    code = "import sys, workers.client, workers.cli.jobs, generator; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_generate_verify_replay_inspect(cli: Cli) -> None:
    made = cli.facts("generate", cli.spec())
    assert (made["samples"], made["shards"]) == (60, 3)
    assert Path(made["preview"].removeprefix("file://")).is_file()
    assert "already committed" in cli.run("generate", cli.spec()).stdout
    assert cli.facts("verify", "out/tiny")["intact"] is True
    again = cli.facts("replay", "out/tiny", "42", "--bundle", "tiny.bundle", "--out", "again.png")
    assert again["identical"] is True
    assert (cli.home / "again.png").read_bytes().startswith(b"\x89PNG")
    result = cli.facts("inspect", "tiny.bundle", "--picture", "samples.png", "--no-diagnosis")
    assert result["classes"] == ["cat", "dog", "owl"]
    assert (cli.home / "samples.png").is_file()
    shard = next((cli.home / "out").glob("tiny/builds/*/shards/*.tar"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    damaged = cli.facts("verify", "out/tiny", code=1)
    assert damaged["intact"] is False
    assert shard.name in json.dumps(damaged["problems"])


def test_a_build_knows_where_its_bundle_is(cli: Cli) -> None:
    """``generate`` keeps the bundle in the store root, so that replay and measure find it; else the error says how."""
    cli.facts("generate", cli.spec())
    assert cli.facts("replay", "out/tiny", "7")["identical"]
    shutil.rmtree(cli.home / "root")
    for words in (("replay", "out/tiny", "7"), ("measure", "out/tiny", "digits")):
        missing = cli.refusal(*words)
        assert missing["error"] == "BundleMissing"
        assert "--bundle" in missing["hint"]
    assert cli.facts("replay", "out/tiny", "7", "--bundle", "tiny.bundle")["identical"]


def test_push_and_pull(cli: Cli) -> None:
    digest = cli.facts("push", "tiny.bundle")["digest"]
    cli.facts("pull", digest, "--out", "pulled.bundle")
    assert cli.facts("inspect", "pulled.bundle", "--no-diagnosis")["digest"] == digest
    assert cli.facts("generate", cli.spec(bundle=digest))["samples"] == 60
    assert cli.refusal("pull", digest, "--out", "pulled.bundle")["field"] == "out"


def test_train_makes_a_bundle_that_generates(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    shades = np.repeat(np.array([40, 200]), 60)[:, None, None] + rng.integers(-30, 30, (120, 8, 8))
    labels = np.repeat([0, 1], 60)
    np.savez(
        cli.home / "shades.npz",
        train_images=shades.astype(np.uint8),
        train_labels=labels,
        class_names=["dark", "light"],
    )
    trained = cli.facts("train", "shades.npz", "--out", "shades.bundle", "--epochs", "3", "--latent-dim", "2")
    assert (trained["images"], trained["classes"], trained["epochs"]) == (120, 2, 3)
    assert not (cli.home / "shades.bundle.checkpoint").exists()
    made = cli.facts("generate", cli.spec(bundle="shades.bundle", count=None, counts={"light": 20}))
    assert made["samples"] == 20


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["generate", "absent.yaml"], "spec"),
        (["generate", "tiny.bundle/bundle.json"], "bundle"),
        (["inspect", "nowhere"], "bundle"),
        (["verify", "nowhere"], "dataset"),
        (["train", "nowhere", "--out", "b"], "nowhere"),
        (["train", "digits", "--out", "tiny.bundle"], "out"),
        (["train", "digits", "--out", "b", "--size", "7"], "size"),
        (["train", "digits", "--out", "b", "--size", "129"], "size"),
        (["train", "digits", "--out", "b", "--size", "31", "--model", "spatial"], "size"),
        (["train", "digits", "--out", "b", "--size", "0x64"], "size"),
        (["train", "digits", "--out", "b", "--size", "64x"], "size"),
        (["train", "digits", "--out", "b", "--split", "test"], "split"),
        (["train", "digits", "--out", "b", "--classes", "1,7,x"], "classes"),
        (["train", "digits", "--out", "b", "--white", "-1"], "source"),
        (["sources", "nowhere"], "nowhere"),
        (["sources", "digits", "--size", "axb"], "size"),
        (["sources", "digits", "--label", "x" * 300], "source.label"),
        (["train", "digits", "--out", "b", "--epochs", "0"], "train.epochs"),
        (["train", "digits", "--out", "b", "--device", "cuda:9"], "device"),
        (["train", "digits", "--out", "b", "--augment-shift", "99"], "train.augmentation.shift"),
        (["jobs"], "LATENTMILL_REDIS_URL"),
        (["submit", "absent.yaml"], "spec"),
    ],
)
def test_bad_input_is_named_and_ends_with_2(cli: Cli, words: list[str], field: str) -> None:
    result = cli.refusal(*words)
    assert result["field"] == field, result
    assert result["expected"]
    assert not (cli.home / "b").exists()


def test_a_spec_with_a_typo_names_it_in_words(cli: Cli) -> None:
    result = cli.run("generate", cli.spec(cuont=5), code=2).stderr
    assert result.startswith(
        "error: cuont: expected one of the known fields (recipe_version, bundle, destination, name"
    )
    assert not (cli.home / "out").exists()


def test_the_outside_world_ends_with_1(cli: Cli) -> None:
    down = {"LATENTMILL_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert cli.refusal("submit", cli.spec(), code=1, **down)["error"] == "BrokerUnavailable"
    (cli.home / "file").write_text("")
    assert cli.refusal("generate", cli.spec(destination="file/below"), code=1)["error"] in (
        "AccessDenied",
        "BucketMissing",
    )


def test_wrong_settings_name_the_variable(cli: Cli) -> None:
    assert cli.refusal("jobs", LATENTMILL_LEASE_SECONDS="soon")["field"] == "LATENTMILL_LEASE_SECONDS"
    assert cli.refusal("jobs", LATENTMILL_S3_ENDPOINT_URL="nonsense")["field"] == "LATENTMILL_S3_ENDPOINT_URL"


def test_a_wrong_option_is_explained_without_a_traceback(cli: Cli) -> None:
    assert "No such option" in cli.run("train", "digits", "--colour", code=2).stderr


def test_the_demo_builds_verifies_and_finds_it_again(cli: Cli) -> None:
    tiny_bundle(cli.home / "demo" / "digits.bundle", classes=DIGITS)  # in place of a trained bundle
    result = cli.facts("demo", "--out", "demo", "--count", "300")
    assert (result["images"], result["found"]) == (300, False)
    assert Path(result["preview"]).is_file()
    assert Path(result["real_beside_generated"]).is_file() or (cli.home / result["real_beside_generated"]).is_file()
    assert "images_per_second" in result
    again = cli.facts("demo", "--out", "demo", "--count", "300")
    assert (again["found"], again["dataset"]) == (True, result["dataset"])


def test_up_serves_clients_of_this_user_until_it_is_interrupted(cli: Cli) -> None:
    log = (cli.home / "up.log").open("wb")
    up = shared_fork_server().start(ForkedCommand("latentmill", ["up"], cli.home, cli.environment), log, log)
    try:
        deadline = time.monotonic() + 60
        while not (cli.home / "state" / "redis.json").exists():
            assert time.monotonic() < deadline, (cli.home / "up.log").read_text()
            time.sleep(0.1)
        result = cli.facts("submit", cli.spec(), "--watch")
        assert (result["state"], result["samples_done"]) == ("committed", 60)
        assert [job["job"] for job in cli.facts("jobs")] == [result["job"]]
        assert cli.facts("status", result["job"])["state"] == "committed"
        assert cli.facts("cancel", result["job"])["state"] == "committed"
        assert cli.facts("health")["healthy"] is True
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
        log.close()
    assert not (cli.home / "state" / "redis.json").exists()
