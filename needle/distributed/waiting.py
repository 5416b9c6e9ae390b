"""How a rank waits for others: soon after they are there, but without keeping a core from those who could use it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from needle import tuning

__all__ = ["no_rank", "stopped", "wait_until"]

_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # to whoever waits for this core


def no_rank(rank: int) -> BaseException:
    """The error of a process that is not that rank: it has left the others, or was forked from it."""
    return RuntimeError(f"all_reduce: a rank must call, but this process is not, or no longer, rank {rank}")


def stopped(rank: int) -> BaseException:
    """The error of a rank that goes on after `rank` has failed."""
    return RuntimeError(f"all_reduce: all ranks must go on, but rank {rank} has failed")


def wait_until(is_done: Callable[[], bool], progress: Callable[[], bool], check: Callable[[], None]) -> None:
    """Take steps by `progress()` until `is_done()`; where it returns False, there was none to take.

    Wait for the others busily, then giving way, then with pauses that grow. A pause is an eighth of what has been
    waited so far, so it adds little; other programs get the core meanwhile. After the busy part, `check()` raises an
    error if what this rank waits for will never come.
    """
    start = None
    while not is_done():
        if progress():
            start = None
            continue
        now = time.perf_counter()
        if start is None:
            start = now
        waited = now - start
        if waited > tuning.SPIN_SECONDS:
            check()
            if waited < tuning.YIELD_SECONDS:
                _give_way()
            else:
                time.sleep(min(waited / 8, tuning.LONGEST_PAUSE_SECONDS))
