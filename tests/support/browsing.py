"""What tests in a browser do on pages, as a person would: by labels and buttons."""

from __future__ import annotations

import re
from typing import Any

from tests.support.mill_server import MillServer


def sign_in(page: Any, mill: MillServer, key: str, path: str) -> None:
    """Open a page of the server, and sign in with the token of a key on the way to it."""
    page.goto(f"{mill.web.url}{path}")
    page.get_by_label(re.compile("Token")).fill(mill.tokens[key])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")
