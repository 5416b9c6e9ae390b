"""Work shared out over threads: all of it, once, with BLAS on one thread, and with its errors."""

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

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import needle as ndl
from needle.backend import parallel
from tests.standin.device import STANDIN

pytestmark = pytest.mark.skipif(not ThreadpoolController().select(user_api="blas").lib_controllers, reason="no BLAS")


def blas_threads():
    return ThreadpoolController().select(user_api="blas").lib_controllers[0].num_threads


@pytest.fixture(params=[1, 2, 3])
def count(request):
    """BLAS with that number of threads."""
    with ThreadpoolController().limit(limits=request.param, user_api="blas"):
        yield blas_threads()


def test_every_piece_is_done_once(count):
    done = []
    parallel.parallel_for(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_the_pieces_meet_at_one_time(count):
    """As many pieces as there are threads wait for each other, which one thread alone could not end."""
    barrier = threading.Barrier(count)
    parallel.parallel_for(lambda piece: barrier.wait(timeout=10), range(count))
    assert not barrier.broken


def test_blas_has_one_thread_in_a_share_and_its_own_number_after(count):
    seen = []
    parallel.parallel_for(lambda piece: seen.append(blas_threads()), range(3))
    assert seen == [1, 1, 1]
    assert blas_threads() == parallel.worker_count() == count


def test_an_error_comes_out_and_ends_the_work(count):
    done = []

    def work(piece):
        if piece == 1:
            raise IndexError("piece 1")
        time.sleep(0.001)
        done.append(piece)

    with pytest.raises(IndexError, match="piece 1"):
        parallel.parallel_for(work, range(1000))
    assert len(done) < 999
    assert blas_threads() == count
    parallel.parallel_for(done.append, ["after"])
    assert done[-1] == "after"


def test_an_interrupt_waits_for_those_that_help(count):
    """Nothing writes into arrays any more once the interrupt has come out."""
    if count == 1:
        pytest.skip("there is no one to wait for")
    begun, wrote, first = threading.Barrier(count), [], iter([True])
    main = threading.main_thread()

    def work(piece):
        begun.wait(timeout=10)
        if threading.current_thread() is not main:  # which now waits for the others
            time.sleep(0.1)
            if next(first, False):
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            wrote.append(piece)

    with pytest.raises(KeyboardInterrupt):
        parallel.parallel_for(work, range(count))
    assert len(wrote) == count - 1
    assert blas_threads() == parallel.worker_count() == count


def test_without_threads_to_be_had_the_work_is_done(count, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel, "_pool", parallel._ThreadPool())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    done = []
    parallel.parallel_for(done.append, range(9))
    assert sorted(done) == list(range(9))


def test_a_share_that_failed_keeps_nothing_alive(count):
    held = np.ones(3)
    alive = weakref.ref(held)

    def fail(piece, held=held):
        raise ValueError(f"piece {piece}")

    gc.disable()
    try:
        with suppress(ValueError):
            parallel.parallel_for(fail, range(4))
        del fail, held
        assert alive() is None
    finally:
        gc.enable()


def test_a_share_within_a_share_is_done_in_place(count):
    names = set()

    def inner(piece):
        names.add((threading.current_thread().name, piece))

    def outer(piece):
        here = threading.current_thread().name
        parallel.parallel_for(lambda _: inner(piece), range(3))
        assert (here, piece) in names

    parallel.parallel_for(outer, range(4))
    assert {piece for _, piece in names} == set(range(4))


def test_shares_of_two_threads_do_not_wait_for_each_other(count):
    """While one thread shares out, another does its work itself."""
    begun, ended, done = threading.Event(), threading.Event(), []

    def slow(piece):
        begun.set()
        assert ended.wait(timeout=10)

    other = threading.Thread(target=parallel.parallel_for, args=(slow, range(count)))
    other.start()
    begun.wait(timeout=10)
    parallel.parallel_for(done.append, range(5))
    ended.set()
    other.join()
    assert sorted(done) == list(range(5))


def test_blas_has_one_thread_in_a_share_of_any_thread():
    """threadpoolctl heeds only the thread that came first; none stays that."""
    code = """
import threading
from threadpoolctl import ThreadpoolController
from needle.backend import parallel
blas = ThreadpoolController().select(user_api="blas").lib_controllers[0]
seen, before = [], blas.num_threads
parallel.parallel_for(lambda piece: None, range(2))
other = threading.Thread(target=parallel.parallel_for, args=(lambda piece: seen.append(blas.num_threads), range(3)))
other.start()
other.join()
assert seen == [1, 1, 1], seen
assert blas.num_threads == before
"""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_threads_of_blas_sleep_through_training():
    """Woken, they look for work for a while after each product, on the cores that needle's threads need."""
    code = """
import threading, time
from pathlib import Path
import needle as ndl
from needle import nn, optim

def used():
    ours = {str(thread.native_id) for thread in threading.enumerate()}
    others = (task for task in Path("/proc/self/task").iterdir() if task.name not in ours)
    fields = [(task / "stat").read_text().rsplit(")", 1)[1].split() for task in others]
    return sum(int(user) + int(system) for *_, user, system in (line[:13] for line in fields))

ndl.seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 64, 5, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 16, 3), nn.LayerNorm(5), nn.AvgPool2d(5), nn.Flatten(),
    nn.Linear(16, 300), nn.ReLU(), nn.Linear(300, 10),
)
optimizer = optim.Adam(model.parameters())
images, labels = ndl.init.randn(64, 3, 64, 64), ndl.Tensor([i % 10 for i in range(64)], requires_grad=False)
before = None
while before != (before := used()):  # they are awake when they are made
    time.sleep(0.3)
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


def test_the_number_of_workers_is_the_same_during_a_share(count):
    """What is cut for so many threads is cut alike, and so summed alike, while another thread shares out."""
    seen = []
    parallel.parallel_for(lambda piece: seen.append(parallel.worker_count()), range(3))
    assert seen == [count] * 3


def test_the_error_state_of_numpy_holds_in_every_thread(count):
    barrier = threading.Barrier(count)

    def overflow(piece):
        barrier.wait(timeout=10)
        np.float32(3e38) * np.ones(4, "float32") * np.float32(10)

    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel.parallel_for(overflow, range(count))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        parallel.parallel_for(overflow, range(count))


def test_stretches_cut_all_rows_into_blocks(count):
    for length, row in ((1, 1), (10, 1 << 20), (7, 1 << 22), (1000, 4), (0, 8), (64, 1 << 13)):
        pieces = ndl.cpu().chunks(length, row)
        assert [i for piece in pieces for i in range(length)[piece]] == list(range(length))
        if length * row >= 1 << 22:
            assert len(pieces) >= min(count, length)
    assert len(ndl.cpu().chunks(10, 1 << 22)) == 10
    assert len(STANDIN.chunks(10, 1 << 22)) == 1


def test_another_device_does_its_work_in_order():
    done = []
    STANDIN.parallel_for(done.append, range(9))
    assert done == list(range(9))
    assert STANDIN.worker_count() == 1


def test_a_forked_child_makes_threads_of_its_own():
    code = """
import os, sys, threading
from threadpoolctl import threadpool_limits
from needle.backend import parallel
threadpool_limits(2, user_api="blas")
barrier = threading.Barrier(parallel.worker_count())
parallel.parallel_for(lambda piece: barrier.wait(timeout=20), range(barrier.parties))
child = os.fork()
if not child:
    assert parallel.worker_count() == barrier.parties
    parallel.parallel_for(lambda piece: barrier.wait(timeout=20), range(barrier.parties))
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
