"""latentmill's service: client, worker, scheduler, command line. ``from workers import Client``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    if name != "Client":
        raise AttributeError(f"module 'workers' has no attribute {name!r}")
    from workers.client import Client

    return Client
