"""The heap of this process (glibc's): memory that a batch frees is kept for the next one.

Every batch of a network frees as much memory as the one before. By default glibc gives large blocks back to the system
at once and takes them again page by page, each filled with zeros first, which takes a quarter of the time of a training
at 64 pixels; and threads other than the first have heaps of 64 MiB, too small for the tensors of large images.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping

# Parameters of mallopt(3), and the values that this process gets.
_OPTIONS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: bytes at the end of the heap that are kept
    -2: 2**25,  # M_TOP_PAD: bytes by which the heap grows at least
    -3: 2**31 - 1,  # M_MMAP_THRESHOLD: larger blocks are mapped one by one, outside of the heap
    -8: 1,  # M_ARENA_MAX: one heap for all threads
}


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Keep freed memory in this process and those that it forks; call it before threads are started.

    Returns whether that was done: not with another C library, nor where the user has set options of glibc's heap
    (``MALLOC_...``, or ``GLIBC_TUNABLES`` with ``glibc.malloc``) in ``environment``.
    """
    set_by_user = any(name.startswith("MALLOC_") for name in environment)
    if sys.platform != "linux" or set_by_user or "glibc.malloc" in environment.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in _OPTIONS.items())
