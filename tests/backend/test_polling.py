"""Calls between the chunks of a computation, by the thread that asked for them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from needle.backend import blas, cpu, parallel
from needle.backend.polling import between_chunks


@pytest.mark.parametrize("count", [1, 2])
def test_the_callers_thread_calls_between_chunks(count, monkeypatch):
    monkeypatch.setattr(parallel, "worker_count", lambda: count)
    monkeypatch.setattr(blas, "worker_count", lambda: count)
    calls, chunks = [], []

    def body(chunk):
        chunks.append((chunk, threading.get_ident()))

    with between_chunks(lambda: calls.append(threading.get_ident())):
        cpu().parallel_for(body, range(8))
        mine = [chunk for chunk, thread in chunks if thread == threading.get_ident()]
        assert sorted(chunk for chunk, _ in chunks) == [*range(8)]
        assert calls == [threading.get_ident()] * len(mine)
        assert count > 1 or len(calls) == 8
        before = len(calls)
        total = cpu().parallel_sum(lambda chunk: np.array([chunk]), range(8))
        assert total.item() == 28
        assert before < len(calls) <= before + 8
        assert {*calls} == {threading.get_ident()}
    before = len(calls)
    cpu().parallel_for(body, range(8))
    assert len(calls) == before


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_ends_the_computation(count, monkeypatch):
    monkeypatch.setattr(parallel, "worker_count", lambda: count)

    def fail():
        raise LookupError("mine")

    chunks = []
    with pytest.raises(LookupError, match="mine"), between_chunks(fail):
        cpu().parallel_for(chunks.append, range(100), shared=False)
    assert chunks == [0]
    cpu().parallel_for(chunks.append, range(1, 3), shared=False)
    assert chunks == [0, 1, 2]
