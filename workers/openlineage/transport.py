"""Sends an event to a file (one JSON document a line) or over HTTP. It is tried once, and stops nothing if it fails."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from generator.spec.canonical import canonical_json
from workers.notifications.allowed_hosts import loggable_host
from workers.notifications.webhook import DeliveryFailed, post

log = logging.getLogger(__name__)

HTTP_SECONDS = 5.0


def send(target: str | None, event: dict[str, Any]) -> bool:
    """Send ``event`` to ``target``, a file or an http(s) URL; whether it was accepted. ``None``: nothing is sent."""
    if target is None:
        return False
    body = canonical_json(event)
    remote = target.startswith(("http://", "https://"))
    try:
        if remote:
            headers = {"content-type": "application/json", "user-agent": "latentmill"}
            post(target, headers, body, total_timeout=HTTP_SECONDS)
        else:
            _append(Path(target), body + b"\n")
    except (DeliveryFailed, OSError) as failed:
        where = loggable_host(target) if remote else target
        log.warning("an OpenLineage event did not reach %s: %s", where, failed)
        return False
    return True


def _append(path: Path, line: bytes) -> None:
    """One write with ``O_APPEND``, so that the lines of several processes do not mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
