"""Adds a group of options to a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def add_options(options: dict[str, Callable[[Any], Any]]) -> Callable[[F], F]:
    """A decorator that adds ``options`` to a command, in their order."""

    def decorate(command: F) -> F:
        for option in reversed(options.values()):
            command = option(command)
        return command

    return decorate
