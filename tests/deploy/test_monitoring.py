"""The dashboard and the alert rules: what they name exists in the code, and their checks find planted mistakes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from types import ModuleType

import pytest
import yaml

from workers.telemetry.gauges import JOB_STATES
from workers.telemetry.meters import COMMIT_OUTCOMES, SHARD_OUTCOMES

NEEDS_PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@pytest.fixture
def monitoring(script: Callable[[str], ModuleType]) -> ModuleType:
    """deploy/check_monitoring.py, working on a copy of deploy/."""
    return script("check_monitoring")


def test_nothing_is_wrong_with_rules_and_dashboard(monitoring: ModuleType) -> None:
    assert monitoring.complaints() == []


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            "rules.yaml",
            "latentmill_shards_waiting",
            "latentmill_shards_wating",
            "no metric of the code: latentmill_shards_wa",
        ),
        ("rules.yaml", "{outcome=", "{result=", "latentmill_shards_total has no label result"),
        (
            "dashboard.json",
            "latentmill_slots",
            "latentmill_slot",
            "dashboard.json: no metric of the code: latentmill_slot",
        ),
        ("dashboard.json", '"drawStyle"', '"drawStile"', r"Grafana does not know \.panels\[\d+\]\..*drawStile"),
        ("dashboard.json", '"gridPos"', '"gridPosition"', "gridPos"),
        ("dashboard.json", '"x": 4,', '"x": 2,', "the panel .* lies upon"),
    ],
)
def test_mistakes_are_found(
    monitoring: ModuleType, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, complaint: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)  # promtool takes seconds, and has a test of its own
    path = monitoring.MONITORING / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        said = "\n".join(monitoring.complaints())
    except KeyError as wrong:  # a panel without a place
        said = str(wrong)
    assert re.search(complaint, said)


@NEEDS_PROMTOOL
@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("rules.yaml", "increase(", "increase((", "promtool check rules"),
        ("rules.yaml", "latentmill_slots) == 0", "latentmill_slots) == 1", "promtool test rules"),
        ("rules.yaml", "> 600", "> 60000", "promtool test rules"),
        ("dashboard.json", '"max(', '"max((', "promtool check rules /"),
    ],
)
def test_mistakes_are_found_by_promtool(monitoring: ModuleType, file: str, old: str, new: str, complaint: str) -> None:
    path = monitoring.MONITORING / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert complaint in "\n".join(monitoring.complaints())


def test_promtool_may_be_missing_but_not_in_ci(
    monitoring: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CI", raising=False)
    assert monitoring.complaints() == []
    assert "promtool is not installed" in capsys.readouterr().err
    monkeypatch.setenv("CI", "true")
    assert monitoring.complaints() == ["promtool is missing: install Debian's package prometheus"]


def test_values_of_labels_are_those_of_the_code(monitoring: ModuleType) -> None:
    texts = [(monitoring.MONITORING / name).read_text() for name in ("rules.yaml", "dashboard.json")]
    used = " ".join(texts).replace('\\"', '"')
    outcomes = {label for quoted in re.findall(r'outcome=~?"([a-z_|]+)"', used) for label in quoted.split("|")}
    assert outcomes
    assert outcomes <= set(SHARD_OUTCOMES) | set(COMMIT_OUTCOMES)
    assert set(re.findall(r'state="([a-z]+)"', used)) <= set(JOB_STATES)


def test_every_alert_has_a_test_that_raises_it_and_says_what_to_do(monitoring: ModuleType) -> None:
    rules = yaml.safe_load((monitoring.MONITORING / "rules.yaml").read_text())
    tests = yaml.safe_load((monitoring.MONITORING / "rules.test.yaml").read_text())["tests"]
    raised = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert {alert["alert"] for alert in alerts} == raised
    for alert in alerts:
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description"}
