"""Optimizers: their rules against formulas and torch, and what they do to arrays, gradients and memory."""

from __future__ import annotations

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from threadpoolctl import ThreadpoolController

import needle as ndl
from needle import nn, optim, tuning

torch.set_num_threads(1)  # the arrays are small: more threads only wait for each other

STEPS = 50
RTOL = 1e-11


def tensor(array, device=None):
    return ndl.Tensor(array, device=device)


def parameters_with_gradients(*shapes, dtype="float64", device=None, seed=0):
    """Parameters of those shapes with gradients, all drawn anew."""
    draws = np.random.default_rng(seed)
    params = [tensor(draws.standard_normal(shape).astype(dtype), device) for shape in shapes]
    for parameter in params:
        parameter.grad = tensor(draws.standard_normal(parameter.shape).astype(dtype), device)
    return params


# ---- the rules -------------------------------------------------------------------------------------------------------


class Twins:
    """The same small network in needle and in torch, in float64, with parameters of four shapes.

    The convolution has no bias: before a batch norm its gradient is rounding noise, of which Adam makes whole steps.
    """

    def __init__(self, device):
        draws = np.random.default_rng(3)
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False, device=device, dtype="float64"),
            nn.BatchNorm2d(3, device=device, dtype="float64"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(27, 4, device=device, dtype="float64"),
        )
        self.twin = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3, bias=False),
            torch.nn.BatchNorm2d(3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(27, 4),
        ).double()
        with torch.no_grad():
            for parameter, other in zip(self.net.parameters(), self.twin.parameters(), strict=True):
                other.copy_(torch.from_numpy(self.in_torch_layout(parameter)))
        self.batches = [(draws.standard_normal((8, 1, 5, 5)), draws.integers(0, 4, 8)) for _ in range(7)]
        self.device = device

    @staticmethod
    def in_torch_layout(parameter):
        array = parameter.numpy()
        if array.ndim == 2:  # Linear's weight (in, out) and bias (1, out)
            array = array.T if array.shape[0] > 1 else array[0]
        return np.ascontiguousarray(array)

    def assert_equal_steps(self, optimizer, torch_optimizer, before_step=lambda step: None):
        start = [parameter.numpy() for parameter in self.net.parameters()]
        for step in range(STEPS):
            x, labels = self.batches[step % len(self.batches)]
            optimizer.reset_grad()
            torch_optimizer.zero_grad()
            loss = nn.CrossEntropyLoss()(self.net(tensor(x, self.device)), tensor(labels, self.device))
            torch_loss = torch.nn.CrossEntropyLoss()(self.twin(torch.from_numpy(x)), torch.from_numpy(labels))
            np.testing.assert_allclose(loss.item(), torch_loss.item(), rtol=1e-10, err_msg=f"step {step}")
            loss.backward(create_graph=False)
            torch_loss.backward()
            before_step(step)
            optimizer.step()
            torch_optimizer.step()
        for parameter, other, first in zip(self.net.parameters(), self.twin.parameters(), start, strict=True):
            assert np.abs(parameter.numpy() - first).max() > 1e-3
            np.testing.assert_allclose(
                self.in_torch_layout(parameter), other.detach().numpy(), rtol=1e-10, atol=1e-11, strict=True
            )


def in_torch(kind, **options):
    """Needle's and torch's optimizer of one kind; options of different names in pairs."""
    renamed = {"beta1": 0, "beta2": 1}
    betas = [options.get("beta1", 0.9), options.get("beta2", 0.999)]
    torch_options = {name: value for name, value in options.items() if name not in renamed}
    if kind != "SGD":
        torch_options["betas"] = betas
    return (
        lambda params: getattr(optim, kind)(params, **options),
        lambda params: getattr(torch.optim, kind)(params, **torch_options),
    )


