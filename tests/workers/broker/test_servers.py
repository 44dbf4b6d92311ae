"""Redis as it is run elsewhere: a socket file, TLS, passwords of any letters, Sentinel; for ledger and broker."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from kombu import Queue
from pydantic import SecretStr

from generator.errors import BrokerUnavailable
from tests.support.sentinels import SentinelRedis
from tests.support.servers import RedisServer, redis_binary
from tests.support.tls import tls_proxy, write_certificates
from workers.broker.connection import ping, redis_address
from workers.jobs.pool import Pool
from workers.settings import Settings

pytestmark = pytest.mark.server
PASSWORD = "a#b/c?d@e%41f:g;h"  # every character that means something in a URL
ENCODED = quote(PASSWORD, safe="")


def pool_on(tmp_path: Path, **redis: Any) -> Pool:
    return Pool(Settings(root=str(tmp_path / "root"), redis_timeout=2.0, **redis))


def work(pool: Pool) -> None:
    """A shard is completed, and a ticket goes through the broker; every key lies below the pool's prefix."""
    ledger, settings = pool.ledger, pool.settings
    ledger.add("job", {}, 2)
    claim = ledger.claim(60.0)
    assert claim is not None
    ledger.complete(claim)
    assert pool.top_up() == 1
    assert take_tickets(pool) == 1
    keys = [str(key) for key in ledger._redis.scan_iter("*")]
    assert keys
    assert [key for key in keys if not key.startswith(pool.identity.prefix())] == []
    assert ledger._redis.hlen(ledger.queue_key("unacked")) == 0
    assert settings.queue not in keys


def take_tickets(pool: Pool, most: int = 1) -> int:
    """The number of tickets that a consumer takes and acknowledges."""
    taken: list[object] = []

    def take(body: object, message: Any) -> None:
        taken.append(body)
        message.ack()

    with (
        pool.app.connection_for_read() as connection,
        connection.Consumer(Queue(pool.settings.queue), callbacks=[take], accept=["json"]),
    ):
        while len(taken) < most:
            connection.drain_events(timeout=20)
    return len(taken)


def test_user_names_and_passwords_of_any_letters(tmp_path: Path) -> None:
    server = RedisServer(PASSWORD)
    try:
        url = f"redis://:{ENCODED}@127.0.0.1:{server.port}/7"
        pool = pool_on(tmp_path, redis_url=SecretStr(url))
        work(pool)
        assert pool.ledger._redis.info("keyspace").keys() == {"db7"}
        pool.ledger._redis.execute_command("ACL", "SETUSER", "m#ll@x", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        user = quote("m#ll@x", safe="")
        work(pool_on(tmp_path / "user", redis_url=SecretStr(f"redis://{user}:{ENCODED}@127.0.0.1:{server.port}/8")))
        raw = redis_address(Settings(redis_url=SecretStr(f"redis://:a%23b@127.0.0.1:{server.port}/0")))
        with pytest.raises(BrokerUnavailable, match="credentials that Redis accepts") as refused:
            ping(raw)
        assert "%25" in refused.value.hint
    finally:
        server.stop()


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
@pytest.mark.parametrize("password", ["", PASSWORD], ids=["open", "password"])
def test_a_socket_file(scheme: str, password: str, tmp_path: Path) -> None:
    server = RedisServer(password or None, {"unixsocket": "DIRECTORY/a b.sock"})
    try:
        login, path = f":{quote(password, safe='')}@" if password else "", quote(f"{server.directory}/a b.sock")
        database = "db" if scheme == "unix" else "virtual_host"
        work(pool_on(tmp_path, redis_url=SecretStr(f"{scheme}://{login}{path}?{database}=3")))
    finally:
        server.stop()


@pytest.mark.parametrize("spelling", ["required", "CERT_REQUIRED"])
def test_tls_in_the_spellings_of_celery(redis_server: RedisServer, spelling: str, tmp_path: Path) -> None:
    with tls_proxy(redis_server, tmp_path) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_cert_reqs={spelling}&ssl_ca_certs={tmp_path / 'ca.pem'}"
        work(pool_on(tmp_path, redis_url=SecretStr(url)))


@contextmanager
def sentinel_redis(*given: Any, **options: Any) -> Iterator[SentinelRedis]:
    service = SentinelRedis(*given, **options)
    try:
        yield service
    finally:
        service.stop()


def test_sentinel_names_the_master_and_a_lost_master_costs_nothing(tmp_path: Path) -> None:
    with sentinel_redis("of-redis", "of-sentinel") as service:
        pool = pool_on(tmp_path, **service.settings)
        work(pool)
        with pytest.raises(BrokerUnavailable):
            ping(redis_address(pool.settings.model_copy(update={"redis_sentinel_password": SecretStr("wrong")})))
        pool.ledger._redis.wait(1, 5000)  # the replica has what the ledger knows
        lost = service.lose_master()
        assert once_it_answers(lambda: pool.ledger.counts("job").done) == 1
        assert once_it_answers(lambda: pool.app.send_task("latentmill.work", queue=pool.settings.queue))
        lost.restart()  # as a replica of the new master: nothing is written to it
        assert take_tickets(pool) == 1
        assert once_it_answers(lambda: pool.ledger.claim(60.0)) is not None


def test_sentinel_with_tls(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    files = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
    tls = {f"tls-{name}": str(tmp_path / file) for name, file in files.items()} | {"tls-replication": "yes"}
    if not knows_tls():
        pytest.skip(f"{redis_binary()} was built without TLS")
    with sentinel_redis("of-redis", "of-sentinel", tls=tls) as service:
        settings = service.settings | {"redis_ca_file": tmp_path / "ca.pem"}
        settings |= {"redis_cert_file": tmp_path / "server.pem", "redis_key_file": tmp_path / "server.key"}
        work(pool_on(tmp_path, **settings))


def knows_tls() -> bool:
    """Whether the server was built with TLS: then it misses the certificate."""
    files = [part for name in ("cert", "key", "ca-cert") for part in (f"--tls-{name}-file", "/nowhere")]
    command = [redis_binary(), "--port", "0", "--tls-port", "1", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    return "Failed to load certificate" in done.stdout + done.stderr


def once_it_answers(ask: Any) -> Any:
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return ask()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
