"""Secrets, encrypted and restricted connections, and the stores that a job may reach."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import redis as redis_py
from pydantic import SecretStr

from generator.errors import BrokerUnavailable, SettingsError, SpecError
from generator.models.bundle import push
from generator.spec.canonical import canonical_json
from generator.store import is_below, open_store
from tests.support.bundles import tiny_bundle
from tests.support.servers import KEY_PREFIX, RedisServer
from tests.support.tls import tls_proxy
from workers.broker.address import parse_address
from workers.broker.app import make_app
from workers.broker.connection import connect, ping, redis_address
from workers.client import Client
from workers.embedded import worker_environment
from workers.settings import SECRETS, Settings, load_settings
from workers.worker.ticket_handler import open_ticket_handler

S3_SECRETS = ("s3_access_key", "s3_secret_key", "s3_session_token")
ALL_SECRETS = (*SECRETS, *S3_SECRETS)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without ``LATENTMILL_`` variables."""
    for name in [name for name in os.environ if name.startswith("LATENTMILL_")]:
        monkeypatch.delenv(name)
    return monkeypatch


def test_every_secret_may_stand_in_a_file(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ALL_SECRETS:
        (tmp_path / name).write_text(f"redis://:from-a-file-{name}@h/0\n")
        clean.setenv(f"LATENTMILL_{name.upper()}_FILE", str(tmp_path / name))
    settings = load_settings()
    for name in SECRETS:
        assert getattr(settings, name).get_secret_value() == f"redis://:from-a-file-{name}@h/0"
    assert settings.s3.read_keys() == tuple(f"redis://:from-a-file-{name}@h/0" for name in S3_SECRETS)
    assert "from-a-file" not in repr(settings) + str(settings) + settings.model_dump_json() + repr(settings.s3)
    assert worker_environment(settings)["LATENTMILL_REDIS_URL"].startswith("redis://:from-a-file")
    assert "LATENTMILL_S3_SECRET_KEY" not in worker_environment(settings)  # workers read the file, again and again
    assert worker_environment(settings)["LATENTMILL_S3_SECRET_KEY_FILE"] == str(tmp_path / "s3_secret_key")
    clean.setenv("LATENTMILL_REDIS_URL", "redis://variable/0")
    clean.setenv("LATENTMILL_S3_SECRET_KEY", "variable")
    url, keys = load_settings().redis_url, load_settings().s3.read_keys()
    assert url is not None
    assert keys is not None
    assert (url.get_secret_value(), keys.secret_key) == ("redis://variable/0", "variable")


@pytest.mark.parametrize("variable", ["REDIS_URL_FILE", "S3_SECRET_KEY_FILE"])
@pytest.mark.parametrize(
    "content", [None, b"", b"\n", b"two\nlines", b"nul\0byte", b"\xff\xfe", b"x" * 70_000], ids=lambda c: repr(c)[:12]
)
def test_a_secret_file_that_is_none_is_named_and_never_shown(
    clean: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, variable: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    clean.setenv("LATENTMILL_S3_ACCESS_KEY", "key")
    clean.setenv(f"LATENTMILL_{variable}", str(path))
    if variable != "S3_SECRET_KEY_FILE":
        clean.setenv("LATENTMILL_S3_SECRET_KEY", "secret")
    with pytest.raises(SettingsError, match=f"LATENTMILL_{variable}") as wrong:
        load_settings()
    assert "two" not in str(wrong.value)
    assert "nul" not in str(wrong.value)


@pytest.mark.parametrize(
    ("url", "place", "below"),
    [
        ("s3://aaa/b/c", "s3://", True),
        ("s3://aaa/b/c", "s3://aaa", True),
        ("s3://aaa/b/c", "s3://aaa/b", True),
        ("s3://aaa/bb", "s3://aaa/b", False),
        ("s3://aaa/b", "s3://aaa/b/c", False),
        ("s3://aaab/b", "s3://aaa", False),
        ("/data/out", "s3://", False),
        ("memory://x", "s3://", False),
        ("file:///data/out/x", "/data/out", True),
        ("/data/out/../../etc", "/data/out", False),
        ("/data/output", "/data/out", False),
        ("file:///data/out/%2e%2e/x", "/data/out", False),
        ("/data/out/x", "memory://x", False),
    ],
)
def test_what_lies_below_what(url: str, place: str, below: bool) -> None:
    assert is_below(url, place) is below


def test_a_link_does_not_lead_out_of_an_allowed_directory(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "out").symlink_to(tmp_path)
    assert is_below(str(tmp_path / "allowed" / "in"), str(tmp_path / "allowed"))
    assert not is_below(str(tmp_path / "allowed" / "out" / "x"), str(tmp_path / "allowed"))


@pytest.mark.parametrize(
    ("allowed", "root", "url", "fine"),
    [
        (None, "/root", "/anywhere", True),
        (None, "/root", "s3://bucket/x", True),
        (None, "s3://bucket/root", "s3://other/x", True),
        (None, "s3://bucket/root", "/etc", False),
        ("s3://bucket/out, /data", "s3://bucket/root", "/data/x", True),
        ("s3://bucket/out,/data", "s3://bucket/root", "s3://bucket/out/x", True),
        ("s3://bucket/out,/data", "s3://bucket/root", "s3://bucket/root", False),
        ("s3://bucket/out", "/root", "/data", False),
    ],
)
def test_allowed_stores(allowed: str | None, root: str, url: str, fine: bool) -> None:
    settings = Settings(allowed_stores=allowed, root=root)
    if fine:
        assert settings.check_allowed(url) == url
        return
    with pytest.raises(SettingsError, match="LATENTMILL_ALLOWED_STORES"):
        settings.check_allowed(url)


@pytest.mark.parametrize("urls", ["http://host/x", "s3://", "gs://", "gcs://bucket", "s3://x"])
def test_an_allow_list_names_stores(clean: pytest.MonkeyPatch, urls: str) -> None:
    clean.setenv("LATENTMILL_ALLOWED_STORES", urls)
    if urls in ("s3://", "gs://"):
        assert load_settings().allowed_stores == urls
        return
    with pytest.raises(SettingsError, match="LATENTMILL_ALLOWED_STORES"):
        load_settings()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def job(bundle: Path, destination: Path) -> dict[str, object]:
    return {"bundle": str(bundle), "destination": str(destination), "name": "tiny", "count": 20, "batch": 16}


def settings_for(server: RedisServer, home: Path, **more: object) -> Settings:
    places = {"root": str(home / "root"), "state_dir": home / "state", "cache_dir": home / "cache"}
    given = {"redis_url": SecretStr(server.url), "device": "cpu", "lease_seconds": 2.0}
    return Settings(**places | given | more)  # type: ignore[arg-type]


def test_neither_client_nor_worker_writes_outside_of_what_is_allowed(
    redis_server: RedisServer, bundle: Path, tmp_path: Path
) -> None:
    anywhere = settings_for(redis_server, tmp_path)
    strict = anywhere.model_copy(update={"allowed_stores": str(tmp_path / "allowed")})
    with pytest.raises(SettingsError, match="destination"):
        Client(strict).submit(job(bundle, tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()
    outside = Client(anywhere).submit(job(bundle, tmp_path / "elsewhere"))  # an attacker's client without the limit
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    worker = open_ticket_handler(strict)
    assert worker.serve().summary.startswith("declined")
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before
    assert "ALLOWED_STORES" in Client(anywhere).status(outside.job).error
    inside = Client(strict).submit(job(bundle, tmp_path / "allowed" / "deep"))
    assert "committed" in open_ticket_handler(strict).serve().summary or "committed" in worker.serve().summary
    assert Client(anywhere).status(inside.job).state == "committed"
    with pytest.raises(SettingsError, match="destination"):
        Client(strict).resume(outside.url)


def test_a_job_cannot_choose_the_service(bundle: Path, tmp_path: Path) -> None:
    """No field of a spec names a host: the S3 service comes from the worker's own settings alone."""
    for destination in ("http://evil/x", "s3://user:password@evil/x", "file://evil/x", "s3://evil:9000/x", "redis://x"):
        with pytest.raises(SpecError):
            Settings(root=str(tmp_path)).check_allowed(destination)


def test_a_worker_takes_bundles_from_its_root_alone_and_under_the_pinned_digest(
    redis_server: RedisServer, bundle: Path, tmp_path: Path
) -> None:
    settings = settings_for(redis_server, tmp_path)
    client, root = Client(settings), open_store(settings.root)
    digest = push(open_store(str(bundle)), root)
    other = push(open_store(str(tiny_bundle(tmp_path / "other", seed=1))), open_store(str(tmp_path / "elsewhere")))
    held = {info.key: root.get(info.key) for info in root.list("bundles/")}
    missing = client.submit(job(bundle, tmp_path / "a"))
    for key in held:
        root.delete(key)
    shutil.copytree(bundle, tmp_path / "a" / "bundles" / digest.removeprefix("sha256:"))  # where nobody may look for it
    assert open_ticket_handler(settings).serve().summary.startswith("declined")
    assert digest in client.status(missing.job).error
    for key, data in held.items():
        root.put(key, data if "decoder" not in key else b"altered")
    assert "decoder.safetensors" in open_ticket_handler(settings).serve().summary
    assert client.status(missing.job).state == "failed"
    for key, data in held.items():
        root.put(key, data)
    shutil.copytree(tmp_path / "other", settings.cache_dir / digest.removeprefix("sha256:"), dirs_exist_ok=True)
    client.resume(missing.job)
    assert "committed" in open_ticket_handler(settings).serve().summary
    assert open_ticket_handler(settings).decoders.bundle_cache.load(digest, (root,)).digest == digest
    assert other != digest


def test_a_recipe_that_was_exchanged_after_the_submission_is_not_built(
    redis_server: RedisServer, bundle: Path, tmp_path: Path
) -> None:
    settings = settings_for(redis_server, tmp_path)
    client = Client(settings)
    wanted = client.submit(job(bundle, tmp_path / "out"))
    another = client.submit(job(bundle, tmp_path / "out") | {"seed": 1, "count": 10_000})
    client.cancel(another.job)
    open_store(wanted.url).put("recipe.json", open_store(another.url).get("recipe.json"))
    assert "recipe of build" in open_ticket_handler(settings).serve().summary
    assert client.status(wanted.job).state == "failed"
    assert {info.key for info in open_store(wanted.url).list()} == {"recipe.json"}


ACL = "on resetchannels ~latentmill:* &latentmill:* +@all -@admin -@dangerous +info +config|get"


def test_a_user_of_redis_with_few_rights_is_enough(redis_server: RedisServer, bundle: Path, tmp_path: Path) -> None:
    """The rights in docs/operations.md suffice for a whole job, broker and ledger, and allow nothing else."""
    admin = redis_py.Redis.from_url(redis_server.url)
    admin.execute_command("ACL", "SETUSER", "mill", ">a-password", *ACL.split())
    admin.set("other:secret", "x")
    url = f"redis://mill:a-password@127.0.0.1:{redis_server.port}/0"
    settings = settings_for(redis_server, tmp_path, redis_url=SecretStr(url))
    client = Client(settings)
    submitted = client.submit(job(bundle, tmp_path / "out"))
    assert "committed" in open_ticket_handler(settings).serve().summary
    assert client.status(submitted.job).state == "committed"
    restricted = redis_py.Redis.from_url(url)
    for refused in (
        ["FLUSHALL"],
        ["GET", "other:secret"],
        ["CONFIG", "SET", "dir", "/"],
        ["SHUTDOWN"],
        ["MONITOR"],
    ):
        with pytest.raises(redis_py.exceptions.NoPermissionError):
            restricted.execute_command(*refused)
    wrong = f"redis://mill:wrong-password@127.0.0.1:{redis_server.port}/0"
    with pytest.raises(BrokerUnavailable) as denied:
        ping(parse_address(wrong))
    assert "wrong-password" not in str(denied.value)


def test_ledger_and_broker_speak_tls_with_an_authority_of_ones_own(redis_server: RedisServer, tmp_path: Path) -> None:
    with tls_proxy(redis_server, tmp_path) as port:
        secret = SecretStr(f"rediss://127.0.0.1:{port}/0")
        trusting = settings_for(redis_server, tmp_path, redis_url=secret, redis_ca_file=tmp_path / "ca.pem")
        ping(redis_address(trusting))
        with make_app(trusting, KEY_PREFIX).connection_for_write() as broker:
            broker.ensure_connection(max_retries=1, timeout=5)
            assert broker.default_channel.client.ping()
        elsewhere = SecretStr(f"rediss://localhost:{port}/0")  # a name that the certificate does not hold
        misled = trusting.model_copy(update={"redis_url": elsewhere})
        for stranger in (trusting.model_copy(update={"redis_ca_file": None}), misled):
            with pytest.raises(BrokerUnavailable, match="a certificate that is not trusted"):
                ping(redis_address(stranger))
            app = make_app(stranger, KEY_PREFIX)
            app.conf.broker_transport_options |= {"max_retries": 1, "interval_start": 0.0}  # else for eight seconds
            with pytest.raises(Exception, match=r"(?i)certificate"), app.connection_for_write() as broker:
                broker.default_channel.client.ping()


@pytest.mark.parametrize("query", ["ssl_cert_reqs=none", "ssl_cert_reqs=optional", "ssl_check_hostname=false"])
def test_tls_is_never_used_without_a_look_at_the_certificate(query: str) -> None:
    settings = Settings(redis_url=SecretStr(f"rediss://:hunter2@h:6379/0?{query}"))
    with pytest.raises(SettingsError, match="LATENTMILL_REDIS_URL") as wrong:
        redis_address(settings)
    assert "hunter2" not in str(wrong.value)
    assert connect(parse_address("rediss://h/0?ssl_cert_reqs=required")).connection_pool is not None


def test_files_of_tls_that_do_not_fit_are_named(tmp_path: Path) -> None:
    settings, file = Settings(redis_url=SecretStr("rediss://h/0")), tmp_path / "a.pem"
    file.touch()
    for given, variable in (
        ({"redis_ca_file": tmp_path / "none.pem"}, "LATENTMILL_REDIS_CA_FILE"),
        ({"redis_key_file": file}, "LATENTMILL_REDIS_CERT_FILE"),
        ({"redis_key_file": file, "redis_cert_file": tmp_path}, "LATENTMILL_REDIS_CERT_FILE"),
    ):
        with pytest.raises(SettingsError, match=variable):
            redis_address(settings.model_copy(update=given))


def test_nothing_but_json_is_accepted_from_the_broker(redis_server: RedisServer, tmp_path: Path) -> None:
    app = make_app(settings_for(redis_server, tmp_path), KEY_PREFIX)
    assert app.conf.accept_content == ["json"]
    assert app.conf.result_accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert json.loads(canonical_json({"a": 1})) == {"a": 1}
