"""Steps of groups of batches against those of one large batch and of torch; clipping; the state within a group."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn, optim
from needle.training import Stepper
from tests.distributed.threads import run_ranks

SIZES = [4, 4, 4, 4, 2]  # of the batches: two groups of two, and an incomplete one of one


def batches(dtype="float64"):
    stream = np.random.RandomState(0)
    return [(stream.randn(size, 3).astype(dtype), stream.randint(0, 2, size)) for size in SIZES]


def network(dtype="float64"):
    ndl.seed(0)
    return nn.Linear(3, 2, dtype=dtype)


def loss_of(model, inputs, labels):
    return nn.CrossEntropyLoss()(model(ndl.Tensor(inputs, requires_grad=False)), ndl.Tensor(labels))


def trained(accumulate, groups, **clips):
    """The weights after a step for each of the groups of batches."""
    model = network()
    stepper = Stepper(optim.SGD(model.parameters(), lr=0.5, momentum=0.9), accumulate, **clips)
    for inputs, labels in groups:
        stepper(loss_of(model, inputs, labels), len(labels))
    stepper.flush()
    return np.concatenate([parameter.numpy().ravel() for parameter in model.parameters()])


def together(parts):
    return [np.concatenate(field) for field in zip(*parts, strict=True)]


@pytest.mark.parametrize("accumulate", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    "clips", [{}, {"clip_norm": 0.1}, {"clip_value": 0.05}, {"clip_norm": 0.1, "clip_value": 0.07}]
)
def test_a_group_of_batches_steps_as_one_large_batch(accumulate, clips):
    parts = batches()
    groups = [together(parts[i : i + accumulate]) for i in range(0, len(parts), accumulate)]
    np.testing.assert_allclose(trained(accumulate, parts, **clips), trained(1, groups, **clips), rtol=1e-12)


def test_the_returns_tell_of_steps():
    model = network()
    stepper = Stepper(optim.SGD(model.parameters()), 2)
    told = [stepper(loss_of(model, *part), len(part[1])) for part in batches()]
    assert told == [False, True, False, True, False]
    assert (stepper.flush(), stepper.flush()) == (True, False)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_loss_may_have_axes_of_one_element(shape):
    weight = nn.Parameter(ndl.ones(1))
    stepper = Stepper(optim.SGD([weight], lr=1), accumulate=2)
    for factor, size in ((1.0, 1), (4.0, 2)):
        stepper((weight * factor).reshape(shape), size)
    assert weight.item() == 1 - (1 + 2 * 4) / 3


def test_a_step_is_torchs():
    """Clipped by value and then by norm; a parameter without a gradient is left alone."""
    model, idle = network(), nn.Parameter(ndl.ones(2))
    twin = torch.nn.Linear(3, 2, dtype=torch.float64)
    twin.load_state_dict({"weight": torch.tensor(model.weight.numpy().T), "bias": torch.tensor(model.bias.numpy()[0])})
    ours = Stepper(optim.SGD([*model.parameters(), idle], lr=0.5), 1, 0.1, 0.06)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.5)
    for inputs, labels in batches():
        ours(loss_of(model, inputs, labels), len(labels))
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(twin(torch.tensor(inputs)), torch.tensor(labels)).backward()
        torch.nn.utils.clip_grad_value_(twin.parameters(), 0.06)
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        theirs.step()
        np.testing.assert_allclose(model.weight.numpy().T, twin.weight.detach().numpy(), rtol=1e-9)
    assert idle.numpy().tolist() == [1, 1]


def test_gradients_of_an_earlier_step_are_forgotten():
    model, other = network(), nn.Parameter(ndl.ones(2))
    other.grad = ndl.ones(2)
    stepper = Stepper(optim.SGD([*model.parameters(), other]), 1)
    stepper(loss_of(model, *batches()[0]), 4)
    assert other.numpy().tolist() == [1, 1]


@pytest.mark.parametrize("done", [1, 2, 3, 4, 5])
def test_a_group_goes_on_bit_for_bit(done):
    """Also if the gradient lies in another memory order, in which the norm is summed."""

    def run(parts, model, stepper):
        for inputs, labels in parts:
            stepper(loss_of(model, inputs, labels), len(labels))
        return model.weight.numpy().tobytes()

    def start(*state):
        model = network("float32")
        stepper = Stepper(optim.SGD(model.parameters(), lr=0.5), 3, clip_norm=0.01)
        if state:
            model.load_state_dict(state[0])
            stepper.load_state_dict(state[1])
        return model, stepper

    parts = batches("float32")
    model, stepper = start()
    run(parts[:done], model, stepper)
    if stepper.batches:
        grad = model.weight.grad
        model.weight.grad = ndl.Tensor.make_const(np.asfortranarray(grad.numpy()))
    states = model.state_dict(), stepper.state_dict()
    run(parts[done:], model, stepper)
    stepper.flush()
    expected = model.weight.numpy().tobytes()
    model, stepper = start(*states)
    if stepper.batches:
        assert model.weight.grad.array.flags.f_contiguous
    run(parts[done:], model, stepper)
    stepper.flush()
    assert model.weight.numpy().tobytes() == expected


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (1, 2, 3, 0), (3, 1, 0, 2)])
def test_the_memory_order_of_a_gradient_is_kept(axes):
    parameter = nn.Parameter(ndl.zeros(2, 3, 4, 5))
    stepper = Stepper(optim.SGD([parameter]))
    stepper.batches = 1
    values = np.arange(120.0, dtype="float32").reshape([(2, 3, 4, 5)[axis] for axis in axes])
    parameter.grad = ndl.Tensor.make_const(values.transpose(np.argsort(axes)))
    before = parameter.grad.array
    state = stepper.state_dict()
    before_bytes, strides = before.tobytes(), before.strides
    before[...] = 0  # the state has a copy
    parameter.grad = None
    stepper.load_state_dict(state)
    assert (parameter.grad.array.tobytes(), parameter.grad.array.strides) == (before_bytes, strides)


def test_a_parameter_that_the_optimizer_gets_later_is_exchanged_as_well():
    def rank(communicator):
        communicator.part = communicator.part_of(2)
        first, second = nn.Parameter(ndl.ones(1)), nn.Parameter(ndl.ones(1))
        stepper = Stepper(optim.SGD([first], lr=1))
        stepper((first + second).sum() * (1.0 + communicator.rank))
        stepper.optimizer.add_param_group({"params": [second]})
        stepper((first + second).sum() * (1.0 + communicator.rank))
        return first.item(), second.item()

    assert run_ranks(2, rank) == [(1 - 2 * 1.5, 1 - 1.5)] * 2


def test_what_waits_is_forgotten_with_another_state():
    def rank(communicator):
        communicator.part = communicator.part_of(2)
        weight = nn.Parameter(ndl.ones(2))
        stepper = Stepper(optim.SGD([weight], lr=1), 2)
        saved = {"values": np.full(2, 3.0, "float32"), "axes": [0]}
        state = {"batches": 1, "first": 2.0, "weight": 1.0, "grads": [saved]}
        stepper.backward(weight.sum())
        stepper.load_state_dict(state)
        stepper(weight.sum())
        with pytest.raises(ValueError, match=r"^Stepper: a parameter and its gradient must agree in shape, but got"):
            stepper.load_state_dict(state | {"terms": [[np.ones(2)], [np.ones(3)]]})
        return weight.numpy().tolist()

    assert run_ranks(2, rank) == [[1 - (3 + 1) / 2] * 2] * 2
