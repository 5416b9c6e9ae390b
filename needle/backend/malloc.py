"""The memory of big arrays: what is freed is kept for the next ones.

A training step makes and frees the same big arrays again and again. By default the C library gives each one back to the
system, which then hands out fresh pages, one fault for every 4 KiB: more than half of a step's time on a small network.
Told to keep what is freed, it hands out the same pages, warm in cache. The process holds on to its largest need.
"""

from __future__ import annotations

import ctypes
import os
import sys

# malloc.h of glibc
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST = (1 << 30, 1 << 25)  # bytes of an array that is kept, and what older versions allow
KEPT = (1 << 31) - 1  # bytes at the end of the heap that may lie free: mallopt takes an int
STRETCH = 1 << 26  # bytes by which the heap grows at a time


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory; whether it could be told.

    Only glibc (Linux) knows how. Who has set its variables (MALLOC_…, GLIBC_TUNABLES) has decided already.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGEST)
    return bool(kept and mallopt(M_TRIM_THRESHOLD, KEPT) and mallopt(M_TOP_PAD, STRETCH))
