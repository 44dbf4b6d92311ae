"""The identity of the pool in the life of a worker: read before the broker is asked, and followed by a restart."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import time

from generator.errors import LatentmillError, StoreUnavailable
from workers.broker.connection import store_root
from workers.broker.identity import PoolIdentity
from workers.settings import Settings

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0  # between two attempts to read the identity from a store that is away


def await_key_prefix(settings: Settings) -> str:
    """What the keys of the pool begin with; waits for a store that is away, as for a Redis that is away.

    Ends the process, with the error as its last line, for any other error.
    """
    while True:
        try:
            return PoolIdentity(store_root(settings)).prefix()
        except StoreUnavailable as away:
            sys.stderr.write(f"waiting for the store root: {away}\n")
            time.sleep(_PAUSE_SECONDS)
        except LatentmillError as wrong:
            sys.stderr.write(f"error: {wrong}\n")
            raise SystemExit(wrong.exit_code) from wrong


def restart_worker() -> None:
    """Leave as after SIGTERM, then begin anew in the same process, for the pool that the root names now."""
    log.warning("the store root names another pool now: running shards finish, then this worker starts again")
    atexit.register(_execute_again)
    os.kill(os.getpid(), signal.SIGTERM)


def _execute_again() -> None:
    os.execv(sys.executable, [sys.executable, "-m", "celery", *sys.argv[1:]])
