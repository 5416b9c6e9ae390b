"""Parallel loops: every chunk once, BLAS on one thread, and errors raised in the caller."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from contextlib import suppress
from contextvars import ContextVar, copy_context

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import needle as ndl
from needle import tuning
from needle.backend import blas, parallel
from tests.standin.device import STANDIN
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(not ThreadpoolController().select(user_api="blas").lib_controllers, reason="no BLAS")

MANY = 100_000  # chunks of a millisecond: a loop that ends, ends before, however slow the machine is


def blas_threads():
    return ThreadpoolController().select(user_api="blas").lib_controllers[0].num_threads


@pytest.fixture(params=[1, 2, 3])
def count(request):
    """The number of threads of BLAS."""
    with ThreadpoolController().limit(limits=request.param, user_api="blas"):
        yield blas_threads()


def test_every_chunk_is_done_once(count):
    done = []
    parallel.parallel_for(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_chunks_run_at_the_same_time(count):
    """Each chunk waits for all others: a single thread would never finish."""
    barrier = threading.Barrier(count)
    parallel.parallel_for(lambda chunk: barrier.wait(timeout=10), range(count))
    assert not barrier.broken


def test_blas_has_one_thread_in_a_loop_and_its_own_number_afterwards(count):
    seen = []
    parallel.parallel_for(lambda chunk: seen.append(blas_threads()), range(3))
    assert seen == [1, 1, 1]
    assert blas_threads() == blas.worker_count() == count


def test_a_loop_without_products_leaves_blas_its_threads(count):
    seen = []
    parallel.parallel_for(lambda chunk: seen.append(blas_threads()), range(3), uses_blas=False)
    assert seen == [count] * 3


def test_waiting_threads_keep_no_context_alive(count):
    variable, value = ContextVar[object]("variable"), threading.Event()
    kept = weakref.ref(value)
    context = copy_context()
    context.run(variable.set, value)
    context.run(parallel.parallel_for, lambda chunk: None, range(100))
    del context, value
    wait_until(lambda: gc.collect() is not None and kept() is None)  # a thread may be on its way


def test_an_error_is_raised_and_ends_the_loop(count):
    done = []

    def body(chunk):
        if chunk == 1:
            raise IndexError("chunk 1")
        time.sleep(0.001)
        done.append(chunk)

    with pytest.raises(IndexError, match="chunk 1"):
        parallel.parallel_for(body, range(MANY))
    assert len(done) < MANY - 1
    assert blas_threads() == count
    parallel.parallel_for(done.append, ["after"])
    assert done[-1] == "after"


def test_an_interrupt_waits_for_the_pool(count):
    """Once the interrupt is raised, no thread writes into arrays any more."""
    if count == 1:
        pytest.skip("there is no thread to wait for")
    begun, wrote, first = threading.Barrier(count), [], iter([True])
    main = threading.main_thread()

    def body(chunk):
        begun.wait(timeout=10)
        if threading.current_thread() is not main:  # the main thread now waits for the others
            time.sleep(0.1)
            if next(first, False):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            wrote.append(chunk)

    with pytest.raises(KeyboardInterrupt):
        parallel.parallel_for(body, range(count))
    assert len(wrote) == count - 1
    assert blas_threads() == blas.worker_count() == count


def test_the_loop_runs_if_no_thread_can_be_started(count, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "_pool", parallel._ThreadPool())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    parallel.parallel_for(done.append, range(9))
    assert sorted(done) == list(range(9))


def test_a_failed_loop_keeps_nothing_alive(count):
    held = np.ones(3)
    alive = weakref.ref(held)

    def fail(chunk, held=held):
        raise ValueError(f"chunk {chunk}")

    gc.disable()
    try:
        with suppress(ValueError):
            parallel.parallel_for(fail, range(4))
        del fail, held
        assert alive() is None
    finally:
        gc.enable()


def test_a_loop_within_a_loop_runs_serially(count):
    names = set()

    def inner(chunk):
        names.add((threading.current_thread().name, chunk))

    def outer(chunk):
        here = threading.current_thread().name
        parallel.parallel_for(lambda _: inner(chunk), range(3))
        assert (here, chunk) in names

    parallel.parallel_for(outer, range(4))
    assert {chunk for _, chunk in names} == set(range(4))


def test_loops_of_two_threads_do_not_wait_for_each_other(count):
    """While one thread runs a parallel loop, a loop in another thread runs serially there."""
    begun, ended, done = threading.Event(), threading.Event(), []

    def slow(chunk):
        begun.set()
        assert ended.wait(timeout=10)

    other = threading.Thread(target=parallel.parallel_for, args=(slow, range(count)))
    other.start()
    begun.wait(timeout=10)
    parallel.parallel_for(done.append, range(5))
    ended.set()
    other.join()
    assert sorted(done) == list(range(5))


def test_blas_has_one_thread_in_a_loop_of_any_thread():
    """threadpoolctl obeys only the thread that came first, until it is cleared."""
    code = """
