"""Redis: reachable, new enough, keeping what it is told, and allowed to do what the ledger does."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import redis

from generator.errors import LatentmillError, SettingsError
from workers.broker.connection import broker_errors, connect, redacted_url, redis_url
from workers.doctor.findings import Check, Finding, failed, ok, run_checks, warning
from workers.settings import Settings

_MIN_VERSION = (6, 2)
_SKEW_SECONDS = 5.0
_ABSENT_HINT = "start Redis, or correct LATENTMILL_REDIS_URL; without it, `latentmill up` brings one of its own"
_TLS_HINT = "give the authority that signed the server's certificate in LATENTMILL_REDIS_CA_FILE (docs/security.md)"
_USER_HINT = "docs/security.md gives the rights that latentmill's user needs"


def examine_redis(settings: Settings) -> Iterator[Finding]:
    """The checks of the configured Redis; without a connection, one failed finding."""
    try:
        url = redis_url(settings)
        client: Any = connect(url)
        with broker_errors(url):
            began = time.perf_counter()
            client.ping()
    except LatentmillError as away:
        mend = _TLS_HINT if "certificate" in away.got else _ABSENT_HINT
        if isinstance(away, SettingsError):
            mend = away.hint or f"correct {away.field}"
        yield failed("redis", f"expected {away.expected}, got {away.got}", mend)
        return
    yield ok("redis", f"{redacted_url(url)} answers ({(time.perf_counter() - began) * 1000:.1f} ms)")
    server = _RedisChecks(client, url)
    checks: dict[str, Check] = {
        "redis connection": lambda: _check_connection(url),
        "redis version": server.version,
        "redis rights": server.rights,
        "redis persistence": server.persistence,
        "redis eviction": server.eviction,
        "redis memory": server.memory,
        "redis clock": server.clock,
    }
    yield from run_checks(checks)
    client.close()


class _RedisChecks:
    """What Redis says of itself; a user without the right to ask gets a warning, not a failure."""

    def __init__(self, client: Any, url: str) -> None:
        self._client, self._url = client, url
        self._info = self._query(client.info) or {}

    def version(self) -> Finding:
        text = str(self._info.get("redis_version", ""))
        if not text:
            return self._unknown("redis version")
        if self._info.get("redis_mode") == "cluster":
            mend = "use one Redis (with replicas, if you like): the ledger's scripts touch several keys"
            return failed("redis version", f"{text}, a cluster", mend)
        numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if numbers < _MIN_VERSION:
            return failed("redis version", text, f"use Redis {'.'.join(map(str, _MIN_VERSION))} or newer, or Valkey")
        return ok("redis version", text)

    def rights(self) -> Finding:
        """What ledger and broker do, on keys of their own: strings, hashes, lists, sorted sets, bits, scripts."""
        key = f"latentmill:doctor:{secrets.token_hex(8)}"
        script = "redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000); return redis.call('TIME')"
        with broker_errors(self._url):
            try:
                self._client.eval(script, 1, key, "x")
                with self._client.pipeline(transaction=True) as pipe:
                    pipe.delete(key)
                    pipe.hset(key, "a", 1)
                    pipe.expire(key, 10)
                    pipe.delete(key)
                    pipe.zadd("unacked_index:doctor", {"a": 1})
                    pipe.sadd("_kombu.binding.doctor", "a")
                    pipe.delete("unacked_index:doctor", "_kombu.binding.doctor", key)
                    pipe.execute()
                self._client.publish("latentmill:doctor", "x")
            except (redis.exceptions.NoPermissionError, redis.exceptions.ResponseError) as refused:
                return failed("redis rights", str(refused).partition(", with args")[0][:200], _USER_HINT)
        return ok("redis rights", "scripts, transactions, keys and messages")

    def persistence(self) -> Finding:
        if not self._info:
            return self._unknown("redis persistence")
        if self._info.get("aof_enabled"):
            return ok("redis persistence", "append-only file")
        mend = "set `appendonly yes`; without it a restart costs quotas, and the time to read the store again"
        return warning("redis persistence", "no append-only file", mend)

    def eviction(self) -> Finding:
        policy = self._config_value("maxmemory-policy") or self._info.get("maxmemory_policy")
        if policy is None:
            return self._unknown("redis eviction")
        if policy == "noeviction":
            return ok("redis eviction", policy)
        mend = "set `maxmemory-policy noeviction`: what is evicted of the ledger has to be found in the store again"
        limited = int(self._info.get("maxmemory", 1)) > 0
        return failed("redis eviction", policy, mend) if limited else warning("redis eviction", policy, mend)

    def memory(self) -> Finding:
        if not self._info:
            return self._unknown("redis memory")
        used, most = int(self._info.get("used_memory", 0)), int(self._info.get("maxmemory", 0))
        told = f"{used / 2**20:.0f} MiB used, of {f'{most / 2**20:.0f} MiB' if most else 'no limit'}"
        if most and most - used < 64 * 2**20:
            return warning("redis memory", told, "raise `maxmemory`: a job of 100,000 shards takes up to 32 MiB")
        return ok("redis memory", told)

    def clock(self) -> Finding:
        """Leases end by Redis's clock alone, so a difference is no danger; it makes logs hard to read."""
        with broker_errors(self._url):
            before = time.time()
            seconds, micros = self._client.time()
            skew = seconds + micros / 1e6 - (before + time.time()) / 2
        if abs(skew) > _SKEW_SECONDS:
            return warning("redis clock", f"{skew:+.1f} s beside ours", "run a time service (NTP) on both machines")
        return ok("redis clock", f"{skew:+.2f} s beside ours")

    def _config_value(self, name: str) -> str | None:
        found = self._query(lambda: self._client.config_get(name))
        return found.get(name) if found else None

    def _query(self, question: Any) -> Any:
        with broker_errors(self._url):
            try:
                return question()
            except redis.exceptions.ResponseError:  # no right to ask
                return None

    def _unknown(self, check: str) -> Finding:
        return warning(check, "unknown: this user may not ask (INFO)", _USER_HINT)


def _check_connection(url: str) -> Finding:
    parts = urlsplit(url)
    encrypted, known = parts.scheme == "rediss", bool(parts.password)
    told = f"{'TLS' if encrypted else 'no TLS'}, {'a password' if known else 'no password'}"
    if (encrypted and known) or _is_local(parts.hostname or "127.0.0.1"):
        return ok("redis connection", told)
    mend = "over a network that others share, use rediss:// and a user with a password (docs/security.md)"
    return warning("redis connection", told, mend)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
