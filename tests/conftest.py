"""What tests share: servers, the three stores behind one fixture, a small bundle, a pool without Celery around it."""

from __future__ import annotations

import gc
import os
import signal
import uuid
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# Fixtures import what they need: the process that hands out tests to others reads this file too, and needs no torch.
if TYPE_CHECKING:
    from generator.store import S3Settings, Store
    from tests.support.mill_server import MillServer
    from tests.support.servers import RedisServer, S3Server
    from tests.support.services import ManualService

# A slow machine is not a failure, and fixtures that hold values are shared between examples on purpose. The same commit
# is tested with the same examples; `make explore` draws others.
_PATIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("latentmill", deadline=None, suppress_health_check=_PATIENT, derandomize=True)
settings.register_profile("explore", deadline=None, suppress_health_check=_PATIENT, max_examples=1000)
settings.load_profile("explore" if os.environ.get("LATENTMILL_TESTS") == "explore" else "latentmill")

# Tests that run commands in this process leave nothing in the user's cache.
os.environ.setdefault("LATENTMILL_SOURCE_CACHE_BYTES", "0")

# A shell starts what it runs in the background deaf to these, and the processes that tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


_OF_S3 = {"s3_server", "unsigned_s3", "s3_settings", "bucket"}  # fixtures
_ON_SERVICES = [
    "acceptance",
    "browser",
    "faults",
    "workers/doctor",
]  # folders: of whole processes, on a whole S3 service
_WITH_SERVERS = _OF_S3 | {"redis_server", "server", "bench"}  # fixtures
_SERVERS_IN_PROCESS = {"fake_s3", "running_server"}  # functions that a module of tests imports
_WITH_PROCESSES = ["acceptance", "browser", "deploy", "faults", "golden", "gpu"]  # folders

if os.environ.get("LATENTMILL_TESTS") == "quick":
    collect_ignore = _WITH_PROCESSES


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start one fork server for all test processes, where there are several that run commands."""
    distributed = session.config.getoption("numprocesses", None)
    if distributed and os.environ.get("LATENTMILL_TESTS") not in ("quick", "explore"):
        from tests.support.command_server import SERVER_VARIABLE, shared_fork_server

        os.environ[SERVER_VARIABLE] = shared_fork_server().address


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Never look for garbage among modules and tests: they live as long as the process, and it takes seconds."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start servers or processes, which `make quick` leaves out, and those of `make test-services`."""
    for item in items:
        if _starts_processes(item):
            item.add_marker("server")
        if _needs_services(item):
            item.add_marker("services")


@cache
def _folder_of(file: Path) -> str:
    return file.parent.relative_to(Path(__file__).parent).as_posix()


def _needs_services(item: pytest.Item) -> bool:
    folder = _folder_of(item.path)
    whole = any(folder == each or folder.startswith(f"{each}/") for each in _ON_SERVICES)
    return whole and (folder == "browser" or not _OF_S3.isdisjoint(getattr(item, "fixturenames", ())))


def _starts_processes(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    on_s3 = any(isinstance(value, str) and value == "s3" for value in parameters.values())
    folder, _, _ = _folder_of(item.path).partition("/")
    serves = not _SERVERS_IN_PROCESS.isdisjoint(vars(getattr(item, "module", item)))
    workers = bool(parameters.get("workers"))  # of a DataLoader
    return on_s3 or workers or serves or folder in _WITH_PROCESSES or bool(fixtures & _WITH_SERVERS)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One S3 over HTTP for the whole session; take a fresh ``bucket`` for yourself."""
    from tests.support.servers import s3_service

    server = s3_service()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def unsigned_s3(s3_server: S3Server) -> Iterator[S3Server]:
    """An S3 that does not check signatures: tests write requests by hand, or change them on their way."""
    from tests.support.servers import S3Server, SeaweedServer

    if not isinstance(s3_server, SeaweedServer):
        yield s3_server
        return
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_settings(s3_server: S3Server) -> S3Settings:
    """How ``open_store`` reaches ``s3_server``."""
    return s3_server.settings


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """The URL of a bucket that nobody else has."""
    return s3_server.make_bucket(f"bucket-{uuid.uuid4().hex}")


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private, empty Redis."""
    from tests.support.servers import RedisServer

    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks as small as those of tests lose far more to the hand-over between threads than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind, below a prefix."""
    from generator.store import open_store

    if request.param == "memory":
        return open_store(f"memory://space-{uuid.uuid4().hex}/some/prefix")
    if request.param == "local":
        return open_store(str(tmp_path / "some" / "prefix"))
    bucket = request.getfixturevalue("bucket")
    return open_store(f"{bucket}/some/prefix", request.getfixturevalue("s3_settings"))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    from tests.support.servers import RedisServer

    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.bundles import tiny_bundle

    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def mill(server: RedisServer, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    """A server over a small service with two tenants; modules with other settings have a ``mill`` of their own."""
    from tests.support.mill_server import mill_server

    with mill_server(server, bundle, tmp_path_factory.mktemp("mill")) as found:
        yield found


@pytest.fixture
def bench(server: RedisServer, bundle: Path, tmp_path: Path) -> ManualService:
    from tests.support.services import ManualService

    return ManualService(server, bundle, tmp_path)
