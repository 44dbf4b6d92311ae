"""The connection to Redis: its address in the settings, its client, and the translation of its errors."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from generator.errors import BrokerUnavailable, SettingsError
from generator.store import open_store
from generator.store.base import Store
from workers.broker.address import (
    ENCODING_HINT,
    FORMS,
    REDIS_VARIABLE,
    RedisAddress,
    SentinelLogin,
    parse_address,
    redacted_url,
)
from workers.settings import Settings

EMBEDDED_STATE_FILE = "redis.json"
_START_HINT = "start `latentmill up` in another terminal, or set LATENTMILL_REDIS_URL=redis://host:6379/0"
_TIMEOUT = 10.0  # seconds


def redis_address(settings: Settings) -> RedisAddress:
    """The address of the configured Redis, or of the one run by ``latentmill up`` here. Raises ``SettingsError``."""
    if settings.redis_url is not None:
        secret = settings.redis_sentinel_password
        password = secret.get_secret_value() if secret is not None else None
        login = SentinelLogin(settings.redis_sentinel_master, settings.redis_sentinel_user, password)
        return parse_address(settings.redis_url.get_secret_value(), tls=_tls_files(settings), sentinel=login)
    state = _embedded_state(settings)
    if "url" in state and not is_running(state.get("pid")):
        got = f"neither: the `latentmill up` of process {state.get('pid')} has ended"
    elif "url" in state:
        return parse_address(str(state["url"]))
    else:
        got = "neither"
    raise SettingsError(REDIS_VARIABLE, "a Redis URL, or `latentmill up` running on this machine", got, _START_HINT)


def _tls_files(settings: Settings) -> dict[str, str]:
    """The files for TLS in the settings, by redis-py's names. Raises ``SettingsError``."""
    files = {"ssl_ca_certs": "redis_ca_file", "ssl_certfile": "redis_cert_file", "ssl_keyfile": "redis_key_file"}
    paths = {name: _existing_file(setting, getattr(settings, setting)) for name, setting in files.items()}
    paths = {name: path for name, path in paths.items() if path}
    if "ssl_keyfile" in paths and "ssl_certfile" not in paths:
        expected = "the certificate that the key in LATENTMILL_REDIS_KEY_FILE belongs to"
        raise SettingsError("LATENTMILL_REDIS_CERT_FILE", expected, "none")
    return paths


def _existing_file(setting: str, path: Path | None) -> str:
    """The absolute path of an existing file, or "" for ``None``. Raises ``SettingsError`` if there is no such file."""
    if path is not None and not path.is_file():
        raise SettingsError(f"LATENTMILL_{setting.upper()}", "a file that can be read", str(path))
    return "" if path is None else str(path.absolute())


def embedded_root(settings: Settings) -> str | None:
    """The absolute URL of the store root of the ``latentmill up`` that runs on this machine.

    ``None`` if a Redis is configured or no ``latentmill up`` runs: then ``settings.root`` applies.
    """
    if settings.redis_url is not None:
        return None
    state = _embedded_state(settings)
    return str(state["root"]) if "root" in state and is_running(state.get("pid")) else None


def is_running(pid: object) -> bool:
    """Whether a process with this id runs on this machine."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs as another user
        return True
    return True


def store_root(settings: Settings) -> Store:
    """The store root: that of the ``latentmill up`` of this machine if no Redis is configured, else the setting."""
    return open_store(embedded_root(settings) or settings.root, settings.s3)


def connect(address: RedisAddress, timeout: float = _TIMEOUT) -> redis.Redis:
    """A Redis client whose requests time out after ``timeout`` seconds; it connects on first use.

    Raises ``SettingsError`` for options that redis-py does not know.
    """
    limits: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": min(3.0, timeout)}
    options: dict[str, Any] = limits | {
        "db": address.database,
        "username": address.username,
        "password": address.password,
        "health_check_interval": max(1, round(1.5 * timeout)),
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
        "decode_responses": True,
    }
    try:
        client = _client(address, options, limits)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # fail here, not on first use, for an unknown option
    except (ValueError, TypeError) as cause:
        raise SettingsError(REDIS_VARIABLE, FORMS, redacted_url(address.url)) from cause
    return client


def _client(address: RedisAddress, options: dict[str, Any], limits: dict[str, Any]) -> redis.Redis:
    if address.kind == "unix":
        del options["socket_connect_timeout"]
        return redis.Redis(unix_socket_path=address.path, **options)
    tls: dict[str, Any] = {"ssl": True, **address.tls} if address.tls is not None else {}
    if address.kind == "tcp":
        host, port = address.nodes[0]
        return redis.Redis(host=host, port=port, socket_keepalive=True, **options, **tls)
    sentinel: Any = Sentinel(address.nodes, sentinel_kwargs=address.sentinel_options(limits))  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinel.master_for(address.master, redis.Redis, socket_keepalive=True, **options, **tls)
    return client


def ping(address: RedisAddress, timeout: float = _TIMEOUT) -> None:
    """Raises ``BrokerUnavailable`` if Redis does not answer."""
    with broker_errors(address), connect(address, timeout) as client:
        client.ping()


@contextmanager
def broker_errors(address: RedisAddress) -> Iterator[None]:
    """Context manager that translates redis-py errors to ``BrokerUnavailable``."""
    try:
        yield
    except redis.AuthenticationError as refused:
        raise BrokerUnavailable(
            "redis", "credentials that Redis accepts", f"refused by {address}", ENCODING_HINT
        ) from refused
    except (redis.ConnectionError, redis.TimeoutError) as down:
        raise BrokerUnavailable(
            "redis", f"a Redis that answers at {address}", _failure_reason(down), "nothing was written"
        ) from down
    except redis.RedisError as refusal:
        reason = str(refusal).partition(", with args beginning with")[0]  # the arguments of AUTH are a password
        raise BrokerUnavailable(
            "redis", f"a Redis at {address} that accepts the command", f"{type(refusal).__name__}: {reason}"
        ) from refusal


def _failure_reason(down: BaseException) -> str:
    """Why a connection failed: the TLS error if there is one, else the type of the exception."""
    cause: BaseException | None = down
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"a certificate that is not trusted: {cause.verify_message}"
    return f"a TLS handshake that failed: {cause.reason}" if isinstance(cause, ssl.SSLError) else type(down).__name__


def _embedded_state(settings: Settings) -> dict[str, object]:
    """The state file of ``latentmill up``; empty if it is missing or unreadable."""
    try:
        state = json.loads((settings.state_dir / EMBEDDED_STATE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
