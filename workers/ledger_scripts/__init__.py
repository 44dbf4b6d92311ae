"""The ledger's atomic steps, in Lua."""

from __future__ import annotations

from workers.ledger_scripts.jobs import (
    ADD,
    ADMIT,
    ALLOWANCE,
    ANNOUNCE,
    CORRECT,
    COUNTS,
    END,
    FACTS,
    FINISHED,
    PAUSE,
    RENEW_COMMIT,
    REVIVE,
    SLOTS,
    TICKETS,
    WITHDRAW,
    WORK,
)
from workers.ledger_scripts.shards import BURY, CLAIM, COMPLETE, EXPIRE, POSTPONE, RELEASE, RELEASE_ALL, RENEW

SHARDS = (CLAIM, RENEW, RELEASE, RELEASE_ALL, POSTPONE, BURY, COMPLETE, EXPIRE)
JOBS = (
    ADD,
    PAUSE,
    END,
    CORRECT,
    REVIVE,
    WORK,
    TICKETS,
    ANNOUNCE,
    SLOTS,
    FINISHED,
    RENEW_COMMIT,
    ADMIT,
    WITHDRAW,
    ALLOWANCE,
    FACTS,
    COUNTS,
)

__all__ = [
    "TICKETS",
    "ANNOUNCE",
    "SLOTS",
    "ADD",
    "ADMIT",
    "ALLOWANCE",
    "BURY",
    "CLAIM",
    "COMPLETE",
    "CORRECT",
    "COUNTS",
    "END",
    "EXPIRE",
    "FACTS",
    "FINISHED",
    "JOBS",
    "PAUSE",
    "POSTPONE",
    "RELEASE",
    "RELEASE_ALL",
    "RENEW",
    "RENEW_COMMIT",
    "REVIVE",
    "SHARDS",
    "WITHDRAW",
    "WORK",
]
