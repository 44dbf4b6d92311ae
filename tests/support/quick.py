"""What `make quick` leaves out."""

from __future__ import annotations

import os


def refuse_in_quick_tests() -> None:
    """Raises ``RuntimeError`` in `make quick`, so that a test with a server does not stay in it."""
    if os.environ.get("LATENTMILL_TESTS") == "quick":
        raise RuntimeError("a quick test starts a server: give it the mark `server`")
