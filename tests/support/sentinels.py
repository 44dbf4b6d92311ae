"""A Redis as Sentinel runs it: a master, a replica, and Sentinels that make the replica the master when it is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from pydantic import SecretStr

from tests.support.servers import RedisServer, Server, client_tls, redis_binary
from workers.broker.address import RedisAddress, SentinelLogin, parse_address

MASTER = "mill"
_PATIENCE = 60.0  # seconds


class SentinelServer(Server):
    """One Sentinel that watches the server at ``monitored``; ``quorum`` of them have to miss it."""

    def __init__(
        self, monitored: int, quorum: int, password: str | None, own_password: str | None, tls: Mapping[str, str]
    ) -> None:
        self._monitored, self._quorum, self._tls = monitored, quorum, tls
        self.password, self.own_password = password, own_password
        super().__init__(self._sentinel_command, self._knows_a_replica)

    def _sentinel_command(self, port: int, directory: Path) -> list[str]:
        config = directory / "sentinel.conf"
        if not config.exists():  # Sentinel keeps its state there
            lines = [
                *(f"tls-port {port}" if self._tls else f"port {port}", "bind 127.0.0.1", f"dir {directory}"),
                *(["port 0"] if self._tls else []),
                *(f"{name} {value}" for name, value in self._tls.items()),
                f"sentinel monitor {MASTER} 127.0.0.1 {self._monitored} {self._quorum}",
                *(f"sentinel {name} {MASTER} {value}" for name, value in _LIMITS.items()),
            ]
            lines += [f"sentinel auth-pass {MASTER} {self.password}"] if self.password else []
            lines += [f"requirepass {self.own_password}"] if self.own_password else []
            lines += [f"sentinel sentinel-pass {self.own_password}"] if self.own_password else []
            config.write_text("\n".join(lines) + "\n")
        return [redis_binary(), str(config), "--sentinel"]

    def client(self, port: int | None = None) -> Any:
        options = {"password": self.own_password, "socket_timeout": 2, **client_tls(self._tls)}
        return redis.Redis(host="127.0.0.1", port=port or self.port, decode_responses=True, **options)

    def _knows_a_replica(self, port: int) -> bool:
        try:
            found = self.client(port).sentinel_slaves(MASTER)
        except redis.RedisError:
            return False
        return any(not {"s_down", "disconnected"} & set(each["flags"].split(",")) for each in found)


_LIMITS = {"down-after-milliseconds": 600, "failover-timeout": 3000, "parallel-syncs": 1}


class SentinelRedis:
    """``tls``: the options of redis.conf by which all of them speak TLS alone."""

    def __init__(
        self,
        password: str | None = None,
        sentinel_password: str | None = None,
        sentinels: int = 1,
        tls: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.password, self.sentinel_password = password, sentinel_password
        self.servers = [RedisServer(password, tls)]
        self.sentinels: list[SentinelServer] = []
        try:
            master, quorum = self.servers[0].port, sentinels // 2 + 1
            self.servers.append(RedisServer(password, {"replicaof": f"127.0.0.1 {master}", **tls}))
            for _ in range(sentinels):
                self.sentinels.append(SentinelServer(master, quorum, password, sentinel_password, tls))
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return ";".join(f"sentinel://{secret}127.0.0.1:{sentinel.port}/0" for sentinel in self.sentinels)

    @property
    def address(self) -> RedisAddress:
        return parse_address(self.url, sentinel=SentinelLogin(MASTER, None, self.sentinel_password))

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of clients and workers."""
        secret = SecretStr(self.sentinel_password) if self.sentinel_password else None
        return {
            "redis_url": SecretStr(self.url),
            "redis_sentinel_master": MASTER,
            "redis_sentinel_password": secret,
        }

    def master(self) -> RedisServer:
        """The server that the first Sentinel names."""
        _, port = self.sentinels[0].client().sentinel_get_master_addr_by_name(MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def lose_master(self) -> RedisServer:
        """Kill the master and wait until another one has its place; returns the killed one, to be restarted."""
        lost = self.master()
        lost.kill()
        deadline = time.monotonic() + _PATIENCE
        while self.master() is lost:
            assert time.monotonic() < deadline, self.sentinels[0].log.read_text()[-3000:]
            time.sleep(0.1)
        return lost

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.stop()
