"""Two threads that use the same values: deferred ones are computed once, and a buffer keeps one version counter."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from weakref import WeakValueDictionary

import pytest

import needle as ndl
from needle import autograd, version_counter
from needle.autograd import Tensor, TensorOp
from needle.graph import Spec
from needle.lazy import Deferred
from needle.version_counter import VersionCounter


@pytest.fixture
def lazily(monkeypatch):
    monkeypatch.setattr(autograd, "LAZY_MODE", True)


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


class Slow(TensorOp):
    """Twice its input, while another thread has the time to ask for the same."""

    def __init__(self, calls):
        self.calls = calls

    def compute(self, x):
        self.calls.append("compute")
        time.sleep(0.03)
        return x + x

    def infer(self, x):
        self.calls.append("infer")
        time.sleep(0.03)
        return Spec(x.shape, x.dtype)


def test_a_deferred_value_is_computed_once(lazily):
    calls = []
    value = Slow(calls)(Tensor([1.0, 2.0]))
    first, second = in_two_threads(lambda: value.array)
    assert first is second
    assert first.tolist() == [2, 4]
    assert calls == ["compute"]


def test_what_two_deferred_results_share_is_computed_once(lazily):
    calls = []
    shared = Slow(calls)(Slow(calls)(Tensor([1.0, 2.0])))
    results = [shared + 1, shared * 2]
    arrays = in_two_threads(lambda: results[0].array, lambda: results[1].array)
    assert [array.tolist() for array in arrays] == [[5, 9], [8, 16]]
    assert calls.count("compute") == 2


def test_a_spec_is_inferred_once(lazily):
    calls = []
    value = Slow(calls)(Tensor([1.0, 2.0]))
    assert in_two_threads(lambda: value.shape) == [(2,), (2,)]
    assert calls == ["infer"]
    assert isinstance(value, Deferred)


def test_a_computed_value_has_a_device_for_a_thread_that_asked_before(lazily):
    value = Tensor([1.0]) + 1
    device = type(value).device.fget
    assert value.array.tolist() == [2]
    assert device(value) == ndl.cpu()


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


def test_a_write_computes_what_two_threads_deferred(lazily, monkeypatch):
    def slowly():
        time.sleep(0.03)
        return WeakValueDictionary()

    monkeypatch.setattr(version_counter, "WeakValueDictionary", slowly)
    value = Tensor([1.0])
    results = in_two_threads(lambda: value + 1)
    value.data = Tensor([5.0])
    assert [result.numpy().tolist() for result in results] == [[2], [2]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_computes_although_its_parent_was_computing():
    code = """
import os, threading
from needle import autograd
from needle.autograd import Tensor, TensorOp

class Waiting(TensorOp):
    def compute(self, x):
        begun.set()
        assert ended.wait(timeout=20)
        return x

autograd.LAZY_MODE = True
begun, ended = threading.Event(), threading.Event()
value = Waiting()(Tensor([1.0]))
other = threading.Thread(target=value.numpy)
other.start()
begun.wait(timeout=20)
child = os.fork()
if not child:
    assert (Tensor([1.0]) + 1).numpy().tolist() == [2]
    os._exit(0)
ended.set()
other.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
