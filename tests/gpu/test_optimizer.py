"""Steps of every optimizer on a GPU: one launch for all parameters, by the rules of the CPU."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import kernels, nn, optim
from needle.kernels import Rule
from needle.kernels.gpu.optimizer import MOST, layout_beside
from tests.gpu.faults import Fault
from tests.gpu.kernels import missing, running
from tests.gpu.shim_device import SHIM

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

DECAYS = [{}, {"weight_decay": 0.1, "maximize": True}]
KINDS = {
    "SGD": (optim.SGD, [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3},
                        {"momentum": 0.9, "nesterov": True}]),
    "Adam": (optim.Adam, [{}, {"amsgrad": True}, {"decoupled_weight_decay": True}]),
    "AdamW": (optim.AdamW, [{}]),
    "NAdam": (optim.NAdam, [{}, {"decoupled_weight_decay": True}]),
    "RAdam": (optim.RAdam, [{}, {"betas": (0.9, 0.5)}, {"decoupled_weight_decay": True}]),
    "Adamax": (optim.Adamax, [{}]),
    "RMSprop": (optim.RMSprop, [{}, {"momentum": 0.5}, {"centered": True}, {"momentum": 0.5, "centered": True}]),
    "Adagrad": (optim.Adagrad, [{"lr_decay": 0.1}]),
    "Adadelta": (optim.Adadelta, [{}]),
}  # fmt: skip
CASES = [
    pytest.param(make, {**options, **decay}, id=f"{name} {options} {decay}")
    for name, (make, given) in KINDS.items()
    for options in given
    for decay in DECAYS
]
SHAPES = [(3, 4), (5,), (), (2, 1, 3, 2), (1030,), (4, 0), (1, 7), (40, 3)]


def parameters(device, shapes=SHAPES, dtype="float32"):
    rng = np.random.default_rng(0)
    return [ndl.Tensor(rng.standard_normal(shape).astype(dtype), device=device) for shape in shapes]


def steps(make, params, count=7, skip=()):
    """The parameters after some steps with random gradients; those in `skip` have none in the second."""
    optimizer, rng = make(params), np.random.default_rng(1)
    for step in range(count):
        for index, parameter in enumerate(params):
            grad = rng.standard_normal(parameter.shape).astype(str(parameter.dtype))
            parameter.grad = None if step == 1 and index in skip else ndl.Tensor(grad, device=parameter.device)
        optimizer.step()
    return optimizer


def assert_like_the_cpu(make, count=7, shapes=SHAPES, dtype="float32", skip=()):
    here, there = parameters(ndl.cpu(), shapes, dtype), parameters(SHIM, shapes, dtype)
    first, second = steps(make, here, count, skip), steps(make, there, count, skip)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=2e-5, atol=2e-6)
    states = first.state_dict()["state"], second.state_dict()["state"]
    assert states[0].keys() == states[1].keys()
    for entry, other in zip(states[0].values(), states[1].values(), strict=True):
        assert entry.keys() == other.keys()
        for name in entry:
            np.testing.assert_allclose(other[name], entry[name], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_every_optimizer(kind, options, run):
    assert_like_the_cpu(lambda params: kind(params, **options))


@pytest.mark.parametrize(("kind", "dtype"), [(optim.SGD, "float16"), (optim.Adam, "float64")])
def test_other_dtypes_take_the_generic_rule(kind, dtype, launches):
    assert_like_the_cpu(kind, count=2, dtype=dtype)
    assert launches == []


def test_parameters_without_a_gradient_are_counted_apart(run):
    assert_like_the_cpu(optim.Adam, skip=(0, 4))


def test_more_parameters_than_one_launch_takes(launches):
    assert_like_the_cpu(optim.Adam, count=2, shapes=[(n % 5 + 1, 3) for n in range(MOST + 7)])
    assert launches == ["adam"] * 4


def test_all_parameters_of_a_group_are_updated_in_one_launch(launches):
    params = parameters(SHIM)
    groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.5}]
    steps(lambda params: optim.RMSprop(groups), params, count=3)
    assert launches == ["rmsprop"] * 6


ORDERS = [(0, 1, 2, 3), (3, 2, 1, 0), (1, 2, 3, 0), (2, 0, 3, 1)]


@pytest.mark.parametrize("of_gradient", ORDERS)
@pytest.mark.parametrize("of_parameter", ORDERS[:3])
def test_gradients_of_any_memory_order(of_parameter, of_gradient, run):
    rng = np.random.default_rng(0)
    theta, grad, buffer = (rng.standard_normal((4, 3, 5, 2)).astype("float32") for _ in range(3))
    expected = theta - 0.5 * (0.9 * buffer + grad)
    orders = of_parameter, of_gradient, of_parameter
    arrays = [in_order(array, order) for array, order in zip((theta, grad, buffer), orders, strict=True)]
    kernels.update_each(arrays[0], [tuple(arrays)], Rule(pytest.fail, "sgd", ("momentum_buffer",)), (0, 0.9, 1, 0.5, 0))
    np.testing.assert_allclose(arrays[0], expected, rtol=1e-6, atol=1e-6)


def in_order(array, order):
    """A copy on the device whose axes lie in memory in that order."""
    return SHIM.array(np.ascontiguousarray(array.transpose(order))).transpose(np.argsort(order))


def test_a_gradient_with_gaps_or_of_equal_elements(run, launches):
    for grad in (SHIM.array(np.arange(24, dtype="float32").reshape(4, 6))[:, ::2], broadcast(3.0, (4, 3))):
        theta = SHIM.array(np.ones((4, 3), "float32"))
        kernels.update_each(theta, [(theta, grad)], Rule(pytest.fail, "average"), (0.5, 0.5))
        np.testing.assert_array_equal(theta, 0.5 + 0.5 * np.asarray(grad))
    assert launches == ["average"] * 2


def broadcast(number, shape):
    return np.broadcast_to(SHIM.array(np.float32(number)), shape)


def test_parameters_with_gaps_take_the_generic_rule(launches):
    base = ndl.zeros(4, 6, device=SHIM)
    parameter = ndl.Tensor.make_const(base.array[:, ::2], requires_grad=True)
    parameter.grad = ndl.ones(4, 3, device=SHIM)
    optim.SGD([parameter], lr=1).step()
    np.testing.assert_array_equal(base.numpy(), [[-1, 0] * 3] * 4)
    assert launches == []


def test_a_state_in_another_memory_order_than_its_parameter_takes_the_generic_rule(launches):
    theta, grad = (SHIM.array(np.ones((2, 3), "float32")) for _ in range(2))
    state = np.arange(6, dtype="float32").reshape(2, 3)
    rule = Rule(lambda theta, grad, state, *_: np.add(theta, state[0], out=theta), "sgd", ("momentum_buffer",))
    kernels.update_each(theta, [(theta, grad, in_order(state, (1, 0)))], rule, (0, 0.9, 1, 0.5, 0))
    np.testing.assert_array_equal(theta, 1 + state)
    assert launches == []


def test_layouts():
    assert layout_beside((4, 6), (24, 4), (24, 4)) == (1, 1, 1, 1, 1, 0, 0, 0)
    assert layout_beside((), (), ()) == (1, 1, 1, 1, 0, 0, 0, 0)
    assert layout_beside((4, 6), (24, 4), (4, 16)) == (2, 6, 1, 1, 1, 4, 0, 0)
    assert layout_beside((2, 3, 4), (48, 16, 4), (4, 32, 8)) == (2, 12, 1, 1, 1, 2, 0, 0)
    assert layout_beside((4, 6), (48, 4), (24, 4)) is None
    assert layout_beside((2,) * 5, (64, 32, 16, 8, 4), (4, 8, 16, 32, 64)) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("kind", "options"), [(optim.Adam, {"amsgrad": True}), (optim.Adamax, {}),
                                               (optim.RMSprop, {"centered": True})])  # fmt: skip
def test_infinities_and_nan_go_where_the_cpu_sends_them(kind, options, value, run):
    results = []
    for device in (ndl.cpu(), SHIM):
        parameter = ndl.zeros(3, device=device)
        optimizer = kind([parameter], **options)
        for grad in ([value, 1, -value], [1, 1, 1]):
            parameter.grad = ndl.Tensor(np.array(grad, "float32"), device=device)
            with np.errstate(all="ignore"):
                optimizer.step()
        results.append(parameter.numpy())
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)


def test_an_infinite_parameter_without_decay_leaves_the_state_finite(run):
    parameter = ndl.full(2, np.inf, device=SHIM)
    parameter.grad = ndl.ones(2, device=SHIM)
    optimizer = optim.SGD([parameter], momentum=0.9)
    optimizer.step()
    assert np.isfinite(optimizer.state_dict()["state"][0]["momentum_buffer"]).all()


def test_parameters_that_share_memory_are_updated_in_turn(launches):
    base = ndl.zeros(4, device=SHIM)
    params = [ndl.Tensor.make_const(base.array[start:], requires_grad=True) for start in (0, 2)]
    for parameter in params:
        parameter.grad = ndl.ones(*parameter.shape, device=SHIM)
    optim.SGD(params, lr=1).step()
    np.testing.assert_array_equal(base.numpy(), [-1, -1, -2, -2])
    assert launches == ["sgd"] * 2


def test_averages_of_weights(run, launches):
    model = nn.Linear(3, 2, device=SHIM)
    average = optim.ExponentialMovingAverage(model, decay=0.75)
    for step in range(3):
        model.weight.data = ndl.full_like(model.weight, step)
        average.update()
    with average.applied():
        np.testing.assert_allclose(model.weight.numpy(), 0.75 * 0.25 + 0.25 * 2, rtol=1e-6)
    assert launches == ["average"] * 2


def test_a_step_moves_whole_sectors():
    params = parameters(SHIM, [(1024,), (4096,)])
    with running(checked=True, measure=True) as run:
        steps(optim.Adam, params, count=1)
    assert run.used("adam", write=False) >= 0.95
    assert run.used("adam", write=True) >= 0.95


ADAM = partial(test_every_optimizer, optim.Adam, {"amsgrad": True})
ORDER = partial(test_gradients_of_any_memory_order, ORDERS[0], ORDERS[3])
FAULTS = [
    Fault("optimizer.cu", "elements past the end", "min(p.count, start + all.piece)", "start + all.piece", ADAM),
    Fault("optimizer.cu", "another's block", "first_block <= (int)blockIdx.x", "first_block < (int)blockIdx.x", ADAM),
    Fault("optimizer.cu", "a state left unwritten", "p.state[k][i] = state[k];", "p.state[0][i] = state[0];", ADAM),
    Fault("optimizer.cu", "strides left out", "% p.sizes[axis - 1] * p.strides[axis]", "% p.sizes[axis - 1]", ORDER),
    Fault("optimizer.cu", "0·θ", "decay ? grad + decay * theta : grad", "grad + decay * theta",
          test_an_infinite_parameter_without_decay_leaves_the_state_finite),
    Fault("optimizer.cu", "NaN lost", "a > b || a != a ? a : b", "fmaxf(a, b)",
          partial(test_infinities_and_nan_go_where_the_cpu_sends_them, optim.RMSprop, {"centered": True}, np.inf)),
]  # fmt: skip
