"""Wait for what other processes do."""

from __future__ import annotations

import time


def wait_until(condition, seconds=60):
    """Return once `condition()` is true; fail if it is not so within `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {seconds} s"
        time.sleep(0.02)
