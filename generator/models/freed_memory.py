"""Memory that a stage of a training freed goes back to the system before the next stage begins.

The heap of glibc keeps what lies below a block that is still in use. A training holds little from one stage to the
next, but small results lie above the temporaries of each stage, so that the stages would add up.
"""

from __future__ import annotations

import ctypes
import sys


def give_back_freed_memory() -> None:
    """Give pages of the heap that hold nothing back to the system (``malloc_trim(3)``); nothing with other C libraries.

    Takes milliseconds. Within a stage the contrary is done (``generator.production.heap``): each batch needs the same.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
