"""The base of optimizers: effects of a step on arrays and gradients, clipping, and errors."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

import needle as ndl
from needle import optim
from tests.optim.steps import (
    SHAPES,
    Twins,
    every_optimizer,
    in_torch,
    one_parameter,
    parameters_with_gradients,
    state_arrays,
    tensor,
)

# ---- arrays, gradients and graph of a step ---------------------------------------------------------------------------


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
def test_gradients_are_never_written(make, device):
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
    assert len(kept) == 2 * len(optimizer._new_state(optimizer.param_groups[0]))
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
@pytest.mark.parametrize("order", ["transposed", "every second", "reversed", "broadcast"])
def test_gradients_may_have_any_strides(make, order, device):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((4, 6))
    views = {
        "transposed": lambda: tensor(rng.standard_normal((6, 4)), device).transpose(),
        "every second": lambda: tensor(rng.standard_normal((8, 6)), device)[::2],
        "reversed": lambda: tensor(rng.standard_normal((4, 6)), device)[::-1, ::-1],
        "broadcast": lambda: tensor(rng.standard_normal((4, 1)), device).broadcast_to((4, 6)),
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
    assert {str(array.dtype) for array in state_arrays(optimizer, device)} <= {dtype}
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


@every_optimizer
def test_a_learning_rate_of_zero_moves_nothing(make, device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    start = parameter.numpy()
    make([parameter], lr=0).step()
    np.testing.assert_array_equal(parameter.numpy(), start)


@every_optimizer
def test_the_next_step_updates_the_new_data_of_a_parameter(make, device):
    (parameter,) = parameters_with_gradients((3,), device=device)
    optimizer = make([parameter])
    optimizer.step()
    parameter.data = tensor(np.full(3, 100.0), device)
    optimizer.step()
    assert (np.abs(parameter.numpy() - 100) < 2).all()
    assert (parameter.numpy() != 100).all()


def test_the_learning_rate_can_be_changed_between_steps(device):
    for kind in ("SGD", "Adam", "AdamW"):
        twins = Twins(device)
        make, torch_make = in_torch(kind, lr=0.01, weight_decay=0.1)
        pair = make(twins.net.parameters()), torch_make(twins.twin.parameters())

        def schedule(step, pair=pair):
            pair[0].lr = pair[1].param_groups[0]["lr"] = 0.05 / (1 + step)

        twins.assert_equal_steps(*pair, schedule)


# ---- reset_grad and zero_grad ----------------------------------------------------------------------------------------


@every_optimizer
def test_reset_grad_forgets_all_gradients(make, device):
    params = parameters_with_gradients((3,), (2, 2), device=device)
    optimizer = make(iter(params))  # any iterable
    assert all(a is b for a, b in zip(optimizer.params, params, strict=True))
    optimizer.reset_grad()
    assert [parameter.grad for parameter in params] == [None, None]
    start = [parameter.numpy() for parameter in params]
    optimizer.step()
    for parameter, before in zip(params, start, strict=True):
        np.testing.assert_array_equal(parameter.numpy(), before)


@every_optimizer
def test_zero_grad_is_torch_s_name_of_it(make, device):
    params = parameters_with_gradients((3,), (2, 2), device=device)
    params[1].grad = None
    optimizer = make(params)
    optimizer.zero_grad(set_to_none=False)
    assert params[0].grad.numpy().tolist() == [0, 0, 0]
    assert params[1].grad is None
    optimizer.zero_grad()
    assert params[0].grad is None


# ---- options that are set later --------------------------------------------------------------------------------------

OTHER_VALUES = {  # an option -> another value than its default, and values that are refused
    "lr": (0.3, [-1, float("inf"), float("nan"), "fast", None, True]),
    "weight_decay": (0.2, [-1, float("inf"), float("nan"), None]),
    "momentum": (0.7, [-1, float("inf"), float("nan"), None]),
    "dampening": (0.4, [-1, float("inf"), float("nan"), "no"]),
    "nesterov": (True, [1, "yes", None]),
    "beta1": (0.5, [-1, 1, float("nan"), None]),
    "beta2": (0.5, [-1, 1, float("nan"), None]),
    "betas": ((0.5, 0.6), [(0.5, 1), 0.5, (0.5,), None]),
    "amsgrad": (True, [1, "yes", None]),
    "maximize": (True, [1, "yes", None]),
    "decoupled_weight_decay": (True, [1, "yes", None]),
    "eps": (1e-2, [-1, float("inf"), float("nan"), None]),
    "alpha": (0.5, [-1, 1.5, float("nan"), None]),
    "rho": (0.5, [-1, 1.5, float("nan"), None]),
    "centered": (True, [1, "yes", None]),
    "lr_decay": (0.5, [-1, float("inf"), float("nan"), None]),
    "initial_accumulator_value": (0.5, [-1, float("inf"), float("nan"), None]),
    "momentum_decay": (0.5, [-1, float("inf"), float("nan"), None]),
}
OTHERS = {  # an option -> what it needs to show an effect
    "nesterov": {"momentum": 0.5},
    "amsgrad": {"beta2": 0.5},
    "decoupled_weight_decay": {"weight_decay": 0.1},
}
KINDS = [
    kind
    for kind in vars(optim).values()
    if isinstance(kind, type) and issubclass(kind, optim.Optimizer) and kind is not optim.Optimizer
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_is_heeded_when_it_is_set_later(kind):
    """Steps with an option set after construction equal those with the option in the constructor."""
    options = set(inspect.signature(kind).parameters) - {"params"}
    assert {"lr", "weight_decay"} < options <= OTHER_VALUES.keys()
    for name in options:
        value, refused = OTHER_VALUES[name]
        others = OTHERS.get(name, {})
        results = []
        for first, later in (({name: value}, {}), ({}, {name: value}), ({}, {})):
            params = parameters_with_gradients((3,))
            optimizer = kind(params, **others, **first)
            for option, new in later.items():
                setattr(optimizer, option, new)
            for _ in range(6):  # RAdam divides from its sixth step on
                optimizer.step()
                params[0].grad = params[0].grad * 0.3
            results.append(params[0].numpy().tolist())
        assert results[0] == results[1] != results[2], name
        before = getattr(optimizer, name)
        for wrong in refused:
            with pytest.raises((ValueError, TypeError), match=f"^{kind.__name__}: {name[:4]}"):
                setattr(optimizer, name, wrong)
            assert getattr(optimizer, name) == before
            if not (name == "betas" and wrong is None):
                with pytest.raises((ValueError, TypeError), match=f"^{kind.__name__}: {name[:4]}"):
                    kind(one_parameter(), **{name: wrong})


@every_optimizer
def test_params_may_be_set_later_and_each_keeps_its_state(make, device):
    (first, second, third), (twin, other, _) = (parameters_with_gradients(*[(3,)] * 3, device=device) for _ in range(2))
    optimizer, expected = make([first, second]), make([twin, other])
    for params in ([first, second], [second, first], [third, second]):
        optimizer.params = params
        optimizer.step()
        expected.step()
    np.testing.assert_array_equal(second.numpy(), other.numpy())
    for wrong, error in (([first, first], ValueError), ([], ValueError), (first, TypeError), ([1], TypeError)):
        with pytest.raises(error, match=r": .*params must"):
            optimizer.params = wrong
    assert optimizer.params[0] is third


# ---- clip_grad_norm --------------------------------------------------------------------------------------------------


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


def step_with_a_wrong_gradient():
    (parameter,) = params = one_parameter()
    parameter.grad = ndl.ones(1)
    optim.SGD(params).step()


def step_on(array):
    """A step of one parameter on the memory of this array; nothing may have changed when it fails."""
    parameter = ndl.Tensor.make_const(array, requires_grad=True)
    parameter.grad = ndl.Tensor.make_const(np.ones(array.shape))
    square = (parameter * parameter).sum()
    try:
        optim.SGD([parameter]).step()
    finally:
        square.backward()  # no version has been counted


def read_only():
    array = np.zeros(2)
    array.flags.writeable = False
    return array


NOT_WRITABLE = (
    "step: each parameter must have writable memory, but got a read-only or repeated array of shape {}, as "
    "broadcasting makes it; copy it first"
)
ERRORS = [
    (
        lambda: step_on(read_only()),
        ValueError,
        NOT_WRITABLE.format("(2,)"),
    ),
    (
        lambda: step_on(np.lib.stride_tricks.as_strided(np.zeros(1), (3,), (0,))),
        ValueError,
        NOT_WRITABLE.format("(3,)"),
    ),
    (lambda: optim.SGD([]), ValueError, "SGD: params must hold at least one tensor, but got none"),
    (lambda: optim.Adam(one_parameter()[0]), TypeError, "Adam: params must be a sequence of tensors, but got Tensor"),
    (lambda: optim.Adam(3), TypeError, "Adam: params must be a sequence of tensors, but got int"),
    (lambda: optim.AdamW([np.ones(2)]), TypeError, "AdamW: each of params must be a Tensor, but got ndarray"),
    (
        lambda: optim.SGD([ndl.Tensor([1, 2])]),
        TypeError,
        "SGD: params must have floating dtypes, but got int64",
    ),
    (lambda: optim.SGD(one_parameter(), lr=-1), ValueError, "SGD: lr must lie in [0, inf], but got -1"),
    (lambda: optim.SGD(one_parameter() * 2), ValueError, "SGD: params must differ, but got one of shape (2,) twice"),
    (
        lambda: optim.SGD([one_parameter()[0] * 2]),
        ValueError,
        "SGD: params must be leaves, but got the result of MulScalar(scalar=2)",
    ),
    (lambda: optim.SGD(one_parameter(), lr="fast"), TypeError, "SGD: lr must be a number, but got 'fast'"),
    (
        lambda: optim.Adam(one_parameter(), weight_decay=-1),
        ValueError,
        "Adam: weight_decay must lie in [0, inf], but got -1",
    ),
    (
        step_with_a_wrong_gradient,
        ValueError,
        "step: a gradient must have its tensor's shape (2,), but got (1,)",
    ),
    (
        lambda: optim.SGD(one_parameter()).clip_grad_norm(-1),
        ValueError,
        "clip_grad_norm_: max_norm must lie in [0, inf], but got -1",
    ),
    (
        lambda: optim.SGD(one_parameter()).clip_grad_norm(),
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
