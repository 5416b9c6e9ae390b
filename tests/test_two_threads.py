"""Two threads that use the same values: a buffer keeps one version counter, and writes count."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from needle.autograd import Tensor
from needle.version_counter import VersionCounter


def in_two_threads(*works):
    """Call two functions, or one twice, at the same time; returns both results."""
    results, start = [None, None], threading.Barrier(2)

    def run(i):
        start.wait(timeout=10)
        results[i] = works[i % len(works)]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_value_gets_one_version_counter(monkeypatch):
    def slowly(self):
        time.sleep(0.03)
        create(self)

    create = VersionCounter.__init__
    monkeypatch.setattr(VersionCounter, "__init__", slowly)
    value = Tensor([1.0])
    first, second = in_two_threads(value.detach)
    assert first.counter is second.counter is value.counter


def test_the_clock_of_writes_counts_those_of_all_threads(monkeypatch):
    class Slow(int):
        def __add__(self, other):
            time.sleep(0.03)  # another thread writes meanwhile
            return Slow(int(self) + other)

        __iadd__ = __add__

    monkeypatch.setattr(VersionCounter, "clock", Slow(VersionCounter.clock))
    before, counters = VersionCounter.clock, [VersionCounter(), VersionCounter()]
    in_two_threads(counters[0].bump, counters[1].bump)
    assert sorted(counter.version - before for counter in counters) == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_writes_although_its_parent_was_writing():
    code = """
import os, threading
from needle import version_counter
from needle.autograd import Tensor

def hold():
    with version_counter._lock:
        begun.set()
        assert ended.wait(timeout=20)

begun, ended = threading.Event(), threading.Event()
other = threading.Thread(target=hold)
other.start()
begun.wait(timeout=20)
child = os.fork()
if not child:
    x = Tensor([1.0])
    x.data = Tensor([2.0])
    os._exit(0)
ended.set()
other.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
