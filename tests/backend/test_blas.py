"""The limit of BLAS to one thread: shared by the loops of all threads, lifted by the last one, whatever happens."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

import needle as ndl
from needle import nn, optim
from needle.backend import blas, parallel
from tests.backend.test_parallel import blas_threads
from tests.interrupts import interrupt_everywhere

pytestmark = pytest.mark.skipif(not ThreadpoolController().select(user_api="blas").lib_controllers, reason="no BLAS")


@pytest.fixture
def two_threads():
    """BLAS with two threads."""
    with threadpool_limits(2, user_api="blas"):
        yield


class Library:
    """A BLAS whose number can be set; `reading` and `writing` are called before that happens."""

    def __init__(self, count):
        self.count = count
        self.reading = self.writing = lambda *args: None

    def get(self):
        self.reading()
        return self.count

    def set(self, count):
        self.writing(count)
        self.count = count


@pytest.fixture
def library(monkeypatch):
    library = Library(2)
    monkeypatch.setattr(blas, "_libraries", lambda: [library])
    monkeypatch.setattr(blas, "_limit", blas._Limit())
    return library


def run_in_thread(work, *args):
    thread = threading.Thread(target=work, args=args)
    thread.start()
    return thread


def controller(path, count, api):
    number = Library(count)
    entries = {"get_num_threads": number.get, "set_num_threads": number.set, "threading_layer": "openmp"}
    return SimpleNamespace(filepath=str(path), internal_api=api, **entries)


@pytest.mark.parametrize("api", ["openblas", "mkl"])
def test_the_number_of_threads_is_that_of_numpys_blas(api, monkeypatch):
    package = Path(np.__file__).parent
    own = controller(f"{package}.libs/libblas.so", 2, api)
    other = controller(package.parent / "scipy.libs/libblas.so", 1, api)
    group = SimpleNamespace(lib_controllers=[other, own])
    monkeypatch.setattr("threadpoolctl.ThreadpoolController", lambda: SimpleNamespace(select=lambda user_api: group))
    monkeypatch.setattr(blas, "_libraries", blas._libraries.__wrapped__)
    assert [library.get() for library in blas._libraries()] == [2, 1]
    assert blas.worker_count() == 2
    blas._libraries()[0].set(3)
    assert own.get_num_threads() == 3


def test_blas_keeps_one_thread_until_the_last_loop_ends(two_threads):
    """A loop that began beside another one goes on after it with the same bits."""
    begun, may_end, seen = threading.Event(), threading.Event(), []

    def long(chunk):
        begun.set()
        assert may_end.wait(timeout=10)
        seen.append(blas_threads())

    def short(chunk):
        other.append(run_in_thread(parallel.parallel_for, long, [0]))
        assert begun.wait(timeout=10)

    other = []
    parallel.parallel_for(short, [0])
    assert (blas_threads(), blas.worker_count()) == (1, 2)
    may_end.set()
    other[0].join()
    assert seen == [1]
    assert blas_threads() == 2


def test_a_loop_that_begins_while_another_ends_has_one_thread(library):
    def begin_another(count):
        if count == 2 and not threads:
            threads.append(run_in_thread(blas.hold_limit, "second"))
            time.sleep(0.05)  # it waits until BLAS has two threads again, and then limits it

    threads = []
    library.writing = begin_another
    blas.hold_limit("first")
    blas.drop_limit("first")
    threads[0].join()
    assert library.count == 1
    blas.drop_limit("second")
    assert library.count == 2


def test_worker_count_is_right_while_another_thread_limits_blas(library):
    def limit():
        library.reading = lambda: None
        run_in_thread(blas.hold_limit, "loop").join()

    library.reading = limit
    assert blas.worker_count() == 2
    assert library.count == 1


def test_a_number_that_is_set_during_a_loop_stays(library):
    blas.hold_limit("loop")
    library.set(3)
    blas.drop_limit("loop")
    assert library.count == 3


def test_the_limit_holds_while_another_thread_has_a_limit_of_its_own():
    """threadpoolctl obeys only the thread that set a number first."""

    def limited():
        with threadpool_limits(3, user_api="blas"):
            entered.set()
            assert leave.wait(timeout=10)

    before = blas_threads()
    entered, leave, seen = threading.Event(), threading.Event(), []
    other = run_in_thread(limited)
    assert entered.wait(timeout=10)
    parallel.parallel_for(lambda chunk: seen.append(blas_threads()), range(3))
    after = blas_threads()
    leave.set()
    other.join()
    assert seen == [1, 1, 1]
    assert (after, blas_threads()) == (3, before)


def test_trainings_in_two_threads_have_the_bits_of_each_alone(two_threads):
    def prepare(seed):
        ndl.seed(seed)
        model = nn.Sequential(nn.Linear(203, 517), nn.ReLU(), nn.Linear(517, 311), nn.ReLU(), nn.Linear(311, 10))
        return model, ndl.init.randn(97, 203)

    def train(model, x):
        labels, optimizer = ndl.Tensor([i % 10 for i in range(97)], requires_grad=False), optim.Adam(model.parameters())
        for _ in range(10):
            nn.CrossEntropyLoss()(model(x), labels).backward(create_graph=False)
            optimizer.step()

    def bits(job):
        return [parameter.numpy().tobytes() for parameter in job[0].parameters()]

    alone = [prepare(seed) for seed in (0, 1)]
    for job in alone:
        train(*job)
    for _ in range(3):
        together = [prepare(seed) for seed in (0, 1)]
        for thread in [run_in_thread(train, *job) for job in together]:
            thread.join()
        assert [bits(job) for job in together] == [bits(job) for job in alone]
    assert blas_threads() == 2


class Pool(parallel._ThreadPool):
    """A pool whose threads can be ended: by a task that raises SystemExit."""

    def _serve(self):
        with suppress(SystemExit):
            super()._serve()

    def end(self):
        for _ in self.serving:
            self.tasks.put(map(sys.exit, [0]))


@pytest.mark.parametrize("uses_blas", [True, False])
def test_an_interrupt_at_any_line_leaves_nothing_behind(two_threads, uses_blas, monkeypatch):
    def body(chunk):
        parallel.parallel_for(lambda _: None, [0])
        if chunk == 1:
            raise ValueError

    def run():
        with suppress(ValueError):
            parallel.parallel_for(body, range(2), uses_blas)

    def meet_the_thread():
        barrier = threading.Barrier(2)
        parallel.parallel_for(lambda _: barrier.wait(timeout=10), range(2))
        assert [*parallel._pool.serving] == [0]

    monkeypatch.setattr(parallel, "_pool", Pool())
    places, pools, before = [], [parallel._pool], threading.enumerate()
    for place in interrupt_everywhere(run, parallel, blas, threading):
        assert blas_threads() == blas.worker_count() == 2, place
        assert [*blas._limit.loops, *blas._limit.owner, *parallel._pool.task] == [], place
        meet_the_thread()
        places.append(place)
        monkeypatch.setattr(parallel, "_pool", Pool())  # to start a thread again
        pools.append(parallel._pool)
    meet_the_thread()  # the last run may have ended before the thread began
    for pool in pools:
        pool.end()
    for thread in set(threading.enumerate()).difference(before):
        thread.join(timeout=10)
        assert not thread.is_alive()
    names = {"parallel_for", "_run", "_end", "run", "finish", "release", "worker_count", "drop_limit", "drop"}
    names |= {"hold", "_lock", "_unlock"} if uses_blas else set()
    assert {place.split(":")[0] for place in places} >= names