@pytest.mark.parametrize(
    ("make", "torch_make"),
    [
        in_torch("SGD", lr=0.1),
        in_torch("SGD", lr=0.1, weight_decay=0.05),
        in_torch("SGD", lr=0.05, momentum=0.9, dampening=0),
        in_torch("SGD", lr=0.05, momentum=0.9, dampening=0, weight_decay=0.05),
        in_torch("SGD", lr=0.05, momentum=0.9, dampening=0, nesterov=True),
        in_torch("SGD", lr=0.05, momentum=0.9, dampening=0, nesterov=True, weight_decay=0.05),
        in_torch("Adam", lr=0.01),
        in_torch("Adam", lr=0.01, weight_decay=0.05),
        in_torch("Adam", lr=0.01, beta1=0.5, beta2=0.9, eps=1e-3),
        in_torch("Adam", lr=0.01, beta1=0.0, beta2=0.9),
        in_torch("AdamW", lr=0.01),
        in_torch("AdamW", lr=0.01, weight_decay=0.3),
        in_torch("AdamW", lr=0.01, weight_decay=0.0),
    ],
    ids=[
        "SGD",
        "SGD, decay",
        "momentum",
        "momentum, decay",
        "nesterov",
        "nesterov, decay",
        "Adam",
        "Adam, decay",
        "Adam, options",
        "Adam, beta1=0",
        "AdamW",
        "AdamW, decay",
        "AdamW, no decay",
    ],
)
def test_a_network_learns_as_with_torch(make, torch_make, device):
    twins = Twins(device)
    twins.assert_equal_steps(make(twins.net.parameters()), torch_make(twins.twin.parameters()))


def test_the_learning_rate_can_be_changed_between_steps(device):
    for kind in ("SGD", "Adam", "AdamW"):
        twins = Twins(device)
        make, torch_make = in_torch(kind, lr=0.01, weight_decay=0.1)
        pair = make(twins.net.parameters()), torch_make(twins.twin.parameters())

        def schedule(step, pair=pair):
            pair[0].lr = pair[1].param_groups[0]["lr"] = 0.05 / (1 + step)

        twins.assert_equal_steps(*pair, schedule)


def formula_of_the_course(momentum, weight_decay, lr=0.1):
    """The rule of SGD where dampening is not given."""

    def step(t, parameter, grad, u):
        grad = grad + weight_decay * parameter
        u = momentum * u + (1 - momentum) * grad
        return parameter - lr * u, u

    return step


def formula_of_adam(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=0.0):
    def step(t, parameter, grad, state):
        m, v = state if np.ndim(state) else (0.0, 0.0)
        parameter = parameter * (1 - lr * decoupled)
        grad = grad + weight_decay * parameter
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * grad**2
        return parameter - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), np.array([m, v])

    return step


FORMULAS = {
    "SGD": (lambda params: optim.SGD(params, lr=0.1), formula_of_the_course(0.0, 0.0)),
    "SGD by default": (lambda params: optim.SGD(params), formula_of_the_course(0.0, 0.0, lr=0.01)),
    "SGD, momentum": (lambda params: optim.SGD(params, lr=0.1, momentum=0.9), formula_of_the_course(0.9, 0.0)),
    "SGD by position": (lambda params: optim.SGD(params, 0.1, 0.5, 0.05), formula_of_the_course(0.5, 0.05)),
    "SGD, dampening 1": (
        lambda params: optim.SGD(params, 0.1, dampening=1.0),
        lambda t, parameter, grad, u: (parameter, u),
    ),
    "Adam by default": (lambda params: optim.Adam(params), formula_of_adam()),
    "Adam by position": (
        lambda params: optim.Adam(params, 0.02, 0.8, 0.99, 1e-4, 0.1),
        formula_of_adam(0.02, 0.8, 0.99, 1e-4, 0.1),
    ),
    "AdamW by default": (lambda params: optim.AdamW(params), formula_of_adam(lr=0.001, decoupled=0.01)),
}
SHAPES = [(3, 4), (5,), (), (2, 1, 3, 2)]


@pytest.mark.parametrize(("make", "formula"), FORMULAS.values(), ids=FORMULAS)
def test_steps_follow_the_formula(make, formula, device):
    params = parameters_with_gradients(*SHAPES, device=device)
    expected, states = [parameter.numpy() for parameter in params], [0.0] * len(params)
    optimizer, draws = make(params), np.random.default_rng(1)
    for t in range(1, STEPS + 1):
        for i, parameter in enumerate(params):
            grad = np.asarray(draws.standard_normal(parameter.shape))
            parameter.grad = tensor(grad, device)
            expected[i], states[i] = formula(t, expected[i], grad, states[i])
        optimizer.step()
    for parameter, array in zip(params, expected, strict=True):
        np.testing.assert_allclose(parameter.numpy(), array, rtol=RTOL, atol=1e-13)


