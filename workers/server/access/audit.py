"""The audit log: one line of JSON for each change that was asked for over HTTP, and for each refused key."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger("latentmill.audit")


def write_audit(action: str, *, outcome: str, **facts: Any) -> None:
    """Write a line: what was asked for, by which key, of what, and the outcome. Facts must not hold a secret."""
    entry = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "action": action, "outcome": outcome}
    log.info("%s", json.dumps(entry | {name: value for name, value in facts.items() if value not in (None, "")}))
