"""Small HTTP servers that answer in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer

from tests.support.quick import refuse_in_quick_tests


@contextmanager
def served(server: ThreadingHTTPServer) -> Iterator[None]:
    """``server`` answers until the block ends; then it is closed."""
    refuse_in_quick_tests()
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
