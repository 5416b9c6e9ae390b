"""Ranks as threads that draw as processes do: each has NumPy's global random stream for itself."""

from __future__ import annotations

import threading

import numpy as np

from tests.distributed.threads import run_ranks

DRAWS = ("rand", "randn", "randint", "random_sample", "permutation")


class Streams(threading.local):
    """The stream of a thread, seeded alike in all of them."""

    def __init__(self):
        self.stream = np.random.RandomState(0)


def separate(monkeypatch):
    """Let NumPy's functions draw from the stream of their thread, which is returned."""
    own = Streams()
    for name in DRAWS:
        monkeypatch.setattr(np.random, name, _drawn_by(own, name))
    return own


def whole_and_parts(streams, size, total, step):
    """What `step(items)` returns for a whole batch of `total`, and on each of `size` ranks for its part.

    A part is a slice; each call begins with the same random stream, and must leave it in the same state.
    """

    def seeded(items):
        streams.stream = np.random.RandomState(7)
        result = step(items)
        after.append(streams.stream.rand())
        return result

    def rank(communicator):
        communicator.part = part = communicator.part_of(total)
        return seeded(slice(None) if part is None else slice(part.start, part.stop))

    after = []
    whole = seeded(slice(None))
    parts = run_ranks(size, rank)
    assert len({*after}) == 1, "the random streams went apart"
    return whole, parts


def _drawn_by(own, name):
    return lambda *args, **options: getattr(own.stream, name)(*args, **options)
