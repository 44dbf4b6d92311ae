"""Diagnostics: checks of settings, Redis, store, bundles, disks and device; each problem comes with its remedy."""

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
    """Run the checks of ``parts`` in the order of ``PARTS``; ``root`` is the store root as an absolute URL.

    ``bundle`` is the digest of a bundle to verify in the root. The checks write and remove a few small objects below
    ``<root>/doctor/`` and a few Redis keys, most of them below ``latentmill:doctor:``.
    """
    examinations: dict[str, Callable[[], Iterator[Finding]]] = {
        "settings": lambda: examine_settings(settings),
        "redis": lambda: examine_redis(settings),
        "store": lambda: examine_store(root, settings),
        "bundles": lambda: examine_bundles(root, settings, bundle),
        "disks": lambda: examine_disks(settings),
        "device": lambda: examine_device(settings),
    }
    for part in PARTS:
        if part in parts:
            yield from examinations[part]()


def blocking_findings(settings: Settings, root: str) -> list[Finding]:
    """The findings that must keep a worker from starting, as it could lose data; an unavailable store is none."""
    return [found for found in examine_store(root, settings, short=True) if found.loses_data]
