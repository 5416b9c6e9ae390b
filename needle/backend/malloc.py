"""Keep freed memory in the process, so that the big arrays of the next training step reuse it.

A training step allocates and frees the same big arrays again and again. By default the C library returns each one to
the system, which hands out fresh pages the next time, with one page fault per 4 KiB: more than half of the time of a
small network's step. Kept memory is mapped already and warm in the cache. The price: the process keeps its peak size.
"""

from __future__ import annotations

import ctypes
import os
import sys

from needle import tuning

__all__ = ["keep_freed_memory"]

# malloc.h of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_ARRAYS = (1 << 30, 1 << 25)  # bytes; older versions of glibc allow the second at most
LARGEST_INT = (1 << 31) - 1  # bytes that may lie free at the end of the heap: mallopt takes an int


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory. Returns whether it does.

    Only glibc (Linux) supports this. Setting one of its variables (`MALLOC_…`, `GLIBC_TUNABLES`) turns this off.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST_ARRAYS)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, LARGEST_INT) and mallopt(M_TOP_PAD, tuning.HEAP_GROWTH_BYTES))