def test_adam_counts_its_steps_for_all_parameters_together(device):
    late, other = parameters_with_gradients((3,), (3,), device=device)
    start, grad = late.numpy(), late.grad
    optimizer, late.grad = optim.Adam([late, other]), None
    for _ in range(4):
        optimizer.step()
    np.testing.assert_array_equal(late.numpy(), start)
    late.grad = grad
    optimizer.step()
    assert optimizer.t == 5
    expected, _ = formula_of_adam()(5, start, grad.numpy(), 0.0)
    np.testing.assert_allclose(late.numpy(), expected, rtol=RTOL)


# ---- what a step does to its surroundings ----------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda params, **options: optim.SGD(params, **options),
    "SGD, decay": lambda params, **options: optim.SGD(params, weight_decay=0.1, **options),
    "momentum": lambda params, **options: optim.SGD(params, momentum=0.9, weight_decay=0.1, **options),
    "nesterov": lambda params, **options: optim.SGD(params, momentum=0.9, dampening=0, nesterov=True, **options),
    "nesterov, decay": lambda params, **options: optim.SGD(
        params, momentum=0.9, weight_decay=0.1, dampening=0, nesterov=True, **options
    ),
    "Adam": lambda params, **options: optim.Adam(params, **options),
    "Adam, decay": lambda params, **options: optim.Adam(params, weight_decay=0.1, **options),
    "AdamW": lambda params, **options: optim.AdamW(params, weight_decay=0.1, **options),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def state_arrays(optimizer, device):
    """Every array that an optimizer keeps, found in its attributes."""

    def walk(value):
        if isinstance(value, device.array_type()):
            yield value
        elif isinstance(value, ndl.Tensor):
            assert value in optimizer.params  # the state is made of arrays: no tensor, no graph
        elif isinstance(value, (list, tuple, dict)):
            for entry in value.values() if isinstance(value, dict) else value:
                yield from walk(entry)

    return list(walk(vars(optimizer)))


@every_optimizer
def test_parameters_without_gradient_are_skipped(make, device):
    params = parameters_with_gradients((3,), (2, 2), (4,), device=device)
    start = [parameter.numpy() for parameter in params]
    params[1].grad = None
    optimizer = make(params)
    for _ in range(3):
        optimizer.step()
    changed = [bool((parameter.numpy() != before).all()) for parameter, before in zip(params, start, strict=True)]
    assert changed == [True, False, True]
    np.testing.assert_array_equal(params[1].numpy(), start[1])
    assert params[1].grad is None


@every_optimizer
def test_gradients_are_never_written_to(make, device):
    params = parameters_with_gradients((3, 4), (5,), device=device)
    grads = [parameter.grad for parameter in params]
    before = [grad.numpy() for grad in grads]
    optimizer = make(params)
    for _ in range(3):
        optimizer.step()
    for parameter, grad, array in zip(params, grads, before, strict=True):
        assert parameter.grad is grad
        np.testing.assert_array_equal(grad.numpy(), array)


@every_optimizer
def test_a_gradient_may_be_shared_with_another_parameter_or_be_read_only(make):
    shared = np.ones(3)
    shared.flags.writeable = False
    params = [tensor(np.zeros(3)) for _ in range(2)]
    for parameter in params:
        parameter.grad = ndl.Tensor.make_const(shared)
    make(params).step()
    np.testing.assert_array_equal(params[0].numpy(), params[1].numpy())
    assert (params[0].numpy() < 0).all()


@every_optimizer
def test_the_array_is_updated_in_place(make, device):
    params = parameters_with_gradients((3, 4), (5,), (), device=device)
    arrays, start = [parameter.array for parameter in params], [parameter.numpy() for parameter in params]
    views = [parameter.detach() for parameter in params]
    optimizer = make(params)
    for _ in range(2):
        optimizer.step()
    for parameter, array, view, before in zip(params, arrays, views, start, strict=True):
        assert parameter.array is array
        np.testing.assert_array_equal(view.numpy(), parameter.numpy())
        assert (parameter.numpy() != before).all()


