"""The plan of the CPU: its memory, and calls that a tracer sees."""

import numpy as np
import pytest

import needle as ndl
from needle.backend import kept
from needle.backend.blas import limited_to
from needle.backend.plan.arena import Arena


def test_a_freed_block_serves_the_next_array():
    arena = Arena()
    first = arena.take(1000)
    arena.give(first)
    assert arena.take(900) is first
    assert arena.take(900) is not first


def test_a_block_serves_no_much_smaller_array():
    arena = Arena()
    arena.give(arena.take(10_000))
    assert arena.take(100).size < 10_000


def test_blocks_are_aligned():
    assert all(Arena().take(size).ctypes.data % 64 == 0 for size in (0, 1, 100, 5000))


def test_parts_of_a_loop_share_no_block():
    """What a part frees serves that part alone until the loop ends, and what another part took serves none."""
    arena = Arena()
    before = arena.take(100)
    arena.begin_part()
    own, lasting = arena.take(100), arena.take(100)
    arena.give(own)
    assert arena.take(100) is own
    arena.give(own)
    arena.give(before)
    arena.end_part()
    arena.begin_part()
    arena.give(lasting)
    others = [arena.take(100) for _ in range(4)]
    assert not any(other is block for other in others for block in (before, own, lasting))
    arena.end_part()
    arena.end_loop()
    again = [arena.take(100) for _ in range(3)]
    assert {id(block) for block in again} == {id(block) for block in (before, own, lasting)}


@pytest.mark.parametrize("threads", [1, 2])
def test_loops_are_replayed(threads):
    x, y = np.arange(12.0).reshape(6, 2), np.zeros((6, 2))

    def work():
        source, target, device = kept(x), kept(y), ndl.cpu()

        def body(row):
            scratch = device.xp.empty(2)
            scratch[...] = source[row] * 2
            target[row] = scratch + 1

        device.parallel_for(body, range(6))

    with limited_to(threads):
        recording = ndl.cpu().record(work)
        for i in range(3):
            x += i
            y[...] = -1
            recording.replay()
            assert (y == 2 * x + 1).all()


CALLS = {
    "reshape": lambda x: x.T.reshape(-1) + 0,
    "squeeze": lambda x: x[None].squeeze(0) * 2,
    "fancy": lambda x: x[np.array([1, 0, 1])],
    "reduction": lambda x: x.sum(axis=0) + x.max() + x.mean(),
    "cumsum": lambda x: x.cumsum(axis=1),
    "sort": lambda x: np.sort(x, axis=0) + np.flip(x),
    "where": lambda x: np.where(x > 1, x, -x),
    "concatenate": lambda x: np.concatenate([x, x * 2], axis=1),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "argmax": lambda x: x.argmax(axis=1),
    "pad": lambda x: np.pad(x, 1),
    "at": lambda x: np.add.at(x, ([0, 0], [1, 1]), 5.0) or x * 1,
    "divmod": lambda x: np.divmod(x, 2)[1],
    "astype": lambda x: x.astype("int64").astype("float32") / 3,
    "copyto": lambda x: np.copyto(x, 3.0, where=x > 2) or x + 1,
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_replayed(name):
    """Calls of NumPy on traced arrays, replayed with other values."""
    call, x, results = CALLS[name], np.zeros((2, 3)), []
    recording = ndl.cpu().record(lambda: results.append(call(kept(x))))
    found = recording.recorder.released(results[0])
    for seed in range(3):
        x[...] = values = np.random.RandomState(seed).randn(2, 3).round(1) * 2
        recording.replay()
        assert np.array_equal(found, call(values))
