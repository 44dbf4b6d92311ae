"""An S3 service that ignores the conditions of writes: a proxy in front of a real one."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from generator.store import S3Settings
from tests.support.servers import S3Server


class _UnconditionalHandler(BaseHTTPRequestHandler):
    """Forwards requests to a real S3 without their conditions, like a service that ignores them."""

    protocol_version = "HTTP/1.1"
    target: str

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("if-")}
        upstream = http.client.HTTPConnection(self.target, timeout=30)
        upstream.request(self.command, self.path, body=body, headers=headers)
        response = upstream.getresponse()
        data = response.read()
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", response.getheader("Content-Length") or str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        upstream.close()

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = _forward

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Print nothing: a client that was killed has closed its connection."""


@contextmanager
def unconditional_s3(s3: S3Server) -> Iterator[S3Settings]:
    """The settings of such a service in front of ``s3``."""
    handler = type("Handler", (_UnconditionalHandler,), {"target": f"127.0.0.1:{s3.port}"})
    proxy = _Proxy(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield s3.settings.model_copy(update={"endpoint_url": f"http://127.0.0.1:{proxy.server_port}"})
    finally:
        proxy.shutdown()
        proxy.server_close()
