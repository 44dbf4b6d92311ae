"""The gate ``signed``: only a key that the judge trusts opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator.curation.gates import Check, Gates, evaluate_gates
from generator.production.commit import BuildLocation
from generator.signatures import PublicKey, make_key, read_private_key, sign
from generator.store import open_store
from tests.support.small_builds import SmallBuild

GATES = Gates(copies=None, duplicates=None, drift=None, confidence_drop=None, signed=True)


@pytest.fixture
def location(tmp_path: Path) -> BuildLocation:
    return SmallBuild().commit(str(tmp_path))[0]


def judge(location: BuildLocation, tmp_path: Path, *trusted: PublicKey) -> Check:
    verdict = evaluate_gates(open_store(str(tmp_path / "small")), location.build_id, GATES, trusted=trusted)
    (check,) = [check for check in verdict.checks if check.gate == "signed"]
    assert verdict.holds is check.holds
    return check


def test_a_trusted_key_opens_it(location: BuildLocation, tmp_path: Path) -> None:
    ours, other = make_key(tmp_path / "ours"), make_key(tmp_path / "other")
    assert "expected a signature by" in judge(location, tmp_path, ours).words
    sign(location.store, "manifest.json", location.store.get("manifest.json"), read_private_key(tmp_path / "ours"))
    assert judge(location, tmp_path, other, ours).words == f"signed by {ours.id}"
    assert judge(location, tmp_path, other).holds is False
    assert "none is known" in judge(location, tmp_path).words


def test_an_altered_manifest_keeps_it_shut(location: BuildLocation, tmp_path: Path) -> None:
    ours = make_key(tmp_path / "ours")
    data = location.store.get("manifest.json")
    sign(location.store, "manifest.json", data, read_private_key(tmp_path / "ours"))
    location.store.put("manifest.json", data + b" ")
    assert "manifest.json is not the one that was signed" in judge(location, tmp_path, ours).words


def test_it_is_off_unless_asked_for() -> None:
    assert Gates().signed is False
