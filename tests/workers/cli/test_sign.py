"""The commands sign and verify with keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from generator.errors import BundleError, DatasetError, IntegrityError, KeyFileError
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import SmallBuild
from workers.cli.main import root as command_line

Invoke = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0) -> Result:
        done = CliRunner().invoke(command_line, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return run


def facts(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_build_is_signed_and_verified(invoke: Invoke, tmp_path: Path) -> None:
    location, _ = SmallBuild().commit(str(tmp_path / "out"))
    made = facts(invoke("sign", "--make-key", "k", "--json"))
    with pytest.raises(IntegrityError, match="expected a signature by"):
        invoke("verify", "out/small", "--key", "k.pub")
    signed = facts(invoke("sign", "out/small", "--key", "k", "--json"))
    assert signed["key"] == made["key"]
    assert signed["signed"] == f"{location.url}/manifest.json"
    assert facts(invoke("verify", location.url, "--key", "k.pub", "--json"))["intact"]
    invoke("sign", "--make-key", "other")
    with pytest.raises(IntegrityError):
        invoke("verify", "out/small", "--key", "other.pub")
    assert facts(invoke("verify", "out/small", "--key", "other.pub", "--key", "k.pub", "--json"))["intact"]
    shard = next((Path("out/small/builds") / location.build_id / "shards").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    invoke("verify", "out/small", "--key", "k.pub", code=1)


def test_a_bundle_is_signed_and_verified(invoke: Invoke, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "bundle")
    invoke("sign", "--make-key", "k")
    with pytest.raises(IntegrityError, match=r"bundle\.json: expected a signature by"):
        invoke("verify", "bundle", "--key", "k.pub")
    assert "signed_by" not in facts(invoke("verify", "bundle", "--json"))
    signed = facts(invoke("sign", "bundle", "--key", "k", "--json"))
    assert facts(invoke("verify", "bundle", "--key", "k.pub", "--json"))["signed_by"] == signed["key"]
    file = tmp_path / "bundle" / "decoder.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"decoder\.safetensors"):
        invoke("verify", "bundle", "--key", "k.pub")


def test_bad_input_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    location = SmallBuild().begin(str(tmp_path / "out"))  # not committed
    invoke("sign", "--make-key", "k")
    with pytest.raises(DatasetError, match="a committed build"):
        invoke("sign", location.url, "--key", "k")
    with pytest.raises(DatasetError):
        invoke("sign", "nowhere", "--key", "k")
    with pytest.raises(KeyFileError, match=r"^key: "):
        invoke("sign", location.url, "--key", "k.pub")
    with pytest.raises(KeyFileError, match=r"^key: "):
        invoke("verify", location.url, "--key", "k")
    for words in ((), ("x",), ("--key", "k"), ("x", "--make-key", "new"), ("--key", "k", "--make-key", "new")):
        invoke("sign", *words, code=2)
    assert not Path("new").exists()
