"""Credentials that expire or are rotated while a process uses them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from generator.errors import AccessDenied, CredentialsExpired, SettingsError
from generator.store import S3Settings, Store, open_store
from generator.store.s3_objects import S3Objects
from tests.support.fake_s3 import Dialect, fake_s3


class Secrets:
    """Three files of secrets, written in one go, as a mounted secret is."""

    def __init__(self, home: Path) -> None:
        self._home, self._versions = home, 0
        self.paths = {f"{name}_file": home / "data" / name for name in ("access_key", "secret_key", "session_token")}

    def rotate(self, access_key: str, token: str) -> None:
        self._versions += 1
        folder = self._home / f"..{self._versions}"
        folder.mkdir()
        for name, text in (("access_key", access_key), ("secret_key", "secret"), ("session_token", token)):
            (folder / name).write_text(f"{text}\n")
        (self._home / "next").symlink_to(folder)
        (self._home / "next").replace(self._home / "data")


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    secrets = Secrets(tmp_path)
    secrets.rotate("key-1", "token-1")
    return secrets


def server_with_tokens() -> Dialect:
    return Dialect(keys={"key-1": "token-1"})


def calls_of(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.create("new", b"x"),
        lambda: store.get("a"),
        lambda: store.head("a"),
        lambda: store.read("a", 0, 1),
        lambda: list(store.list()),
        lambda: list(store.children()),
        lambda: store.delete("new"),
    ]


def test_a_rotated_file_is_read_again(secrets: Secrets) -> None:
    """Whatever is asked first after the rotation, also by HEAD, whose answers give no reason."""
    with fake_s3(server_with_tokens()) as server:
        store = open_store("s3://bucket", server.settings(**secrets.paths))
        store.put("a", b"x")
        for number, call in enumerate(calls_of(store), start=2):
            server.dialect.keys = {"key-1": f"token-{number}"}
            secrets.rotate("key-1", f"token-{number}")
            call()
        assert server.refused["ExpiredToken"] >= number - 1
        server.dialect.keys = {"key-1": "last"}
        secrets.rotate("key-1", "last")
        assert [info.key for info in S3Objects("bucket", server.settings(**secrets.paths)).list("")] == ["a"]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_keys_that_are_revoked_before_the_new_ones_arrive(secrets: Secrets, code: str) -> None:
    with fake_s3(Dialect(keys={"key-1": "token-1"}, refused_keys=code)) as server:
        store = open_store("s3://bucket", server.settings(**secrets.paths))
        store.put("a", b"x")
        server.dialect.keys = {"key-2": "token-2"}
        later = threading.Timer(0.8, secrets.rotate, ("key-2", "token-2"))
        later.start()
        assert store.get("a") == b"x"
        later.join()
        assert server.refused[code] >= 2


def test_a_token_that_expires_is_waited_for(secrets: Secrets) -> None:
    with fake_s3(server_with_tokens()) as server:
        store = open_store("s3://bucket", server.settings(**secrets.paths))
        store.put("a", b"x")
        server.dialect.keys = {"key-1": "token-2"}
        answers: list[bytes] = []
        readers = [threading.Thread(target=lambda: answers.append(store.get("a"))) for _ in range(4)]
        for reader in readers:
            reader.start()
        time.sleep(0.6)
        assert answers == []
        secrets.rotate("key-1", "token-2")
        for reader in readers:
            reader.join()
        assert answers == [b"x"] * 4
        assert server.refused["ExpiredToken"] < 40  # with pauses in between


def test_a_secret_that_is_away_for_a_moment_is_waited_for(secrets: Secrets, tmp_path: Path) -> None:
    with fake_s3(server_with_tokens()) as server:
        store = open_store("s3://bucket", server.settings(**secrets.paths))
        store.put("a", b"x")
        server.dialect.keys = {"key-1": "token-2"}
        (tmp_path / "data").unlink()
        later = threading.Timer(0.5, secrets.rotate, ("key-1", "token-2"))
        later.start()
        assert store.get("a") == b"x"
        later.join()


def test_new_credentials_that_do_not_come_are_an_error(secrets: Secrets) -> None:
    """After the time that the settings state; other stores of this process do not wait again."""
    with fake_s3(server_with_tokens()) as server:
        settings = server.settings(credentials_seconds=1.0, **secrets.paths)
        store = open_store("s3://bucket", settings)
        store.put("a", b"x")
        server.dialect.keys = {"key-1": "other"}
        for call in calls_of(store):
            with pytest.raises(AccessDenied, match=r"ExpiredToken.*renew the credentials") as refused:
                call()
            assert not isinstance(refused.value, CredentialsExpired)  # the time is over
            assert "token-1" not in str(refused.value) + repr(store)
        refused_before = server.refused["ExpiredToken"]
        with pytest.raises(AccessDenied):
            open_store("s3://bucket/elsewhere", settings).get("a")
        assert server.refused["ExpiredToken"] == refused_before + 1


def test_credentials_that_never_worked_are_refused_at_once(secrets: Secrets) -> None:
    with fake_s3(Dialect(keys={"key-1": "other"})) as server:
        store = open_store("s3://bucket", server.settings(**secrets.paths))
        with pytest.raises(CredentialsExpired):
            store.get("a")
        assert sum(server.asked.values()) == 1
    with fake_s3(Dialect(keys={"another": None})) as server:
        store = open_store("s3://bucket", server.settings())
        with pytest.raises(AccessDenied, match="InvalidAccessKeyId") as wrong:
            store.get("a")
        assert not isinstance(wrong.value, CredentialsExpired)
        assert sum(server.asked.values()) == 1


def test_the_shared_file_of_boto3_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def write(token: str) -> None:
        keys = {"aws_access_key_id": "key-1", "aws_secret_access_key": "secret", "aws_session_token": token}
        file.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in keys.items()))

    with fake_s3(server_with_tokens()) as server:
        settings = S3Settings(endpoint_url=server.endpoint_url, region="us-east-1", max_attempts=2)
        store = open_store("s3://bucket", settings)
        with pytest.raises(AccessDenied, match="credentials"):
            store.get("a")
        write("token-1")  # without credentials at first, too
        store.put("a", b"x")
        server.dialect.keys = {"key-1": "token-2"}
        write("token-2")
        assert store.get("a") == b"x"


def test_a_source_of_credentials_that_is_away_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that gives credentials for five minutes: botocore asks it before every request."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = tmp_path / "given.json"
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {given}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def give(minutes: float) -> None:
        until = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()
        keys = {"AccessKeyId": "key-1", "SecretAccessKey": "secret", "SessionToken": "token-1"}
        given.write_text(json.dumps({"Version": 1, "Expiration": until} | keys))

    with fake_s3(server_with_tokens()) as server:
        store = open_store("s3://bucket", S3Settings(endpoint_url=server.endpoint_url, region="us-east-1"))
        give(5.0)
        store.put("a", b"x")
        given.unlink()
        with pytest.raises(CredentialsExpired, match="renew"):
            store.get("a")
        give(-5.0)
        with pytest.raises(CredentialsExpired, match="still expired"):
            store.get("a")
        give(5.0)
        assert store.get("a") == b"x"


def test_settings_with_files(secrets: Secrets, tmp_path: Path) -> None:
    settings = S3Settings(**secrets.paths)
    keys = pickle.loads(pickle.dumps(settings)).read_keys()
    assert keys == ("key-1", "secret", "token-1")
    given = S3Settings(**secrets.paths, access_key="mine", secret_key="own").read_keys()  # type: ignore[arg-type]
    assert given == ("mine", "own", "token-1")  # a value goes before its file
    with pytest.raises(SettingsError, match=r"s3\.secret_key"):
        S3Settings(access_key_file=tmp_path / "a")
    with pytest.raises(SettingsError, match=r"s3\.session_token"):
        S3Settings(session_token_file=tmp_path / "a")
    shutil.rmtree(tmp_path / "..1")
    with pytest.raises(SettingsError, match=r"s3\.access_key_file"):
        settings.check_files()
    with pytest.raises(SettingsError, match=r"s3\.access_key_file"):
        open_store("s3://bucket", settings).get("a")


def test_files_that_change_all_the_time_keep_no_request_for_ever(secrets: Secrets) -> None:
    with fake_s3(Dialect(keys={"key-1": "other"})) as server:
        store = open_store("s3://bucket", server.settings(credentials_seconds=1.0, **secrets.paths))
        stop = threading.Event()

        def rotate() -> None:
            number = 1
            while not stop.wait(0.05):
                number += 1
                secrets.rotate("key-1", f"wrong-{number}")

        thread = threading.Thread(target=rotate)
        thread.start()
        try:
            with pytest.raises(AccessDenied):
                store.get("a")
        finally:
            stop.set()
            thread.join()
