"""Exponential moving averages of weights, against torch's."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import needle as ndl
from needle import nn, optim
from tests.optim.steps import Twins, assert_same_bits, tensor

STEPS = 50


def network(device=None, dtype="float32"):
    return nn.Sequential(
        nn.Linear(3, 4, device=device, dtype=dtype), nn.BatchNorm1d(4, device=device, dtype=dtype), nn.Linear(4, 300)
    ).to(device or ndl.cpu(), dtype)


def values(tensors):
    return [t.numpy().copy() for t in tensors]


def draw(model, step):
    """Give all parameters and buffers other values."""
    rng = np.random.default_rng(step)
    for t in [*model.parameters(), *model.buffers()]:
        new = rng.standard_normal(t.shape) if t.dtype.kind == "f" else np.asarray(7 * step + 5)
        t.data = ndl.Tensor(np.asarray(new), device=t.device, dtype=t.dtype)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("decay", [0.999, 0.6, 1.0])
def test_averages_are_torchs(decay, use_buffers, device):
    twins = Twins(device)
    ema = optim.ExponentialMovingAverage(twins.net, decay, use_buffers)
    average = AveragedModel(twins.twin, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
    for step in range(STEPS):
        draw(twins.net, step)
        with torch.no_grad():
            for parameter, other in zip(twins.net.parameters(), twins.twin.parameters(), strict=True):
                other.copy_(torch.from_numpy(twins.in_torch_layout(parameter)))
            for buffer, other in zip(twins.net.buffers(), twins.twin.buffers(), strict=True):
                other.copy_(torch.from_numpy(np.asarray(buffer.numpy())))
        weights = values([*twins.net.parameters(), *twins.net.buffers()])
        ema.update()
        average.update_parameters(twins.twin)
        assert_same_bits(values([*twins.net.parameters(), *twins.net.buffers()]), weights)
    with ema.applied():
        for parameter, other in zip(twins.net.parameters(), average.module.parameters(), strict=True):
            expected = other.detach().numpy()
            np.testing.assert_allclose(twins.in_torch_layout(parameter), expected, rtol=1e-12, atol=1e-15)
        for buffer, other in zip(twins.net.buffers(), average.module.buffers(), strict=True):
            np.testing.assert_allclose(buffer.numpy(), other.numpy(), rtol=1e-12)
    assert_same_bits(values([*twins.net.parameters(), *twins.net.buffers()]), weights)
    assert ema.n_averaged == int(average.n_averaged) == STEPS


def test_averages_of_a_training_run(device):
    """Parameters that are updated in place, and buffers that a forward pass replaces."""
    model = network(device, "float64")
    ema, optimizer = optim.ExponentialMovingAverage(model, 0.8, use_buffers=True), optim.Adam(model.parameters(), 0.1)
    rng, expected = np.random.default_rng(0), None
    for _ in range(10):
        optimizer.zero_grad()
        (model(tensor(rng.standard_normal((5, 3)), device)) ** 2).sum().backward(create_graph=False)
        optimizer.step()
        ema.update()
        now = values([*model.parameters(), *model.buffers()])
        expected = now if expected is None else [0.8 * a + 0.2 * b for a, b in zip(expected, now, strict=True)]
        expected[-1] = np.trunc(expected[-1])  # of the number of batches
    for average, array in zip(ema.state_dict()["averages"].values(), expected, strict=True):
        np.testing.assert_allclose(average.numpy(), array, rtol=1e-12, atol=1e-15)


def test_the_first_update_copies_weights_that_were_trained_before(device):
    model = network(device)
    ema = optim.ExponentialMovingAverage(model, 0.9)
    draw(model, 0)
    ema.update()
    assert_same_bits(values(ema.state_dict()["averages"].values()), values(model.parameters()))


def test_dtypes_stay_and_averages_follow_the_model(device):
    model = network(device)
    ema = optim.ExponentialMovingAverage(model, 0.5, use_buffers=True)
    dtypes = []
    for step, dtype in enumerate(["float32", "float32", "float16", "float64"]):
        model.to(dtype)
        draw(model, step)
        ema.update()
        dtypes.append({str(average.dtype) for average in ema.state_dict()["averages"].values()} - {"int64"})
    assert dtypes == [{"float32"}, {"float32"}, {"float16"}, {"float64"}]
    model.to(ndl.cpu())
    ema.update()
    assert {average.device for average in ema.state_dict()["averages"].values()} == {ndl.cpu()}


def test_the_weights_come_back_after_an_error():
    model = network()
    ema = optim.ExponentialMovingAverage(model, 0.9)
    for step in range(3):
        draw(model, step)
        ema.update()
    weights, averages = values(model.parameters()), values(ema.state_dict()["averages"].values())
    arrays = [parameter.array for parameter in model.parameters()]

    def evaluate():
        with ema.applied():
            assert_same_bits(values(model.parameters()), averages)
            model.parameters()[0].data = model.parameters()[0] * 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        evaluate()
    assert_same_bits(values(model.parameters()), weights)
    assert_same_bits(values(ema.state_dict()["averages"].values()), averages)
    assert all(parameter.array is array for parameter, array in zip(model.parameters()[1:], arrays[1:], strict=True))


def test_the_weights_come_back_if_the_averages_cannot_be_put_in_whole(monkeypatch):
    model = network()
    ema = optim.ExponentialMovingAverage(model, 0.9)
    weights = values(model.parameters())

    def interrupted():
        model.parameters()[0].data = model.parameters()[0] * 0
        raise KeyboardInterrupt

    monkeypatch.setattr(ema, "copy_to", interrupted)
    with pytest.raises(KeyboardInterrupt), ema.applied():
        pass
    assert_same_bits(values(model.parameters()), weights)


def test_a_graph_that_reads_the_weights_is_refused_after_an_exchange():
    model = nn.Linear(2, 2)
    ema = optim.ExponentialMovingAverage(model)
    x = ndl.ones(1, 2, requires_grad=True)
    loss = model(x).sum()
    with ema.applied():
        pass
    with pytest.raises(RuntimeError, match="must not change in place"):
        loss.backward()


def test_a_shared_weight_has_one_average():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    ema = optim.ExponentialMovingAverage(model, 0.5, use_buffers=True)
    assert [average.shape for average in ema.state_dict()["averages"].values()] == [(3, 3), (1, 3)]


def test_buffers_that_are_replaced_are_averaged_and_come_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = nn.Parameter(ndl.ones(2)), nn.Buffer(ndl.zeros(1))
            self.register_buffer("last", None)

        def forward(self, x):
            self.calls, self.last = self.calls + 1.0, x
            return x * self.weight

    model = Counting()
    ema = optim.ExponentialMovingAverage(model, 0.5, use_buffers=True)
    for size in (2, 2, 1):
        model(ndl.init.constant(size, c=size))
        ema.update()
    averages = {name: average.numpy().tolist() for name, average in ema.state_dict()["averages"].items()}
    assert averages == {"weight": [1, 1], "calls": [2.25], "last": [1]}
    with ema.applied():
        assert model.calls.item() == 2.25
    assert model.calls.item() == 3
    model.last = ndl.ones(3)  # not seen yet
    with ema.applied():
        assert model.last.shape == (3,)


def test_averages_go_into_a_model_alike():
    model, other = network(), network()
    ema = optim.ExponentialMovingAverage(model, 0.9)
    for step in range(3):
        draw(model, step)
        ema.update()
    buffers, weights = values(other.buffers()), values(model.parameters())
    ema.copy_to(other)
    assert_same_bits(values(other.parameters()), values(ema.state_dict()["averages"].values()))
    assert_same_bits(values(other.buffers()), buffers)
    assert_same_bits(values(model.parameters()), weights)
    ema.copy_to()
    assert_same_bits(values(model.parameters()), values(other.parameters()))


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_loaded_state_goes_on_bit_for_bit(through_a_file, tmp_path, device):
    model = network(device)
    ema = optim.ExponentialMovingAverage(model, 0.9, use_buffers=True)
    for step in range(20):
        if step == 10:
            state = ema.state_dict()
            if through_a_file:
                ndl.save(tmp_path / "state.npz", state)
                state = ndl.load(tmp_path / "state.npz")
            copied = values(map(ndl.Tensor, state["averages"].values()))
        draw(model, step)
        ema.update()
    assert_same_bits(values(map(ndl.Tensor, state["averages"].values())), copied)
    again = optim.ExponentialMovingAverage(model, 0.1, use_buffers=True)
    again.load_state_dict(state)
    assert (again.decay, again.n_averaged) == (0.9, 10)
    for step in range(10, 20):
        draw(model, step)
        again.update()
    assert_same_bits(values(again.state_dict()["averages"].values()), values(ema.state_dict()["averages"].values()))


def test_a_state_may_share_memory():
    model = network()
    ema = optim.ExponentialMovingAverage(model, 0.9)
    state = ema.state_dict(copy=False)
    draw(model, 1)
    ema.update()
    assert_same_bits(values(state["averages"].values()), values(model.parameters()))


def load(**changes):
    """Load the state of an average with other entries, and see that nothing has changed."""
    ema = optim.ExponentialMovingAverage(nn.Linear(2, 2), 0.5)
    before = ema.state_dict()
    try:
        ema.load_state_dict(before | changes)
    finally:
        after = ema.state_dict()
        assert (after["decay"], after["n_averaged"]) == (before["decay"], before["n_averaged"])
        assert_same_bits(values(after["averages"].values()), values(before["averages"].values()))


def average():
    return optim.ExponentialMovingAverage(nn.Linear(2, 2))


NAME = "ExponentialMovingAverage"
ERRORS = [
    (lambda: optim.ExponentialMovingAverage([]), TypeError, f"{NAME}: model must be a Module, but got list"),
    (lambda: optim.ExponentialMovingAverage(nn.Linear(2, 2), 1.5), ValueError,
     f"{NAME}: decay must lie in [0, 1], but got 1.5"),
    (lambda: setattr(average(), "decay", -1), ValueError, f"{NAME}: decay must lie in [0, 1], but got -1"),
    (lambda: optim.ExponentialMovingAverage(nn.Linear(2, 2), use_buffers=1), TypeError,
     f"{NAME}: use_buffers must be a bool, but got int"),
    (lambda: average().copy_to(1), TypeError, "copy_to: model must be a Module, but got int"),
    (lambda: average().copy_to(nn.Linear(2, 2, bias=False)), ValueError,
     "load_state_dict: names and shapes must agree, but got unexpected bias (1, 2)"),
    (lambda: average().state_dict(copy=1), TypeError, "state_dict: copy must be a bool, but got int"),
    (lambda: load(n=1), ValueError,
     f"{NAME}: the state must have decay, n_averaged and averages, but got decay, n_averaged, averages, n"),
    (lambda: average().load_state_dict([]), TypeError, f"{NAME}: state must be a Mapping, but got list"),
    (lambda: load(averages=[]), TypeError, f"{NAME}: averages must be a Mapping, but got list"),
    (lambda: load(n_averaged=-1), ValueError, f"{NAME}: n_averaged must be at least 0, but got -1"),
    (lambda: load(decay="0.5"), TypeError, f"{NAME}: decay must be a number, but got '0.5'"),
    (lambda: load(decay=0.1, n_averaged=3, averages={}), ValueError,
     "load_state_dict: names and shapes must agree, but got missing weight (2, 2); missing bias (1, 2)"),
]  # fmt: skip


@pytest.mark.on_cpu
@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()
