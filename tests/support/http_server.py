"""A server of latentmill in a thread of this process, on a port of its own, and requests to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import urllib3
import uvicorn

from generator.store import open_store
from tests.support.quick import refuse_in_quick_tests
from workers.server.access.keys import add_key
from workers.server.access.roles import Role
from workers.server.application import make_application
from workers.server.run import server_config
from workers.settings import Settings


class Answer(NamedTuple):
    """``document``: the JSON of the answer, or ``None``."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class RunningServer:
    """A server at ``url``. Requests are those of any HTTP client: nothing in the process is shared with them."""

    def __init__(self, settings: Settings, **uvicorn_options: Any) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # as bind_port makes it
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = settings
        self.app = make_application(settings)
        config = server_config(settings, self.app)
        for name, value in uvicorn_options.items():
            setattr(config, name, value)
        config.log_config = None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self.socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 30.0
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.http = urllib3.PoolManager(retries=False, timeout=60.0)

    def stop(self) -> None:
        self.http.clear()
        self._server.should_exit = True
        self._thread.join(30.0)
        self.socket.close()

    def token(self, tenant: str = "default", role: Role = "operator", life: timedelta = timedelta(hours=1)) -> str:
        """The token of a new key."""
        return add_key(open_store(self.settings.root, self.settings.s3), tenant, role, life)[1]

    def ask(
        self,
        method: str,
        path: str,
        token: str | None = None,
        document: Any = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """Send a request; ``path`` goes out as it is, however odd."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if document is not None:
            body, sent["Content-Type"] = json.dumps(document).encode(), "application/json"
        pool = self.http.connection_from_url(self.url)
        answer = pool.urlopen(
            method, path, body=body, headers=sent, redirect=False, retries=False, assert_same_host=False, **fields
        )
        return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.data)

    def get(self, path: str, token: str | None = None, **options: Any) -> Answer:
        return self.ask("GET", path, token, **options)

    def post(self, path: str, token: str | None = None, document: Any = None, **options: Any) -> Answer:
        return self.ask("POST", path, token, document, **options)


@contextmanager
def running_server(settings: Settings, **uvicorn_options: Any) -> Iterator[RunningServer]:
    """A server that ends after the block."""
    refuse_in_quick_tests()
    server = RunningServer(settings, **uvicorn_options)
    try:
        yield server
    finally:
        server.stop()
