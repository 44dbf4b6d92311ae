"""Checks of Redis: reachability, version, rights, persistence, eviction, memory, clock."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Iterator
from typing import Any

import redis

from generator.errors import LatentmillError, SettingsError
from workers.broker.address import RedisAddress
from workers.broker.connection import broker_errors, connect, redis_address, store_root
from workers.broker.identity import broker_prefix, prefix_of, read_pool_id
from workers.doctor.findings import Check, Finding, failed, ok, run_checks, warning
from workers.settings import Settings

_MIN_VERSION = (6, 2)
_SKEW_SECONDS = 5.0
_ABSENT_HINT = "start Redis, or correct LATENTMILL_REDIS_URL; if it is unset, `latentmill up` starts a Redis"
_TLS_HINT = "set LATENTMILL_REDIS_CA_FILE to the authority that signed the server's certificate (docs/security.md)"
_USER_HINT = "docs/security.md lists the rights that latentmill's user needs"


def examine_redis(settings: Settings) -> Iterator[Finding]:
    """Run the checks of the configured Redis; without a connection, yield one failed finding."""
    try:
        address = redis_address(settings)
        client: Any = connect(address)
        with broker_errors(address):
            started = time.perf_counter()
            client.ping()
    except LatentmillError as away:
        mend = _TLS_HINT if "certificate" in away.got else _ABSENT_HINT
        if isinstance(away, SettingsError):
            mend = away.hint or f"correct {away.field}"
        yield failed("redis", f"expected {away.expected}, got {away.got}", mend)
        return
    yield ok("redis", f"{address} answers ({(time.perf_counter() - started) * 1000:.1f} ms)")
    server = _RedisChecks(client, address, _prefix(settings))
    checks: dict[str, Check] = {
        "redis connection": lambda: _check_connection(address),
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
    """Checks of one Redis; a check whose commands this user may not run gives a warning, not a failure."""

    def __init__(self, client: Any, address: RedisAddress, prefix: str) -> None:
        self._client, self._address, self._prefix = client, address, prefix
        self._info = self._query(client.info) or {}

    def version(self) -> Finding:
        text = str(self._info.get("redis_version", ""))
        if not text:
            return self._unknown("redis version")
        if self._info.get("redis_mode") == "cluster":
            mend = "use a single Redis (replicas are fine): the ledger's scripts access several keys"
            return failed("redis version", f"{text}, a cluster", mend)
        numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if numbers < _MIN_VERSION:
            return failed("redis version", text, f"use Redis {'.'.join(map(str, _MIN_VERSION))} or newer, or Valkey")
        return ok("redis version", text)

    def rights(self) -> Finding:
        """Try commands of ledger and broker, on keys of the check's own: scripts, transactions, keys, messages."""
        key, channel = f"{self._prefix}doctor:{secrets.token_hex(8)}", f"{broker_prefix(self._prefix)}doctor"
        script = "redis.call('SET', KEYS[1], ARGV[1], 'PX', 10000); return redis.call('TIME')"
        with broker_errors(self._address):
            try:
                self._client.eval(script, 1, key, "x")
                with self._client.pipeline(transaction=True) as pipe:
                    pipe.delete(key)
                    pipe.hset(key, "a", 1)
                    pipe.expire(key, 10)
                    pipe.delete(key)
                    pipe.zadd(f"{channel}:index", {"a": 1})
                    pipe.sadd(f"{channel}:binding", "a")
                    pipe.delete(f"{channel}:index", f"{channel}:binding", key)
                    pipe.execute()
                self._client.publish(channel, "x")
            except (redis.exceptions.NoPermissionError, redis.exceptions.ResponseError) as refused:
                return failed("redis rights", str(refused).partition(", with args")[0][:200], _USER_HINT)
        return ok("redis rights", "scripts, transactions, keys and messages")

    def persistence(self) -> Finding:
        if not self._info:
            return self._unknown("redis persistence")
        if self._info.get("aof_enabled"):
            return ok("redis persistence", "append-only file")
        mend = "set `appendonly yes`; without it a restart loses quota counts, and the store has to be read again"
        return warning("redis persistence", "no append-only file", mend)

    def eviction(self) -> Finding:
        policy = self._config_value("maxmemory-policy") or self._info.get("maxmemory_policy")
        if policy is None:
            return self._unknown("redis eviction")
        if policy == "noeviction":
            return ok("redis eviction", policy)
        mend = "set `maxmemory-policy noeviction`: evicted ledger entries have to be read from the store again"
        limited = int(self._info.get("maxmemory", 1)) > 0
        return failed("redis eviction", policy, mend) if limited else warning("redis eviction", policy, mend)

    def memory(self) -> Finding:
        if not self._info:
            return self._unknown("redis memory")
        used, limit = int(self._info.get("used_memory", 0)), int(self._info.get("maxmemory", 0))
        found = f"{used / 2**20:.0f} MiB used, limit: {f'{limit / 2**20:.0f} MiB' if limit else 'none'}"
        if limit and limit - used < 64 * 2**20:
            return warning("redis memory", found, "raise `maxmemory`: a job of 100,000 shards takes up to 32 MiB")
        return ok("redis memory", found)

    def clock(self) -> Finding:
        """Compare Redis's clock with ours. A difference makes logs hard to read but is safe: leases use Redis's."""
        with broker_errors(self._address):
            before = time.time()
            seconds, micros = self._client.time()
            skew = seconds + micros / 1e6 - (before + time.time()) / 2
        if abs(skew) > _SKEW_SECONDS:
            return warning("redis clock", f"{skew:+.1f} s from ours", "run a time service (NTP) on both machines")
        return ok("redis clock", f"{skew:+.2f} s from ours")

    def _config_value(self, name: str) -> str | None:
        config = self._query(lambda: self._client.config_get(name))
        return config.get(name) if config else None

    def _query(self, command: Any) -> Any:
        with broker_errors(self._address):
            try:
                return command()
            except redis.exceptions.ResponseError:  # this user may not run it
                return None

    def _unknown(self, check: str) -> Finding:
        return warning(check, "unknown: this user may not run INFO", _USER_HINT)


def _prefix(settings: Settings) -> str:
    """What the pool's keys begin with; for the checks' own keys, something else if the store does not tell."""
    try:
        return prefix_of(read_pool_id(store_root(settings)) or "doctor")
    except LatentmillError:  # the checks of the store report it
        return prefix_of("doctor")


def _check_connection(address: RedisAddress) -> Finding:
    encrypted, authenticated = address.tls is not None, bool(address.password)
    found = f"{'TLS' if encrypted else 'no TLS'}, {'a password' if authenticated else 'no password'}"
    if (encrypted and authenticated) or all(_is_local(host) for host, _ in address.nodes):
        return ok("redis connection", found)
    mend = "on a shared network, use rediss:// and a user with a password (docs/security.md)"
    return warning("redis connection", found, mend)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
