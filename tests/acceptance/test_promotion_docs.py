"""Tests of docs/promotion.md: its gates are the defaults, its receiver verifies messages, its commands exist."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml

from generator.curation.gates import Gates
from generator.curation.gates.checks import AUTO_CONFIDENCE_DROP, AUTO_COPIES, AUTO_DRIFT
from generator.curation.retention import Retention
from generator.errors import SpecError
from generator.spec.canonical import validate
from workers.cli.main import root
from workers.notifications import Notifications
from workers.notifications.signatures import signature
from workers.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/promotion.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_gates_of_the_page_are_those_of_a_schedule_that_states_none() -> None:
    plain, reference, _ = blocks("yaml")
    assert validate(Gates, yaml.safe_load(plain), field="gates", error=SpecError) == Gates()
    assert set(yaml.safe_load(plain)) == set(Gates.model_fields)
    autos = dict(re.findall(r"^(\w+): auto +# ([0-9.]+):", plain, flags=re.MULTILINE))
    usual = {"copies": AUTO_COPIES, "drift": AUTO_DRIFT, "confidence_drop": AUTO_CONFIDENCE_DROP}
    assert {name: float(number) for name, number in autos.items()} == usual
    assert validate(Gates, yaml.safe_load(reference), field="gates", error=SpecError).reference is not None


def test_the_other_sections_are_what_they_say() -> None:
    webhooks = validate(Notifications, yaml.safe_load(blocks("yaml")[2]), field="notifications", error=SpecError)
    assert webhooks.webhooks[0].secret == "ops"
    for name, value in Retention().model_dump().items():
        assert f"`{name}: {value}`" in PAGE
    for name in re.findall(r"LATENTMILL_([A-Z_]+)", PAGE):
        assert name.lower() in Settings.model_fields
    for line in "".join(blocks("bash")).splitlines():
        _, command, *words = line.partition("#")[0].split()
        found = root.get_command(click.Context(root), command)
        assert found is not None
        options = {option for each in found.params for option in each.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_receiver_of_the_page_verifies_what_is_sent() -> None:
    space: dict[str, Any] = {}
    exec(blocks("python")[0], space)
    verified: Callable[[dict[str, str], bytes, str], bool] = space["verified"]
    key, body, now = b"k" * 32, b'{"type":"run.failed"}', int(time.time())
    secret = "whsec_" + base64.b64encode(key).decode()

    def headers(sent: int, *keys: bytes) -> dict[str, str]:
        names = {"webhook-id": "msg_1", "webhook-timestamp": str(sent)}
        return names | {"webhook-signature": signature(keys, "msg_1", sent, body)}

    assert verified(headers(now, key), body, secret)
    assert verified(headers(now, b"x" * 32, key), body, secret)
    assert not verified(headers(now, b"x" * 32), body, secret)
    assert not verified(headers(now, key), body + b" ", secret)
    assert not verified(headers(now - 600, key), body, secret)
    assert not verified(headers(now, key) | {"webhook-id": "msg_2"}, body, secret)
