"""How a rank waits for others: soon after they are there, but without keeping a core from those who could use it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from needle import tuning

__all__ = ["TIMEOUT", "late", "no_rank", "stopped", "wait_until"]

TIMEOUT = 1800.0  # seconds to wait for other ranks, where nothing else is said
STOPPED = 1.0  # seconds: if two looks are further apart, this process itself was stopped

_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))  # to whoever waits for this core


def no_rank(rank: int) -> BaseException:
    """The error of a process that is not that rank: it has left the others, or was forked from it."""
    return RuntimeError(f"all_reduce: a rank must call, but this process is not, or no longer, rank {rank}")


def stopped(rank: int) -> BaseException:
    """The error of a rank that goes on after `rank` has failed."""
    return RuntimeError(f"all_reduce: all ranks must go on, but rank {rank} has failed")


def late(call: str, deed: str, ranks: Sequence[int], seconds: float) -> BaseException:
    """The error of a rank that has waited so long for `ranks`, or for some that it cannot name."""
    *most, last = [str(rank) for rank in ranks] or ["one"]
    who = f"ranks {', '.join(most)} and {last} have" if most else f"rank {last} has" if ranks else "one has"
    return TimeoutError(f"{call}: all ranks must {deed} within {seconds:g} s, but {who} not")


def wait_until(
    is_done: Callable[[], bool],
    progress: Callable[[], bool] = lambda: False,
    check: Callable[[], None] = lambda: None,
    timeout: float | None = None,
    too_late: Callable[[float], BaseException] = lambda seconds: late("all_reduce", "go on", (), seconds),
) -> None:
    """Take steps by `progress()` until `is_done()`; where it returns False, there was none to take.

    Wait for the others busily, then giving way, then with pauses that grow. A pause is an eighth of what has been
    waited so far, so it adds little; other programs get the core meanwhile. After the busy part, `check()` raises an
    error if what this rank waits for will never come.

    Raises `too_late(timeout)` after so many seconds without a step; those in which this process was stopped, as
    schedulers do with all processes of a job, are not counted.
    """
    start, looked = None, 0.0
    while not is_done():
        if progress():
            start = None
            continue
        now = time.perf_counter()
        if start is None:
            start = looked = now
        waited = now - start
        if waited > tuning.SPIN_SECONDS:
            check()
            if waited < tuning.YIELD_SECONDS:
                _give_way()
                continue
            if now - looked > STOPPED:
                start += now - looked
            elif timeout is not None and waited > timeout:
                error = too_late(timeout)
                raise error
            looked = now
            time.sleep(min(waited / 8, tuning.LONGEST_PAUSE_SECONDS))
