"""Real servers for tests, each a child process on a free loopback port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import redis
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from generator.store import S3Settings
from tests.support.quick import refuse_in_quick_tests
from workers.broker.address import RedisAddress, parse_address
from workers.embedded import redis_server_path
from workers.ledger.ledger import Ledger

START_SECONDS = 60
_SEAWEED_PARTS = ("master", "volume", "filer", "admin")  # each listens on two ports
_SEAWEED_PORTS = [*(f"{part}.port{kind}" for part in _SEAWEED_PARTS for kind in ("", ".grpc")), "s3.port.grpc"]
# moto checks whether an object exists and writes it in two steps. With a long switch interval no other thread runs
# between them unless the first one waits for its socket, so that conditional writes are atomic as on real services.
_MOTO = "import sys; sys.setswitchinterval(1.0); from moto.server import main; main(sys.argv[1:])"


class Server:
    """A child process with a directory of its own; the port stays the same over restarts."""

    def __init__(self, command: Callable[[int, Path], list[str]], answers: Callable[[int], bool]) -> None:
        refuse_in_quick_tests()
        self._command, self._answers = command, answers
        self.directory = Path(tempfile.mkdtemp(prefix="latentmill-test-"))
        self.log = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        for _ in range(5):  # another process may take a free port before the server binds it
            self.port = free_port()
            if self._start():
                return
        text = self.log.read_text(errors="replace")
        shutil.rmtree(self.directory)
        raise RuntimeError(f"the server did not start:\n{text[-4000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL: no graceful shutdown, nothing flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """End the process if it runs, and start it again on the same port with the same directory."""
        self._end()
        assert self._start(), self.log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """End the process and remove its directory."""
        self._end()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self) -> bool:
        with self.log.open("ab") as log:
            command = self._command(self.port, self.directory)
            process = self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if self._answers(self.port):
                return True
            time.sleep(0.05)
        self.kill()
        return False

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class S3Server(Server):
    """moto's S3 over HTTP."""

    access_key, secret_key, region = "test-access-key", "test-secret-key", "us-east-1"

    def __init__(self) -> None:
        super().__init__(_moto_command, _listens)

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> S3Settings:
        """The settings of a store on this server."""
        return S3Settings.model_validate(
            {
                "endpoint_url": self.endpoint_url,
                "region": self.region,
                "access_key": self.access_key,
                "secret_key": self.secret_key,
            }
        )

    def make_bucket(self, name: str) -> str:
        """Create the bucket; return its URL."""
        self._client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def signed_url(self, url: str) -> str:
        """An HTTP URL by which anybody may read the object ``s3://bucket/key`` for an hour."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        signed: str = self._client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
        return signed

    @cached_property
    def _client(self):  # type: ignore[no-untyped-def]
        session = Session(self.access_key, self.secret_key, region_name=self.region)
        return session.client("s3", endpoint_url=self.endpoint_url)


class SeaweedServer(S3Server):
    """SeaweedFS: a whole S3 service in one process."""

    def __init__(self) -> None:
        self._inner = {name: str(free_port()) for name in _SEAWEED_PORTS}
        Server.__init__(self, self._weed_command, self._answers_s3)

    def _weed_command(self, port: int, directory: Path) -> list[str]:
        """Without many small volumes, some tens of buckets use up the space and writes are answered with 500."""
        options = self._inner | {
            "dir": str(directory),
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "s3.port": str(port),
            "s3.autoCreateBucket": "false",
            "master.volumeSizeLimitMB": "64",
            "volume.max": "2000",
            "webdav": "false",
            "admin.ui": "false",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
        }
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        settings = [f"{name}={value}" for name, value in keys.items()]
        return ["env", *settings, weed_binary(), "mini", *(f"-{name}={value}" for name, value in options.items())]

    def _answers_s3(self, port: int) -> bool:
        """Whether buckets can be listed: the port is open before the parts behind it have found one another."""
        if not _listens(port):
            return False
        session = Session(self.access_key, self.secret_key, region_name=self.region)
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
        try:
            session.client("s3", endpoint_url=f"http://127.0.0.1:{port}", config=config).list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


def s3_service() -> S3Server:
    """The S3 that tests use: SeaweedFS where ``LATENTMILL_TEST_S3`` is ``seaweedfs``, moto otherwise."""
    return SeaweedServer() if os.environ.get("LATENTMILL_TEST_S3") == "seaweedfs" else S3Server()


KEY_PREFIX = "latentmill:00000000000000aa:"  # of ledgers in tests that have no store root


class RedisServer(Server):
    """A private Redis with an append-only file and without eviction, and with further ``options`` of redis.conf."""

    def __init__(self, password: str | None = None, options: Mapping[str, str] = MappingProxyType({})) -> None:
        self.password, self._options = password, options
        super().__init__(self._redis_command, self._pongs)

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}/0"

    @property
    def address(self) -> RedisAddress:
        return parse_address(self.url)

    def ledger(self, timeout: float = 10.0) -> Ledger:
        """A ledger without a store root."""
        return Ledger(self.address, lambda: KEY_PREFIX, timeout)

    def _redis_command(self, port: int, directory: Path) -> list[str]:
        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(directory),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        if self.password:
            options |= {"requirepass": self.password, "masterauth": self.password}
        options |= {name: value.replace("DIRECTORY", str(directory)) for name, value in self._options.items()}
        if "tls-cert-file" in options:
            options |= {"port": "0", "tls-port": str(port)}
        return [redis_binary(), *(part for name, value in options.items() for part in _directive(name, value))]

    def _pongs(self, port: int) -> bool:
        access: dict[str, Any] = {"password": self.password, "socket_timeout": 2, **client_tls(self._options)}
        with redis.Redis(host="127.0.0.1", port=port, **access) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # not up yet, or still loading its file
                return False


def client_tls(options: Mapping[str, str]) -> dict[str, Any]:
    """The options of redis-py for a server with these options, which may speak TLS."""
    files = {"ssl_ca_certs": "tls-ca-cert-file", "ssl_certfile": "tls-cert-file", "ssl_keyfile": "tls-key-file"}
    return {"ssl": True} | {name: options[file] for name, file in files.items()} if "tls-cert-file" in options else {}


def _directive(name: str, value: str) -> list[str]:
    return [f"--{name}", *(value.split() if name == "replicaof" else [value])]


def _moto_command(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", _MOTO, "-H", "127.0.0.1", "-p", str(port)]


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return True
    except OSError:
        return False


def redis_binary() -> str:
    return redis_server_path()


def weed_binary() -> str:
    return shutil.which("weed") or str(Path(sys.executable).with_name("weed"))


def free_port() -> int:
    """A port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
