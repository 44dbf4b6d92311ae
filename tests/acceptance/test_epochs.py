"""A build that is begun on one kind of processor and finished on another: real processes, real differences.

PyTorch takes the instruction set from ``ATEN_CPU_CAPABILITY`` at start-up, so one machine has two environments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from generator.datasets.replay import replay
from generator.datasets.verification import verify_dataset
from generator.drafts import parse_draft, resolve_draft
from generator.errors import EnvironmentMismatch
from generator.models.bundle import Bundle, load_bundle
from generator.production.commit import BuildLocation, begin_build, fix_environment, locate_build, open_epoch
from generator.production.decoding import ResidentDecoder
from generator.production.mill import build, produce_shard
from generator.production.pipeline.shard_maker import open_shard_maker
from generator.store import open_store
from tests.support.bundles import tiny_bundle

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has one instruction set"
)


def generate(spec: Path, **environment: str) -> dict[str, Any]:
    """``latentmill generate`` in its own process: exit code and output."""
    command = [sys.executable, "-c", "from workers.cli import main; main()", "generate", str(spec), "--json"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATENTMILL_")}
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True)
    return {"code": done.returncode} | json.loads(done.stdout or done.stderr)


@pytest.fixture
def half(tmp_path: Path) -> tuple[BuildLocation, Bundle, Path]:
    """A build of three shards, the first of which is made in the environment of this process; and its spec."""
    fields = {"bundle": str(tiny_bundle(tmp_path / "tiny")), "destination": str(tmp_path / "out"), "name": "two"}
    fields |= {"count": 60, "shard_size": 20, "batch": 16}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields))
    location, bundle = locate_build(resolve_draft(parse_draft(fields))[0]), load_bundle(open_store(fields["bundle"]))
    begin_build(location)
    maker = open_shard_maker(location, bundle, ResidentDecoder(bundle, batch=16, dtype="float32", device="cpu"))
    fix_environment(location, maker.environment)
    produce_shard(location, maker, 0, lease="first", on_batch=lambda _: None)
    return location, bundle, spec


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_begun_in_one_environment_and_finished_in_another(half: tuple[BuildLocation, Bundle, Path]) -> None:
    location, bundle, spec = half
    other = {"ATEN_CPU_CAPABILITY": "default"}
    refused = generate(spec, **other)
    assert (refused["code"], refused["error"]) == (1, "EnvironmentMismatch")
    assert "--new-environment" in refused["hint"]
    assert open_epoch(location.store) == 1
    with pytest.raises(EnvironmentMismatch, match="epoch 1 of this build replaces"):
        build(location, bundle, device="cpu")
    assert generate(spec, **other)["code"] == 0
    manifest = build(location, bundle, device="cpu")  # committed: found as it is, in any environment
    devices = {digest: facts["device"] for digest, facts in manifest.environments.items()}
    made_by = [devices[shard.environment] for shard in manifest.shards]
    assert made_by[0] != made_by[1] == made_by[2]
    assert made_by[1].endswith("/DEFAULT")
    assert verify_dataset(location.url, deep=True).problems == ()
    here, there = (replay(location.url, index, bundle, device="cpu") for index in (0, 59))
    assert (here.identical, here.environment_differences) == (True, "")
    assert "DEFAULT" in there.environment_differences