import threading
from threadpoolctl import ThreadpoolController
from needle.backend import blas, parallel
blas = ThreadpoolController().select(user_api="blas").lib_controllers[0]
seen, before = [], blas.num_threads
parallel.parallel_for(lambda chunk: None, range(2))
other = threading.Thread(target=parallel.parallel_for, args=(lambda chunk: seen.append(blas.num_threads), range(3)))
other.start()
other.join()
assert seen == [1, 1, 1], seen
assert blas.num_threads == before
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_threads_of_blas_sleep_through_training():
    """Otherwise they would spin for a while after each matmul, on the cores that needle's threads need."""
    code = """
import threading, time
from pathlib import Path
import needle as ndl
from needle import nn, optim

def threads_of_blas():
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    others = (task for task in Path("/proc/self/task").iterdir() if task.name not in ours)
    return [(task / "stat").read_text().rsplit(")", 1)[1].split() for task in others]

def used():
    return sum(int(user) + int(system) for *_, user, system in (fields[:13] for fields in threads_of_blas()))

ndl.seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 64, 5, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.LayerNorm(5), nn.AvgPool2d(5), nn.Flatten(),
    nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 10),
)
optimizer = optim.Adam(model.parameters())
images, labels = ndl.init.randn(64, 3, 64, 64), ndl.Tensor([i % 10 for i in range(64)], requires_grad=False)
while any(state != "S" for state, *_ in threads_of_blas()):  # they spin after they are created
    time.sleep(0.01)
before = used()
for _ in range(3):
    loss = nn.CrossEntropyLoss()(model(images), labels)
    loss.backward(create_graph=False)
    optimizer.step()
assert threading.active_count() == 2, threading.enumerate()
print(used() - before)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_worker_count_is_the_same_during_a_loop(count):
    """So the chunks and the order of sums do not depend on loops in other threads."""
    seen = []
    parallel.parallel_for(lambda chunk: seen.append(blas.worker_count()), range(3))
    assert seen == [count] * 3


def test_the_error_state_of_numpy_holds_in_every_thread(count):
    barrier = threading.Barrier(count)

    def overflow(chunk):
        barrier.wait(timeout=10)
        np.float32(3e38) * np.ones(4, "float32") * np.float32(10)

    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel.parallel_for(overflow, range(count))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        parallel.parallel_for(overflow, range(count))


@pytest.mark.parametrize("uses_blas", [True, False])
def test_a_loop_that_is_not_shared_stays_in_its_thread(count, uses_blas):
    seen = []
    parallel.parallel_for(lambda chunk: seen.append((chunk, threading.get_ident())), range(50), uses_blas, shared=False)
    assert seen == [(chunk, threading.get_ident()) for chunk in range(50)]


def test_chunks_cover_all_rows(count):
    for length, row in ((1, 1), (10, 1 << 20), (7, 1 << 22), (1000, 4), (0, 8), (64, 1 << 13)):
        chunks = ndl.cpu().chunks(length, row)
        assert [i for chunk in chunks for i in range(length)[chunk]] == list(range(length))
        if length * row >= tuning.SPLIT_BYTES:
            assert len(chunks) >= min(count, length)
    assert len(ndl.cpu().chunks(10, 1 << 22)) == 10
    assert len(STANDIN.chunks(10, 1 << 22)) == 1


def test_parallel_sum_adds_every_term_once(count):
    for length in (1, 2, 3, 7):
        total = ndl.cpu().parallel_sum(lambda i: np.array([10.0**i, 1]), range(length))
        assert total.tolist() == [sum(10**i for i in range(length)), length]


def test_an_interrupt_before_the_callers_own_chunks_ends_the_loop(count, monkeypatch):
    if count == 1:
        pytest.skip("there is no thread to stop")
    done, run = [], parallel._Task.run

    def interrupted(task):
        if threading.current_thread() is threading.main_thread():
            wait_until(lambda: done)
            raise KeyboardInterrupt
        run(task)

    def body(chunk):
        time.sleep(0.001)
        done.append(chunk)

    monkeypatch.setattr(parallel._Task, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        parallel.parallel_for(body, range(MANY))
    assert len(done) < MANY - 1


def test_loops_of_many_threads_are_right_wherever_python_switches(count):
    """Every chunk once, BLAS limited in every loop: also if threads take turns after each few instructions."""
    wrong = []

    def run(number):
        for _ in range(30):
            done, seen = [], []
            parallel.parallel_for(lambda chunk: (done.append(chunk), seen.append(blas_library.num_threads)), range(5))  # noqa: B023
            if sorted(done) != list(range(5)) or set(seen) != {1} or blas.worker_count() != count:
                wrong.append((number, done, seen))

    blas_library, interval = ThreadpoolController().select(user_api="blas").lib_controllers[0], sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert blas_threads() == count


def test_chunks_are_equal_and_as_many_for_each_thread(count):
    for length, row in ((64, 1 << 17), (5, 1 << 21), (9, 1 << 20)):
        chunks = ndl.cpu().chunks(length, row)
        lengths = {chunk.stop - chunk.start for chunk in chunks}
        assert max(lengths) - min(lengths) <= 1
        assert len(chunks) == length or len(chunks) % count == 0


def test_another_device_runs_its_loops_in_order():
    done = []
    STANDIN.parallel_for(done.append, range(9))
    assert done == list(range(9))
    assert STANDIN.worker_count() == 1


def test_a_forked_child_starts_its_own_threads():
    code = """
import os, sys, threading
from threadpoolctl import threadpool_limits
from needle.backend import blas, parallel
threadpool_limits(2, user_api="blas")
barrier = threading.Barrier(blas.worker_count())
parallel.parallel_for(lambda chunk: barrier.wait(timeout=20), range(barrier.parties))
child = os.fork()
if not child:
    assert blas.worker_count() == barrier.parties
    parallel.parallel_for(lambda chunk: barrier.wait(timeout=20), range(barrier.parties))
    os._exit(0)
statuses = [os.waitpid(child, 0)[1]]

def fork(chunk):
    if chunk == 0:
        child = os.fork()
        if not child:  # born in a loop, during which BLAS has one thread
            os._exit(blas.worker_count() != barrier.parties)
        statuses.append(os.waitpid(child, 0)[1])

parallel.parallel_for(fork, range(2))
assert len(statuses) == 2
sys.exit(max(map(os.waitstatus_to_exitcode, statuses)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
