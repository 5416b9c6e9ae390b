"""Training by several ranks follows training by one process: losses, gradients and weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import needle as ndl
from needle.distributed import launch
from tests.distributed.nets import NETS, train, train_on_all_ranks
from tests.distributed.threads import in_python, in_shared_memory, run_ranks

COMBINATIONS = [
    ("convolutions", "adam", 2, in_shared_memory),
    ("residual", "sgd", 3, in_python),
    pytest.param("convolutions", "sgd", 3, in_shared_memory, marks=pytest.mark.slow),
    pytest.param("residual", "adam", 2, in_python, marks=pytest.mark.slow),
]


def assert_follows(results, expected):
    for result in results:
        np.testing.assert_array_equal(result, results[0])  # the same bits on all ranks
    np.testing.assert_allclose(results[0], expected, rtol=1e-10, atol=1e-10)
    assert not np.array_equal(results[0], expected)  # sums of parts are rounded otherwise, so there were parts


@pytest.mark.parametrize(("net", "optimizer", "size", "engine"), COMBINATIONS)
def test_ranks_follow_one_process(net, optimizer, size, engine, streams):
    model = NETS[net]()

    def run(communicator=None):
        streams.stream = np.random.RandomState(5)
        return train(copy.deepcopy(model), optimizer)

    assert_follows(run_ranks(size, run, engine), run())


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_follow_one_process(workers):
    """And two runs of them have the same bits."""
    model, stream, results = NETS["convolutions"](), ndl.get_rng_state(), []
    for _ in range(2):
        ndl.set_rng_state(stream)
        ranks = launch(train_on_all_ranks, workers, (copy.deepcopy(model), "adam"))
        results += [result for (result,) in ranks]
    ndl.set_rng_state(stream)
    assert_follows(results, train(model, "adam"))