@every_optimizer
def test_the_state_has_no_graph_and_is_made_once(make, device):
    params = parameters_with_gradients((3, 4), (5,), device=device)
    optimizer = make(params)
    optimizer.step()
    kept = state_arrays(optimizer, device)
    assert kept
    assert not any(array is parameter.array for array in kept for parameter in params)
    for _ in range(3):
        optimizer.step()
    assert [id(array) for array in state_arrays(optimizer, device)] == [id(array) for array in kept]
    for parameter in params:
        assert parameter.is_leaf()
        assert parameter.requires_grad
        assert parameter.inputs == ()


@every_optimizer
def test_a_gradient_with_a_graph_leaves_none_behind(make, device):
    x = tensor(np.array([1.0, 2.0, 3.0]), device)
    (x * x * x).sum().backward()
    assert not x.grad.is_leaf()
    optimizer = make([x])
    optimizer.step()
    assert x.is_leaf()
    assert len(ndl.autograd.find_topo_sort([x])) == 1
    state_arrays(optimizer, device)


def test_backward_knows_that_a_step_changed_its_values(device):
    x = tensor(np.array([1.0, 2.0]), device)
    y = (x * x).sum()
    y.backward()
    optim.SGD([x]).step()
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.backward()


@every_optimizer
def test_a_step_makes_no_temporaries_of_the_size_of_the_parameter(make):
    (parameter,) = parameters_with_gradients((3000, 3000), dtype="float32")
    optimizer = make([parameter])
    optimizer.step()
    tracemalloc.start()
    try:
        for _ in range(2):
            optimizer.step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < parameter.array.nbytes / 10  # a stretch for each of two threads


@every_optimizer
@pytest.mark.parametrize("order", ["transposed", "every second", "reversed", "broadcast"])
def test_gradients_may_have_any_strides(make, order, device):
    draws = np.random.default_rng(0)
    start = draws.standard_normal((4, 6))
    views = {
        "transposed": lambda: tensor(draws.standard_normal((6, 4)), device).transpose(),
        "every second": lambda: tensor(draws.standard_normal((8, 6)), device)[::2],
        "reversed": lambda: tensor(draws.standard_normal((4, 6)), device)[::-1, ::-1],
        "broadcast": lambda: tensor(draws.standard_normal((4, 1)), device).broadcast_to((4, 6)),
    }
    grads = [views[order]().detach() for _ in range(3)]
    assert not any(grad.array.flags.c_contiguous for grad in grads)
    params = [tensor(start, device), tensor(start, device)]
    for parameter, copied in zip(params, (False, True), strict=True):
        optimizer = make([parameter])
        for grad in grads:
            parameter.grad = tensor(grad.numpy(), device) if copied else grad
            optimizer.step()
    np.testing.assert_allclose(params[0].numpy(), params[1].numpy(), rtol=1e-14)


@every_optimizer
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_step_keeps_the_dtype(make, dtype, device):
    (parameter,) = parameters_with_gradients((3, 4), dtype=dtype, device=device)
    (exact,) = parameters_with_gradients((3, 4), dtype="float64", device=device)
    optimizer, exact_optimizer = make([parameter]), make([exact])
    for _ in range(3):
        optimizer.step()
        exact_optimizer.step()
    assert parameter.dtype == dtype
    assert {str(array.dtype) for array in state_arrays(optimizer, device)} == {dtype}
    tolerance = {"float16": 1e-2, "float32": 1e-5, "float64": 0}[dtype]
    np.testing.assert_allclose(parameter.numpy(), exact.numpy(), rtol=tolerance, atol=tolerance)


@every_optimizer
def test_parameters_of_several_dtypes(make, device):
    params = [
        *parameters_with_gradients((3,), dtype="float32", device=device),
        *parameters_with_gradients((3,), dtype="float64", device=device),
    ]
    optimizer = make(params)
    optimizer.clip_grad_norm(0.1)
    assert [str(parameter.grad.dtype) for parameter in params] == ["float32", "float64"]
    optimizer.step()
    assert [str(parameter.dtype) for parameter in params] == ["float32", "float64"]
    np.testing.assert_allclose(params[0].numpy(), params[1].numpy(), rtol=1e-5)


# ---- together, by stretches, on threads ------------------------------------------------------------------------------

