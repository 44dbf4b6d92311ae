"""Servers of the stores of Google and Azure, which stores of this process find by their variables."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.azurite import AzuriteServer
    from tests.support.fake_gcs import FakeGcs


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """A server of Google's dialect with the bucket ``bucket``."""
    from generator.store import cloud_client
    from tests.support.fake_gcs import fake_gcs

    with fake_gcs() as server:
        account = {"gcs_base_url": server.endpoint_url, "disable_oauth": True}
        key = account | dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
        cloud_client.forget_clients()
        server.buckets["bucket"] = {}
        yield server
    cloud_client.forget_clients()


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    """Azure's store, by its emulator."""
    from tests.support.azurite import AzuriteServer, azurite_binary

    if azurite_binary() is None:
        pytest.skip("no azurite-blob: `npm install azurite` in a folder, and LATENTMILL_AZURITE=<folder>")
    server = AzuriteServer()
    yield server
    server.stop()


@pytest.fixture
def container(azurite: AzuriteServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a container that nobody else has."""
    from generator.store import cloud_client

    for name, value in azurite.environment.items():
        monkeypatch.setenv(name, value)
    cloud_client.forget_clients()
    yield azurite.make_container(f"box-{uuid.uuid4().hex}")
    cloud_client.forget_clients()
