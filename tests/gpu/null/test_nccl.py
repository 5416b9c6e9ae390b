"""Ranks with a GPU each, played by null devices, exchange arrays by CuPy's NCCL, played on sockets."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from tests.distributed import nets
from tests.distributed.mpi import exchanges
from tests.distributed.mpi.ranks import run, start
from tests.distributed.threads import in_shared_memory, run_ranks
from tests.gpu.null import device
from tests.gpu.null.steps import NETWORKS, Training

SLOW = pytest.mark.slow
STEPS = 8
PATIENCE = 180  # seconds: CuPy is loaded, and g++ compiles its kernels in the first run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]


@pytest.mark.parametrize(
    ("size", "late"), [(2, True), pytest.param(3, True, marks=SLOW), pytest.param(3, False, marks=SLOW)]
)
def test_the_exchanges_have_the_bits_of_shared_memory(size, late):
    expected = run_ranks(size, exchanges.main, in_shared_memory)
    for (ours, requests), theirs in zip(run(size, "gpu", "exchange", late, timeout=PATIENCE), expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert not [name for name in ours if ours[name] != theirs[name]]
        assert requests


@pytest.fixture
def on_gpu():
    before = ndl.default_device()
    ndl.set_default_device(ndl.cuda())
    yield
    ndl.set_default_device(before)


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize(
    ("size", "net", "optimizer"), [(3, "convolutions", "adam"), pytest.param(2, "residual", "sgd", marks=SLOW)]
)
def test_a_training_is_that_of_one_process(size, net, optimizer):
    ndl.seed(0)
    expected = nets.train(nets.NETS[net](), optimizer, STEPS)
    first, *others = [result for result, _ in run(size, "gpu", "train", True, net, optimizer, STEPS, timeout=PATIENCE)]
    np.testing.assert_allclose(first, expected, rtol=1e-10, atol=1e-12)
    for other in others:
        assert other.tobytes() == first.tobytes()


@pytest.mark.parametrize(
    ("size", "net", "exchanges", "most"),
    [(2, "lenet", 3, 26), (2, "cnn", 9, 47), pytest.param(3, "cnn", 9, 52, marks=SLOW)],
)
def test_a_step_waits_only_to_see_which_gradients_have_come(size, net, exchanges, most):
    """Exchanges: the loss, gradients in two steps, and one forward and one backward for each of 3 batch norms.

    LeNet has 20 launches alone, the other 29. Over two ranks each batch norm has 4 more, two for its own sums and two
    for the exchanges.
    """
    alone = Training(NETWORKS[net].small(), ndl.cpu())
    expected = [alone.step().item() for _ in range(2)]
    for (losses, waits, uploads, nccl, launches), _ in run(size, "gpu", "step", False, net, timeout=PATIENCE):
        assert losses == pytest.approx(expected, rel=2e-6)
        assert (waits, uploads, nccl) == (1, 0, exchanges)
        assert launches <= most


def test_an_array_of_the_host_and_one_of_a_gpu_are_different_calls():
    call = r"calls all_reduce of shape \(3,\) and dtype float64"
    message = rf"all_reduce: all ranks must make the same calls, but rank 0 {call}, on a GPU, and rank 1 {call}\n"
    other = rf"all_reduce: all ranks must make the same calls, but rank 1 {call}, and rank 0 {call}, on a GPU\n"
    with pytest.raises(AssertionError, match=f"{message}|{other}"):  # the first one ends both
        run(2, "gpu", "differ", False, timeout=PATIENCE)


def test_ranks_that_share_a_gpu_exchange_through_the_host():
    results = run(2, "gpu", "share", False, timeout=PATIENCE, environment={"NULL_DEVICE": "shared"})
    said = "all_reduce: arrays of GPUs go through the host, because ranks 0 and 1 have the same GPU"
    assert results == [(([[2.0] * 3] * 2, [said]), 0), (([[2.0] * 3] * 2, []), 0)]


@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_rank_that_waits_for_the_gpu_of_one_that_has_ended_ends_as_well(how):
    with start(2, ["python", "-m", "tests.distributed.mpi.gpu", how]) as started:
        status = started.wait(PATIENCE)
        assert status, started.output
        assert "begun" in started.output
        assert how == "kill" or "ArithmeticError: rank 1 fails" in started.errors
        assert started.end() == []
