"""The commands promote, rollback, gate, pin, retain and channels, on real builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from generator.curation.gates import read_verdict
from generator.datasets.builds import resolve_build
from generator.errors import BuildConflict, BundleMissing, DatasetError, SpecError
from generator.models.bundle import read_info
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.small_builds import SmallBuild
from workers.cli.main import root


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("LATENTMILL_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, arguments)


def facts(*arguments: str, code: int = 0) -> Any:
    found = run(*arguments, "--json")
    assert (found.exit_code, found.exception if code == 0 else None) == (code, None), found.output
    return json.loads(found.stdout)


@pytest.fixture
def nights(tmp_path: Path) -> list[str]:
    """The ids of three builds of one dataset."""
    return [SmallBuild(seed=seed).commit(str(tmp_path))[1].build_id for seed in range(3)]


def test_promote_rollback_undo(tmp_path: Path, nights: list[str]) -> None:
    url = f"{tmp_path}/small"
    for day, build in enumerate(nights):
        found = facts("promote", url, build[:8], "--date", f"2026-07-0{day + 1}T04:00+02:00")
        assert (found["build"], found["logical_date"]) == (build, f"2026-07-0{day + 1}T02:00+00:00")
    assert resolve_build(url)[1].build_id == nights[2]
    assert facts("rollback", url)["build"] == nights[1]
    assert resolve_build(url)[1].build_id == nights[1]
    withdrawn = run("promote", url, nights[2])
    assert isinstance(withdrawn.exception, BuildConflict)
    assert "--again" in str(withdrawn.exception)
    assert facts("rollback", url, "--undo")["build"] == nights[2]
    older = run("promote", url, nights[0])
    assert isinstance(older.exception, BuildConflict)
    assert f"--to {nights[0]}" in str(older.exception)
    assert facts("rollback", url, "--to", nights[0][:5])["build"] == nights[0]
    assert "readers" not in run("promote", f"{url}/builds/{nights[0]}").output


def test_bad_words_are_typed_errors_and_move_nothing(tmp_path: Path, nights: list[str]) -> None:
    url = f"{tmp_path}/small"
    wrong: list[tuple[tuple[str, ...], type[Exception]]] = [
        (("promote", url, "ffff"), DatasetError),
        (("promote", url, nights[0][:2]), DatasetError),
        (("promote", url, nights[0], "--date", "tomorrow"), SpecError),
        (("promote", f"{tmp_path}/nothing"), DatasetError),
        (("rollback", url), DatasetError),
        (("rollback", url, "--to", nights[0], "--undo"), DatasetError),
        (("unpin", url, nights[0]), DatasetError),
        (("gate", url, f"{tmp_path}/no.yaml"), SpecError),
        (("retain", url, "--last", "0"), SpecError),
        (("retain", url, "--weeks", "some"), SpecError),
        (("retain", f"{tmp_path}/nothing"), DatasetError),
        (("retain", str(tmp_path)), DatasetError),
        (("builds", f"{tmp_path}/nothing"), DatasetError),
        (("channels", "cats"), BundleMissing),
        (("channels", "cats", "--to", "sha256:x"), SpecError),
        (("channels", "--rollback"), SpecError),
    ]
    for arguments, kind in wrong:
        assert isinstance(run(*arguments).exception, kind), arguments
    assert open_store(url).head("latest.json") is None


def test_gates_by_hand(tmp_path: Path, nights: list[str]) -> None:
    url, gates = f"{tmp_path}/small", tmp_path / "gates.yaml"
    assert facts("gate", url, "--build", nights[0], "--promote")["holds"] is True
    assert resolve_build(url)[1].build_id == nights[0]
    gates.write_text("images: 1000\ndrift: null\n")
    refused = facts("gate", f"{url}/builds/{nights[1]}", str(gates), "--promote", code=1)
    assert [reason.partition(":")[0] for reason in refused["reasons"]] == ["images"]
    assert resolve_build(url)[1].build_id == nights[0]
    verdict = read_verdict(open_store(f"{url}/builds/{nights[1]}"))
    assert verdict is not None
    assert not verdict.holds
    shown = run("gate", url, str(gates), "--build", nights[1])
    assert shown.exit_code == 1
    assert "FAILS" in shown.output
    by_hand = run("promote", url, nights[1])
    assert (by_hand.exit_code, "its gates refused it: images" in by_hand.stderr) == (0, True)
    assert facts("rollback", url)["build"] == nights[0]
    gates.write_text("drifft: 0.1\n")
    assert isinstance(run("gate", url, str(gates)).exception, SpecError)
    states = {each["build"]: each["state"] for each in facts("builds", url)}
    assert states == {nights[0]: ["latest"], nights[1]: [], nights[2]: []}


def test_pins_and_retention(tmp_path: Path, nights: list[str]) -> None:
    url = f"{tmp_path}/small"
    for day, build in enumerate(nights):
        facts("promote", url, build, "--date", f"2026-07-0{day + 1}")
    assert facts("pin", url, nights[0], "--note", "the paper")["pinned"] == [nights[0]]
    rule = ("--last", "1", "--weeks", "0", "--months", "0")
    reasons = {each["build"]: each["why"] for each in facts("retain", url, *rule)["keep"]}
    assert (reasons[nights[0]], reasons[nights[1]]) == (["pinned"], ["rollback goes there"])
    assert facts("unpin", url, nights[0][:4])["pinned"] == []
    planned = facts("retain", url, *rule, "--dry-run")
    assert ([each["build"] for each in planned["delete"]], planned["deleted"]) == ([nights[0]], [])
    assert facts("retain", url, *rule)["deleted"] == [nights[0]]
    assert not list(open_store(f"{url}/builds/{nights[0]}").list())
    assert "2 to keep, 0 to delete" in run("retain", url, *rule).output
    assert "latest" in run("builds", url).output


def test_channels_by_push_and_by_hand(tmp_path: Path) -> None:
    assert "no channels" in run("channels").output
    digests = []
    for seed in range(2):
        bundle = tiny_bundle(tmp_path / f"b{seed}", seed=seed)
        assert facts("push", str(bundle), "--channel", "cats")["channel"] == "cats"
        digests.append(read_info(open_store(str(bundle)))[0])
    assert facts("channels") == [facts("channels", "cats")]
    assert (facts("channels", "cats")["bundle"], facts("channels", "cats")["before"]) == (digests[1], [digests[0]])
    assert facts("channels", "cats", "--rollback")["bundle"] == digests[0]
    assert facts("channels", "cats", "--to", digests[1])["bundle"] == digests[1]
    refused = run("push", str(tmp_path / "b0"), "--channel", "Cats!")
    assert isinstance(refused.exception, SpecError)
    assert "cats" in run("channels").output
