"""Runs numpy work in tiles on all cores: one thread per tile, with single-threaded BLAS.

Multi-threaded BLAS makes small products many times slower when several threads call it [measured: a flow of 24
dimensions takes 200 microseconds of processor time per code with it, 7 without].
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from generator.spec.machine import usable_cores

_LOCK = threading.Lock()
_STATE: dict[str, Any] = {"callers": 0, "limit": None}


def run_in_tiles(tile: Callable[[slice], None], rows: int, size: int) -> None:
    """Run ``tile`` on all ``rows``, ``size`` at a time, in threads; numpy releases the GIL while it computes."""
    tiles = [slice(begin, begin + size) for begin in range(0, rows, size)]
    with _single_threaded_blas():
        if len(tiles) < 2:
            for only_tile in tiles:
                tile(only_tile)
            return
        with ThreadPoolExecutor(min(len(tiles), _cores())) as pool:
            for _ in pool.map(tile, tiles):
                pass


@cache
def _cores() -> int:
    """Asked for once: the system answers from files, and samples are drawn often."""
    return usable_cores()


@contextmanager
def _single_threaded_blas() -> Iterator[None]:
    """The limit is process-wide: set by the first caller, restored by the last."""
    with _LOCK:
        if _STATE["callers"] == 0:
            _STATE["limit"] = _controller().limit(limits=1, user_api="blas")
        _STATE["callers"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _STATE["callers"] -= 1
            if _STATE["callers"] == 0:
                _STATE["limit"].restore_original_limits()


@cache
def _controller() -> Any:
    return ThreadpoolController()
