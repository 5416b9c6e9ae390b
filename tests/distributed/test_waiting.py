"""Waits end after their limit, but time in which the process itself was stopped does not count."""

from __future__ import annotations

import itertools
import time

import pytest

from needle.distributed.waiting import late, wait_until


def looks(monkeypatch, times, timeout):
    """How often `wait_until` looks, by a clock that shows these times, until it gives up."""
    clock, count = iter(times), itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(TimeoutError, match=r"^all_reduce: all ranks must go on within 2 s, but one has not$"):
        wait_until(lambda: next(count) < 0, timeout=timeout)
    return next(count)


def test_a_wait_has_a_limit(monkeypatch):
    assert looks(monkeypatch, [0.5 * i for i in range(9)], 2) == 6  # at 2.5 s


def test_a_wait_does_not_count_while_its_process_is_stopped(monkeypatch):
    assert looks(monkeypatch, [0, 0.5, 1, *(100 + 0.5 * i for i in range(9))], 2) == 7  # 1 s before, 1.5 s after


def test_a_step_begins_a_new_wait(monkeypatch):
    steps, clock = iter([False] * 4 + [True] + [False] * 9), itertools.count(0, 0.5)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(TimeoutError):
        wait_until(lambda: False, lambda: next(steps), timeout=2)
    assert len(list(steps)) == 3


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([2], "rank 2 has not"), ([1, 2], "ranks 1 and 2 have not"), ([0, 1, 3], "ranks 0, 1 and 3 have not")],
)
def test_who_has_not_come_is_named(ranks, text):
    assert str(late("broadcast", "come", ranks, 1800.0)) == f"broadcast: all ranks must come within 1800 s, but {text}"