MANY = [(3, 4), (5,), (), (2, 1, 3, 2), (40, 3), (1, 7), (64,)]


def alone(make, shapes, change=lambda step, params: None, steps=4, **options):
    """Parameters after some steps, each with an optimizer of its own: nothing is updated together."""
    return stepped(lambda params: [make([parameter]) for parameter in params], shapes, change, steps, **options)


def stepped(make_all, shapes, change=lambda step, params: None, steps=4, **options):
    params = parameters_with_gradients(*shapes, **options)
    optimizers = make_all(params)
    for step in range(steps):
        draws = np.random.default_rng(step)
        for parameter in params:
            grad = draws.standard_normal(parameter.shape).astype(str(parameter.dtype))
            parameter.grad = tensor(grad, parameter.device)
        change(step, params)
        for optimizer in optimizers:
            optimizer.step()
    return [parameter.numpy() for parameter in params]


def assert_same_bits(found, expected):
    for array, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, other, strict=True)


@every_optimizer
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_parameters_are_updated_together_as_each_alone(make, dtype, device):
    optimizers = []

    def together(params):
        optimizers.append(make(params))
        return optimizers

    found = stepped(together, MANY, dtype=dtype, device=device)
    assert [len(pool.parts) for pool in optimizers[0]._pools] == [len(MANY)]
    assert_same_bits(found, alone(make, MANY, dtype=dtype, device=device))


@pytest.mark.parametrize("absent", [0, 2])
@pytest.mark.parametrize("make", [OPTIMIZERS["momentum"], OPTIMIZERS["nesterov"]])
def test_gradients_may_be_absent_in_any_step(make, absent, device):
    def change(step, params):
        if step == absent:
            params[1].grad = params[4].grad = None

    found = stepped(lambda params: [make(params)], MANY, change, device=device)
    assert_same_bits(found, alone(make, MANY, change, device=device))


@every_optimizer
def test_one_of_many_parameters_moves_to_another_device_and_back(make, device):
    def change(step, params):
        place = device if step == 2 else ndl.cpu()
        if params[1].device != place:
            params[1].data, params[1].grad = params[1].detach().to(place), params[1].grad.detach().to(place)

    def plain(step, params):
        pass

    found = stepped(lambda params: [make(params)], MANY, change, steps=5, device=ndl.cpu())
    for array, other in zip(found, alone(make, MANY, plain, steps=5, device=ndl.cpu()), strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-12)


@every_optimizer
def test_the_state_of_a_parameter_that_moved_while_another_was_absent_is_not_lost(make, device):
    def change(step, params):
        place = device if step == 2 else ndl.cpu()
        if params[1].device != place:
            params[1].data, params[1].grad = params[1].detach().to(place), params[1].grad.detach().to(place)
        if step == 2:
            params[2].grad = None

    def absent(step, params):
        if step == 2:
            params[2].grad = None

    found = stepped(lambda params: [make(params)], MANY, change, steps=5, device=ndl.cpu())
    for i, (array, other) in enumerate(
        zip(found, stepped(lambda params: [make(params)], MANY, absent, steps=5), strict=True)
    ):
        np.testing.assert_allclose(array, other, rtol=1e-12, err_msg=str(i))


@every_optimizer
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original(make, copied):
    params = parameters_with_gradients(*MANY)
    optimizer = make(params)
    optimizer.step()
    other = copied(optimizer)
    for twin, parameter in zip(other.params, params, strict=True):
        twin.grad = parameter.grad
    for _ in range(2):
        optimizer.step()
        other.step()
    assert_same_bits([twin.numpy() for twin in other.params], [parameter.numpy() for parameter in params])


@every_optimizer
def test_a_parameter_that_comes_twice_is_updated_twice(make, device):
    params = parameters_with_gradients(*MANY, device=device)
    twice = parameters_with_gradients(*MANY, device=device)
    make([*params, params[0]]).step()
    make(twice).step()
    make(twice[:1]).step()
    assert_same_bits([parameter.numpy() for parameter in params], [parameter.numpy() for parameter in twice])


