"""The connection to Redis: its URL, its client, and the translation of its errors."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from generator.errors import BrokerUnavailable, SettingsError
from workers.settings import Settings

EMBEDDED_STATE_FILE = "redis.json"
_START_HINT = "start `latentmill up` in another terminal, or set LATENTMILL_REDIS_URL=redis://host:6379/0"
_SCHEMES = ("redis", "rediss")
_TIMEOUT = 10.0  # seconds
_ADDRESS = re.compile(r"((?:\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d{1,5})?(?:/\d*)?)(?:[?#].*)?")  # host, port, database


def redis_url(settings: Settings) -> str:
    """The URL of the configured Redis, or of the one run by ``latentmill up`` here. Raises ``SettingsError``."""
    if settings.redis_url is not None:
        return _with_tls(settings.redis_url.get_secret_value(), settings)
    state = _embedded_state(settings)
    if "url" in state and not is_running(state.get("pid")):
        got = f"neither: the `latentmill up` of process {state.get('pid')} has ended"
    elif "url" in state:
        return str(state["url"])
    else:
        got = "neither"
    raise SettingsError(
        "LATENTMILL_REDIS_URL", "a Redis URL, or `latentmill up` running on this machine", got, _START_HINT
    )


def _with_tls(url: str, settings: Settings) -> str:
    """Add the TLS options to a ``rediss://`` URL, where redis-py and kombu both read them.

    The certificate and its host name are always checked. Raises ``SettingsError`` for a URL that turns a check off.
    """
    if not url.startswith("rediss://"):
        return url
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    for name, required in (("ssl_cert_reqs", "required"), ("ssl_check_hostname", "true")):
        if options.get(name, required).lower() != required:
            raise SettingsError("LATENTMILL_REDIS_URL", f"{name}={required}, or no {name} at all", redacted_url(url))
    files = {"ssl_ca_certs": "redis_ca_file", "ssl_certfile": "redis_cert_file", "ssl_keyfile": "redis_key_file"}
    paths = {name: _existing_file(setting, getattr(settings, setting)) for name, setting in files.items()}
    paths = {name: path for name, path in paths.items() if path}
    if "ssl_keyfile" in paths and "ssl_certfile" not in paths:
        expected = "the certificate that the key in LATENTMILL_REDIS_KEY_FILE belongs to"
        raise SettingsError("LATENTMILL_REDIS_CERT_FILE", expected, "none")
    return f"{address}?{urlencode({'ssl_cert_reqs': 'required'} | options | paths)}"


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


def connect(url: str, timeout: float = _TIMEOUT) -> redis.Redis:
    """A Redis client for ``url`` whose requests time out after ``timeout`` seconds; it connects on first use.

    Raises ``SettingsError`` for a malformed URL, or for options that the broker's connection does not support.
    """
    malformed = SettingsError(
        "LATENTMILL_REDIS_URL", "redis://[:password@]host:port/db or rediss://...", redacted_url(url)
    )
    if url.partition("://")[0] not in _SCHEMES:
        raise malformed
    if any(not name.startswith("ssl_") for name, _ in parse_qsl(url.partition("?")[2])):
        raise SettingsError(
            "LATENTMILL_REDIS_URL",
            "redis://[:password@]host:port/db or rediss://..., with no options but those of TLS (ssl_...)",
            f"other options after {redacted_url(url)}",
            "set timeouts with LATENTMILL_REDIS_TIMEOUT",
        )
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=min(3.0, timeout),
            socket_keepalive=True,
            health_check_interval=max(1, round(1.5 * timeout)),
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
            decode_responses=True,
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # fail here, not on first use, for an unknown option
    except (ValueError, TypeError) as cause:
        raise malformed from cause
    return client


@contextmanager
def broker_errors(url: str) -> Iterator[None]:
    """Context manager that translates redis-py errors to ``BrokerUnavailable``."""
    try:
        yield
    except redis.AuthenticationError as refused:
        raise BrokerUnavailable(
            "redis", "credentials that Redis accepts", f"refused by {redacted_url(url)}"
        ) from refused
    except (redis.ConnectionError, redis.TimeoutError) as down:
        raise BrokerUnavailable(
            "redis", f"a Redis that answers at {redacted_url(url)}", _failure_reason(down), "nothing was written"
        ) from down
    except redis.RedisError as refusal:
        reason = str(refusal).partition(", with args beginning with")[0]  # the arguments of AUTH are a password
        raise BrokerUnavailable(
            "redis", f"a Redis at {redacted_url(url)} that accepts the command", f"{type(refusal).__name__}: {reason}"
        ) from refusal


def _failure_reason(down: BaseException) -> str:
    """Why a connection failed: the TLS error if there is one, else the type of the exception."""
    cause: BaseException | None = down
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"a certificate that is not trusted: {cause.verify_message}"
    return f"a TLS handshake that failed: {cause.reason}" if isinstance(cause, ssl.SSLError) else type(down).__name__


def redacted_url(url: str) -> str:
    """A Redis URL for logs: credentials, and any part that may be one, become ``***``. Never raises."""
    scheme, _, rest = url.partition("://")
    credentials, _, address = rest.rpartition("@")
    found = None if "?" in credentials or "#" in credentials else _ADDRESS.fullmatch(address)
    name = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme) and rest else "***"
    return f"{name}://{found[1] if found else '***'}"


def _embedded_state(settings: Settings) -> dict[str, object]:
    """The state file of ``latentmill up``; empty if it is missing or unreadable."""
    try:
        state = json.loads((settings.state_dir / EMBEDDED_STATE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
