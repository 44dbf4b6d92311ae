"""A server for tests of pages: its bundle keeps pictures and has hostile names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.mill_server import MillServer, mill_server
from tests.support.page_visits import Visitor, kept_bundle
from tests.support.servers import RedisServer


@pytest.fixture(scope="module")
def mill(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MillServer]:
    home = tmp_path_factory.mktemp("mill")
    with mill_server(server, kept_bundle(home / "kept"), home) as found:
        yield found


@pytest.fixture
def visitor(mill: MillServer) -> Visitor:
    return Visitor(mill)
