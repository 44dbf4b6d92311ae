"""Is everything that a worker rests on as it has to be? Each finding says what was seen, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from workers.doctor.bundles import examine_bundles
from workers.doctor.findings import Finding, Status
from workers.doctor.machine import examine_device, examine_disks, examine_settings
from workers.doctor.redis import examine_redis
from workers.doctor.store import examine_store
from workers.settings import Settings

__all__ = ["PARTS", "Finding", "Status", "examine", "blocking_findings"]

PARTS = ("settings", "redis", "store", "bundles", "disks", "device")


def examine(
    settings: Settings, root: str, *, parts: Sequence[str] = PARTS, bundle: str | None = None
) -> Iterator[Finding]:
    """The checks of ``parts``, one after the other; ``root`` is the store root as an absolute URL.

    ``bundle`` is the digest of one that has to be in the root, whole. A few small objects below ``<root>/doctor/``
    and a key or two that begin with ``latentmill:doctor:`` are written and removed.
    """
    examined: dict[str, Callable[[], Iterator[Finding]]] = {
        "settings": lambda: examine_settings(settings),
        "redis": lambda: examine_redis(settings),
        "store": lambda: examine_store(root, settings),
        "bundles": lambda: examine_bundles(root, settings, bundle),
        "disks": lambda: examine_disks(settings),
        "device": lambda: examine_device(settings),
    }
    for part in PARTS:
        if part in parts:
            yield from examined[part]()


def blocking_findings(settings: Settings, root: str) -> list[Finding]:
    """Why no worker may start here: what would lose data. Whatever is only away for now is no reason."""
    return [found for found in examine_store(root, settings, short=True) if found.loses_data]
