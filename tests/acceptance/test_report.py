"""The command `latentmill report`: committed and unfinished builds, jobs, and arguments that are no build."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from tests.acceptance.test_cli import Cli
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer
from tests.support.services import ManualService


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a bundle, and a dataset that `latentmill generate` built from it."""
    home = tmp_path_factory.mktemp("generated")
    tiny_bundle(home / "tiny.bundle")
    cli = Cli(home)
    cli.run("generate", cli.spec())
    return home


@pytest.fixture
def cli(generated: Path, tmp_path: Path) -> Cli:
    """The command line in a copy of that directory."""
    return Cli(shutil.copytree(generated, tmp_path / "home"))


def builds(cli: Cli) -> list[Path]:
    return sorted((cli.home / "out/tiny/builds").iterdir())


def test_a_dataset_that_was_generated(cli: Cli) -> None:
    found = cli.facts("report", "out/tiny", "--price-per-hour", "1.5")
    assert (found["state"], found["samples_done"], found["shards_done"], found["runs"]) == ("committed", 60, 3, 3)
    assert found["build"] == builds(cli)[0].as_uri()
    cost = found["cost"]
    assert (cost["samples"], cost["processes"], len(cost["slowest"])) == (60, 1, 3)
    assert sum(stage["share"] for stage in cost["stages"].values()) == pytest.approx(100.0, abs=0.1)
    assert 0.0 < cost["process_seconds"] < 60.0
    rounding = 0.001 / cost["process_seconds"]  # seconds are printed with three decimals
    assert found["images_per_second"] == pytest.approx(60 / cost["process_seconds"], rel=rounding)
    price = 1.5 * cost["process_seconds"] / 3600 / 60 * 1e6
    assert found["cost_per_million_images"] == pytest.approx(price, rel=rounding)
    (builds(cli)[0] / "reports").mkdir()
    (builds(cli)[0] / "reports/quality.json").write_text("{}")
    output = cli.run("report", str(builds(cli)[0])).stdout
    assert all(words in output for words in ("committed", "quality", "decode", "the slowest shards"))


def test_an_unfinished_build_and_what_anybody_may_have_written(cli: Cli) -> None:
    build = builds(cli)[0]
    (build / "manifest.json").unlink()
    (build / "receipts/000002.json").unlink()
    for name, text in {"a.json": "", "b.json": "[" * 10_000, "c.json": "{}", "d.json": " " * 70_000}.items():
        (build / "runs" / name).write_text(text)
    (build / "runs/e.json").write_text(json.dumps({"shard": 0, "samples": 1, "seconds": {}, "elapsed_seconds": 0}))
    found = cli.facts("report", "out/tiny")
    assert (found["state"], found["samples_done"], found["shards_done"]) == ("unfinished", 40, 2)
    assert (found["cost"]["shards"], found["runs"]) == (3, 8)
    for run in (build / "runs").iterdir():
        run.unlink()
    found = cli.facts("report", str(build))
    assert (found["cost"], found["bytes"]) == (None, None)
    assert "no times were recorded" in cli.run("report", str(build), "--price-per-hour", "1").stdout


@pytest.mark.parametrize(
    ("word", "field"), [("nowhere", "build"), ("./nowhere", "dataset"), ("tiny.bundle", "dataset"), (".", "dataset")]
)
def test_what_is_no_build_is_named_and_ends_with_2(cli: Cli, word: str, field: str) -> None:
    assert cli.refusal("report", word)["field"] == field


def test_a_price_that_is_none_ends_with_2(cli: Cli) -> None:
    assert "price-per-hour" in cli.run("report", "out/tiny", "--price-per-hour", "-1", code=2).stderr


def test_a_recipe_that_is_damaged_ends_with_2_and_a_redis_that_is_away_with_1(cli: Cli) -> None:
    (builds(cli)[0] / "recipe.json").write_text("{")
    assert "recipe.json" in cli.refusal("report", "out/tiny")["field"]
    away = {"LATENTMILL_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert cli.refusal("report", "tiny-0123456789ab", code=1, **away)["error"] == "BrokerUnavailable"


def test_a_job_of_the_pool_by_its_name(cli: Cli, redis_server: RedisServer) -> None:
    bench = ManualService(redis_server, cli.home / "tiny.bundle", cli.home)
    job = bench.submit()
    cli.environment["LATENTMILL_REDIS_URL"] = redis_server.url
    bench.serve(1)
    found = cli.facts("report", job.job)
    assert (found["state"], found["samples_done"], found["cost"]["processes"]) == ("unfinished", 30, 1)
    assert cli.refusal("report", "nobody-0")["field"] == "job"


def test_a_worker_whose_port_is_taken_is_told_so_before_redis_is_asked(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        settings = {"LATENTMILL_REDIS_URL": "redis://127.0.0.1:1/0", "LATENTMILL_METRICS_PORT": port}
        assert "LATENTMILL_METRICS_PORT: expected a free port" in cli.run("worker", code=2, **settings).stderr
        assert "LATENTMILL_METRICS_PORT: expected a free port" in cli.run("up", code=2, **settings).stderr
