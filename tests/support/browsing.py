"""What tests in a browser do on pages, as a person would: by labels and buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.support.mill_server import MillServer


def sign_in(page: Any, mill: MillServer, key: str, path: str) -> None:
    """Open a page of the server, and sign in with the token of a key on the way to it."""
    page.goto(f"{mill.web.url}{path}")
    page.get_by_label(re.compile("Token")).fill(mill.tokens[key])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"**{path}")


def hold(page: Any, pattern: str) -> Callable[[], None]:
    """Keep a file of the next page on its way. Returns a function that lets it arrive, once it was asked for."""
    held: list[Any] = []
    page.route(pattern, lambda route: held.append(route))

    def release() -> None:
        for _ in range(200):
            if held:
                break
            page.wait_for_timeout(50)  # ms; also answers what the page asks for
        assert len(held) == 1, f"{len(held)} files of {pattern} were asked for"
        held[0].continue_()
        page.unroute(pattern)

    return release
