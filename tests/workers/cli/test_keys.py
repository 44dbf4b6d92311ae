"""The commands keys, serve and preview."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from generator.errors import SettingsError, SpecError, WorkerUnavailable
from generator.store import open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import RedisServer
from workers.cli.main import root
from workers.server.access.keys import KeyRing
from workers.server.access.links import use_link


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("LATENTMILL_STATE_DIR", str(tmp_path / "state"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(root, arguments)


def facts(*arguments: str) -> Any:
    found = run(*arguments, "--json")
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = facts("keys", "add", "--tenant", "red", "--role", "submitter", "--expires", "30", "--note", "for CI")
    store = open_store(str(tmp_path / "root"))
    assert KeyRing(lambda: store).check(made["token"]).id == made["key"]
    listed = facts("keys", "list")
    assert [(each["key"], each["tenant"], each["role"], each["note"]) for each in listed] == [
        (made["key"], "red", "submitter", "for CI")
    ]
    assert made["token"] not in run("keys", "list").output
    assert "live" in run("keys", "list").output
    assert facts("keys", "revoke", made["key"])["revoked"]
    assert "revoked" in run("keys", "list").output


def test_a_key_may_come_as_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_SERVER_URL", "https://mill.example.org")
    made = facts("keys", "add", "--tenant", "red", "--role", "reader", "--link")
    assert "token" not in made
    address, _, code = made["link"].rpartition("/")
    assert address == "https://mill.example.org/login"
    store = open_store(str(tmp_path / "root"))
    assert KeyRing(lambda: store).check(use_link(store, code)).id == made["key"]


def test_wrong_keys_are_refused() -> None:
    assert isinstance(run("keys", "add", "--tenant", "../x", "--role", "reader").exception, SpecError)
    assert run("keys", "add", "--tenant", "red", "--role", "root").exit_code == 2
    assert isinstance(run("keys", "revoke", "0" * 16).exception, SpecError)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("--host", "0.0.0.0"), "LATENTMILL_SERVER_NAMES"),
        (("--host", "0.0.0.0", "--names", "mill.example.org", "--without-keys"), "LATENTMILL_SERVER_WITHOUT_KEYS"),
        (("--host", "no.such.host.invalid", "--names", "x"), "LATENTMILL_SERVER_HOST"),
    ],
)
def test_a_server_that_cannot_be_is_refused_before_it_listens(options: tuple[str, ...], field: str) -> None:
    refused = run("serve", *options).exception
    assert isinstance(refused, SettingsError)
    assert refused.field == field


def test_a_certificate_comes_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTMILL_SERVER_CERT_FILE", str(tmp_path / "cert.pem"))
    refused = run("serve").exception
    assert isinstance(refused, SettingsError)
    assert refused.field == "LATENTMILL_SERVER_KEY_FILE"


def test_a_preview_is_refused_before_it_is_made(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTMILL_REDIS_URL", redis_server.url)
    bundle = tiny_bundle(tmp_path / "bundle")
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"bundle: {bundle}\ndestination: {tmp_path}/out\nname: tiny\ncount: 9\n")
    assert isinstance(run("preview", str(spec), "--out", str(tmp_path / "x.gif")).exception, SpecError)
    assert isinstance(run("preview", str(spec), "--out", str(tmp_path / "no" / "x.png")).exception, SpecError)
    assert isinstance(run("preview", str(spec), "--out", str(tmp_path / "x.png")).exception, WorkerUnavailable)
    assert not (tmp_path / "x.png").exists()
    assert not (tmp_path / "out").exists()


def test_the_socket_of_a_server_sends_small_packets_at_once() -> None:
    """asyncio turns Nagle's algorithm off only for sockets that state their protocol; else answers wait 40 ms."""
    import socket

    from workers.server.run import bind_port
    from workers.settings import Settings

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with bind_port(Settings(server_port=port)) as bound:
        assert bound.proto == socket.IPPROTO_TCP
        bound.listen()
        with pytest.raises(SettingsError, match="SERVER_PORT"):
            bind_port(Settings(server_port=port))