@every_optimizer
@pytest.mark.parametrize(
    "shapes", [[(700, 500), (3, 100000), (1, 300000), (50,)], [*MANY, (600, 400)]], ids=["big", "both"]
)
def test_big_parameters_are_updated_by_stretches(make, shapes, monkeypatch):
    results = []
    for stretch, count in (1 << 40, 1), (1 << 16, 1), (1 << 16, 2):
        monkeypatch.setattr(tuning, "STEP_CHUNK_ELEMENTS", stretch)
        with ThreadpoolController().limit(limits=count, user_api="blas"):
            results.append(stepped(lambda params: [make(params)], shapes, dtype="float32"))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@every_optimizer
def test_big_gradients_may_have_any_strides(make):
    results = []
    for order in "CF":
        (parameter,) = parameters_with_gradients((700, 500))
        parameter.grad = ndl.Tensor.make_const(np.asarray(parameter.grad.array, order=order))
        optimizer = make([parameter])
        for _ in range(2):
            optimizer.step()
        results.append(parameter.numpy())
    assert_same_bits(*[[result] for result in results])


@every_optimizer
def test_a_learning_rate_of_zero_moves_nothing(make, device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    start = parameter.numpy()
    make([parameter], lr=0).step()
    np.testing.assert_array_equal(parameter.numpy(), start)


@every_optimizer
def test_new_data_in_a_parameter_is_what_the_next_step_changes(make, device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    optimizer = make([parameter])
    optimizer.step()
    parameter.data = tensor(np.full(3, 100.0), device)
    optimizer.step()
    assert (np.abs(parameter.numpy() - 100) < 2).all()
    assert (parameter.numpy() != 100).all()


# ---- reset_grad and clip_grad_norm -----------------------------------------------------------------------------------


@every_optimizer
def test_reset_grad_forgets_all_gradients(make, device):
    params = parameters_with_gradients((3,), (2, 2), device=device)
    optimizer = make(iter(params))  # any iterable
    assert optimizer.params == params
    optimizer.reset_grad()
    assert [parameter.grad for parameter in params] == [None, None]
    start = [parameter.numpy() for parameter in params]
    optimizer.step()
    for parameter, before in zip(params, start, strict=True):
        np.testing.assert_array_equal(parameter.numpy(), before)


@pytest.mark.parametrize("max_norm", [0, 0.25, 3, 1e3])
def test_clip_grad_norm_as_in_torch(max_norm, device):
    params = parameters_with_gradients(*SHAPES, (7,), device=device)
    params[-1].grad = None
    torch_params = [torch.from_numpy(parameter.numpy()).requires_grad_() for parameter in params]
    for parameter, twin in zip(params, torch_params, strict=True):
        if parameter.grad is not None:
            twin.grad = torch.from_numpy(parameter.grad.numpy())
    norm = optim.SGD(params).clip_grad_norm(max_norm)
    torch_norm = torch.nn.utils.clip_grad_norm_(torch_params, max_norm)
    assert norm.shape == ()
    assert not norm.requires_grad
    np.testing.assert_allclose(norm.item(), torch_norm.item(), rtol=1e-13)
    for parameter, twin in zip(params, torch_params, strict=True):
        if twin.grad is None:
            assert parameter.grad is None
        else:
            np.testing.assert_allclose(parameter.grad.numpy(), twin.grad.numpy(), rtol=1e-13, strict=True)
            assert parameter.grad.is_leaf()


def test_clip_grad_norm_does_not_write_into_the_old_gradients(device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    grad, before = parameter.grad, parameter.grad.numpy()
    optim.SGD([parameter]).clip_grad_norm(1e-3)
    np.testing.assert_array_equal(grad.numpy(), before)
    assert np.linalg.norm(parameter.grad.numpy()) < 1.1e-3


def test_clip_grad_norm_of_zero_gradients(device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    parameter.grad = ndl.zeros(3, device=device, dtype="float64")
    assert optim.SGD([parameter]).clip_grad_norm(1).item() == 0
    assert parameter.grad.numpy().tolist() == [0, 0, 0]


def test_clip_grad_norm_is_a_quarter_by_default(device):
    (parameter,) = parameters_with_gradients((30,), device=device)
    optim.Adam([parameter]).clip_grad_norm()
    np.testing.assert_allclose(np.linalg.norm(parameter.grad.numpy()), 0.25, rtol=1e-5)


def test_clip_grad_norm_of_float16_squares_without_overflow(device):
    parameter = tensor(np.zeros(1000, np.float16), device)
    parameter.grad = tensor(np.full(1000, 300, np.float16), device)
    norm = optim.SGD([parameter]).clip_grad_norm(100)
    np.testing.assert_allclose(norm.item(), 300 * np.sqrt(1000), rtol=1e-3)
    assert parameter.grad.dtype == "float16"
    np.testing.assert_allclose(parameter.grad.numpy(), np.full(1000, 100 / np.sqrt(1000)), rtol=1e-2)


# ---- errors ----------------------------------------------------------------------------------------------------------


def one():
    return [ndl.ones(2, requires_grad=True)]


def step_with_a_wrong_gradient():
    (parameter,) = params = one()
    parameter.grad = ndl.ones(1)
    optim.SGD(params).step()


ERRORS = [
    (lambda: optim.SGD([]), ValueError, "SGD: params must hold at least one tensor, but got none"),
    (lambda: optim.Adam(one()[0]), TypeError, "Adam: params must be a sequence of tensors, but got Tensor"),
    (lambda: optim.Adam(3), TypeError, "Adam: params must be a sequence of tensors, but got int"),
    (lambda: optim.AdamW([np.ones(2)]), TypeError, "AdamW: each of params must be a Tensor, but got ndarray"),
    (
        lambda: optim.SGD([ndl.Tensor([1, 2])]),
        TypeError,
        "SGD: params must have floating dtypes, but got int64",
    ),
    (lambda: optim.SGD(one(), lr=-1), ValueError, "SGD: lr must lie in [0, inf], but got -1"),
    (lambda: optim.SGD(one(), lr="fast"), TypeError, "SGD: lr must be a number, but got 'fast'"),
    (lambda: optim.SGD(one(), momentum=-0.1), ValueError, "SGD: momentum must lie in [0, inf], but got -0.1"),
    (lambda: optim.Adam(one(), weight_decay=-1), ValueError, "Adam: weight_decay must lie in [0, inf], but got -1"),
    (lambda: optim.Adam(one(), beta1=1), ValueError, "Adam: beta1 must lie in [0, 1), but got 1"),
    (lambda: optim.AdamW(one(), beta2=-0.5), ValueError, "AdamW: beta2 must lie in [0, 1), but got -0.5"),
    (lambda: optim.Adam(one(), eps=-1e-8), ValueError, "Adam: eps must lie in [0, inf], but got -1e-08"),
    (
        lambda: optim.SGD(one(), nesterov=True),
        ValueError,
        "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.0 and 0.0",
    ),
    (
        lambda: optim.SGD(one(), momentum=0.9, nesterov=True),
        ValueError,
        "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.9 and 0.9",
    ),
    (
        step_with_a_wrong_gradient,
        ValueError,
        "step: a gradient must have its tensor's shape (2,), but got (1,)",
    ),
    (
        lambda: optim.SGD(one()).clip_grad_norm(-1),
        ValueError,
        "clip_grad_norm: max_norm must lie in [0, inf], but got -1",
    ),
    (
        lambda: optim.SGD(one()).clip_grad_norm(),
        ValueError,
        "clip_grad_norm: at least one parameter must have a gradient, but got none",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_the_base_has_no_rule():
    class Blank(optim.Optimizer):
        pass

    (parameter,) = parameters_with_gradients((2,))
    with pytest.raises(NotImplementedError, match=r"^Blank: the rule is not defined$"):
        Blank([parameter], 0.1, 0.0).step()


@pytest.mark.parametrize("many", [0, 6])
def test_parameters_on_one_memory_are_updated_in_turns(device, many):
    """A tensor and a view of it: each takes its step, whether small parameters are pooled or not."""
    whole = ndl.Tensor(np.zeros((2, 3)), device=device)
    parameters = [whole, ndl.Tensor.make_const(whole.array.reshape(-1), requires_grad=True)]
    parameters += [ndl.Tensor(np.zeros(2), device=device) for _ in range(many)]
    optimizer = optim.SGD(parameters, lr=1.0)
    for parameter in parameters:
        parameter.grad = ndl.ones_like(parameter)
    optimizer.step()
    assert (whole.numpy() == -2).all()
    assert all((parameter.numpy() == -1).all() for parameter in parameters[2:])
