"""The connection to Redis, with its failures translated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from generator.errors import BrokerUnavailable, SettingsError
from workers.settings import Settings

EMBEDDED_STATE = "redis.json"


def redis_url(settings: Settings) -> str:
    """The configured Redis, or the one that ``latentmill up`` runs on this machine. Raises ``SettingsError``."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    try:
        state = json.loads((settings.state_dir / EMBEDDED_STATE).read_text())
        return str(state["url"])
    except (OSError, ValueError, KeyError, TypeError) as missing:
        raise SettingsError(
            "LATENTMILL_REDIS_URL",
            "a Redis URL, or `latentmill up` running on this machine",
            "neither",
            "start `latentmill up` in another terminal, or set LATENTMILL_REDIS_URL=redis://host:6379/0",
        ) from missing


def connect(url: str) -> redis.Redis:
    """A client of the Redis at ``url``; nothing is sent yet. Raises ``SettingsError`` for a URL that is none."""
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=10.0,
            socket_connect_timeout=3.0,
            socket_keepalive=True,
            health_check_interval=15,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), retries=3),
            decode_responses=True,
        )
    except ValueError as wrong:
        raise SettingsError("LATENTMILL_REDIS_URL", "redis://[:password@]host:port/db", shown(url)) from wrong


@contextmanager
def broker_errors(url: str) -> Iterator[None]:
    """Inside the block, a Redis that does not answer is ``BrokerUnavailable``."""
    try:
        yield
    except redis.AuthenticationError as refused:
        raise BrokerUnavailable("redis", "credentials that Redis accepts", f"refused by {shown(url)}") from refused
    except (redis.ConnectionError, redis.TimeoutError) as down:
        raise BrokerUnavailable(
            "redis", f"a Redis that answers at {shown(url)}", type(down).__name__, "nothing was written"
        ) from down


def shown(url: str) -> str:
    """A Redis URL without its credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
