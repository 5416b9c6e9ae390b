"""Parameter groups: options of their own, attributes that read and set them, and what they may hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import optim
from tests.optim.steps import MANY, assert_same_bits, every_optimizer, one_parameter, parameters_with_gradients

STRANGE = (
    "SGD: each key of a group must be one of params, lr, weight_decay, maximize, momentum, dampening, nesterov or a "
    "note of schedulers, but got 'learning_rate'"
)


def split(params, **options):
    """Two groups: every second parameter, and the others with options of their own."""
    return [{"params": params[::2]}, {"params": params[1::2], **options}]


@every_optimizer
def test_each_group_is_updated_as_by_an_optimizer_of_its_own(make, device):
    shapes = [*MANY, *MANY, (300, 90)]
    params, twins = (parameters_with_gradients(*shapes, device=device) for _ in range(2))
    optimizers = [
        [make(split(params, lr=0.3, weight_decay=0.2))],
        [make(twins[::2]), make([{"params": twins[1::2], "lr": 0.3, "weight_decay": 0.2}])],
    ]
    for step in range(4):
        for group in params, twins:
            group[step].grad = None  # parameters whose steps differ
        for each in optimizers:
            for optimizer in each:
                optimizer.step()
    assert_same_bits([p.numpy() for p in params], [p.numpy() for p in twins])


@pytest.mark.parametrize(
    ("kind", "options", "other"),
    [
        ("SGD", {"lr": 0.1, "dampening": 0.0, "momentum": 0.9}, {"lr": 0.2, "nesterov": True}),
        ("SGD", {"lr": 0.1, "dampening": 0.0}, {"momentum": 0.5, "weight_decay": 0.1, "maximize": True}),
        ("Adam", {"lr": 0.1}, {"lr": 0.02, "betas": (0.5, 0.6), "weight_decay": 0.1, "amsgrad": True}),
        ("AdamW", {"lr": 0.1, "maximize": True}, {"weight_decay": 0.3, "eps": 1e-3}),
    ],
)
def test_groups_as_in_torch(kind, options, other, device):
    params = parameters_with_gradients(*MANY, device=device)
    twins = [torch.from_numpy(parameter.numpy()).requires_grad_() for parameter in params]
    optimizer = getattr(optim, kind)(split(params, **other), **options)
    torch_optimizer = getattr(torch.optim, kind)(split(twins, **other), **options)
    rng = np.random.default_rng(0)
    for step in range(50):
        for parameter, twin in zip(params, twins, strict=True):
            grad = rng.standard_normal(parameter.shape)
            parameter.grad, twin.grad = ndl.Tensor(grad, device=device), torch.from_numpy(np.asarray(grad))
        for groups in optimizer.param_groups, torch_optimizer.param_groups:
            groups[1]["lr"] = 0.01 * (step + 1)
        optimizer.step()
        torch_optimizer.step()
    for parameter, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_an_attribute_reads_the_first_group_and_sets_all():
    w, b = parameters_with_gradients((3,), (2,))
    optimizer = optim.Adam([{"params": w, "lr": 0.5}, {"params": iter([b]), "betas": (0.8, 0.9)}], lr=0.1, beta2=0.99)
    assert [parameter is own for parameter, own in zip((w, b), optimizer.params, strict=True)] == [True, True]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert (optimizer.lr, optimizer.betas, optimizer.beta2) == (0.5, (0.9, 0.99), 0.99)
    first = optimizer.param_groups[0]
    optimizer.lr = 0.3
    optimizer.beta1 = 0.7
    assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [
        (0.3, (0.7, 0.99)),
        (0.3, (0.7, 0.9)),
    ]
    with pytest.raises(ValueError, match=r"^Adam: lr must lie"):
        optimizer.lr = -1
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]
    extra = ndl.ones(1)
    optimizer.add_param_group({"params": extra, "eps": 1})
    assert optimizer.params[2] is extra
    assert optimizer.param_groups[0] is first
    for wrong, message in ({"params": extra}, "params must differ"), ({"params": ndl.ones(2), "lr": -1}, "lr must lie"):
        with pytest.raises(ValueError, match=f"^Adam: {message}"):
            optimizer.add_param_group(wrong)
    assert len(optimizer.param_groups) == 3
    assert (optimizer.param_groups[2]["lr"], optimizer.param_groups[2]["eps"]) == (0.1, 1.0)  # as in the constructor


def test_an_option_that_contradicts_another_group_changes_none():
    w, b = parameters_with_gradients((3,), (2,))
    optimizer = optim.SGD([{"params": w}, {"params": b, "nesterov": True}], momentum=0.9)
    with pytest.raises(ValueError, match=r"^SGD: nesterov needs momentum > 0"):
        optimizer.momentum = 0.0
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.9]


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ("lr", -1, ValueError, "SGD: lr must lie in [0, inf], but got -1"),
        ("lr", float("nan"), ValueError, "SGD: lr must lie in [0, inf], but got nan"),
        ("nesterov", True, ValueError, "SGD: nesterov needs momentum > 0 and dampening=0, but got 0.0 and 0.0"),
        ("params", [], None, ""),
        ("params", (1,), TypeError, 'SGD: the "params" of a group must be a list, but got tuple'),
        ("params", None, TypeError, 'SGD: the "params" of a group must be a list, but got NoneType'),
        ("params", [1], TypeError, "SGD: each of params must be a Tensor, but got int"),
        ("initial_lr", 1, None, ""),
        ("name", "biases", None, ""),
        ("learning_rate", 1, ValueError, STRANGE),
    ],
)  # fmt: skip
def test_what_was_put_into_a_group_is_checked_before_a_step_changes_anything(key, value, error, message):
    params = parameters_with_gradients((3,), (2,))
    optimizer = optim.SGD([{"params": [parameter]} for parameter in params])
    optimizer.step()
    optimizer.param_groups[1][key] = value
    start = [parameter.numpy() for parameter in params]
    if error is None:
        optimizer.step()
        assert (params[0].numpy() != start[0]).all()
        return
    for _ in range(2):
        with pytest.raises(error) as caught:
            optimizer.step()
        assert str(caught.value) == message
    assert_same_bits([parameter.numpy() for parameter in params], start)


def test_values_in_groups_take_their_canonical_form():
    """A NumPy scalar would turn float32 arithmetic into float64."""
    params, twins = (parameters_with_gradients((50,), dtype="float32") for _ in range(2))
    optimizer, other = optim.SGD(params), optim.SGD(twins, lr=0.1)
    optimizer.step()
    other.step()
    optimizer.param_groups[0]["lr"] = np.float64(0.1)
    list_of_params = optimizer.params
    optimizer.step()
    other.step()
    assert type(optimizer.lr) is float
    assert optimizer.params is list_of_params


def test_a_group_put_into_the_list_is_completed():
    first, second = parameters_with_gradients((3,), (2,))
    optimizer = optim.SGD([first], lr=0.5)
    optimizer.param_groups.append({"params": [second]})
    optimizer.step()
    assert optimizer.param_groups[1]["lr"] == 0.5
    optimizer.param_groups.append([first])
    with pytest.raises(TypeError, match=r"^SGD: each group of params must be a dict, but got list$"):
        optimizer.step()
    optimizer.param_groups[2] = {"params": [first]}
    with pytest.raises(ValueError, match=r"^SGD: params must differ, but got one of shape \(3,\) twice$"):
        optimizer.step()


def test_a_subclass_in_the_form_of_the_course_overrides_step():
    class Course(optim.Optimizer):
        def __init__(self, params, lr=0.01, momentum=0.0, weight_decay=0.0):
            super().__init__(params)
            self.lr = lr
            self.momentum = momentum
            self.weight_decay = weight_decay
            self.u = {}

        def step(self):
            for parameter in self.params:
                grad = parameter.grad.detach() + self.weight_decay * parameter.detach()
                self.u[parameter] = self.momentum * self.u.get(parameter, 0) + (1 - self.momentum) * grad
                parameter.data = parameter.detach() - self.lr * self.u[parameter]

    params, twins = (parameters_with_gradients((3,), (2, 2)) for _ in range(2))
    optimizers = Course(params, 0.1, 0.9, 0.2), optim.SGD(twins, 0.1, 0.9, 0.2)
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits([p.numpy() for p in params], [p.numpy() for p in twins])
    assert optimizers[0].momentum == 0.9
    assert optimizers[0].param_groups[0]["lr"] == 0.1
    for call in (optimizers[0].state_dict, lambda: optimizers[0].load_state_dict({})):
        with pytest.raises(NotImplementedError, match=r"^Course: what overrides step must"):
            call()  # the state is in u, which the base does not know


def test_a_subclass_with_a_rule_and_options():
    class Signed(optim.Optimizer):
        power = optim.groups.Option(optim.groups.finite)

        def __init__(self, params, lr=0.1, power=1.0):
            super().__init__(params, lr, power=power)

        def _new_state(self, group):
            return {"last": 7.0}

        def _update(self, theta, grad, state, scratch, group, numbers):
            state[0][...] = grad
            theta -= group["lr"] * numbers["step"] * abs(grad) ** group["power"]

    params = parameters_with_gradients((3,), (2,))
    for parameter in params:
        parameter.grad = ndl.full_like(parameter, 2.0)
    start = [parameter.numpy() for parameter in params]
    optimizer = Signed(split(params, power=3))
    for _ in range(2):
        optimizer.step()
    np.testing.assert_allclose(params[0].numpy(), start[0] - 0.1 * 2 * 3)
    np.testing.assert_allclose(params[1].numpy(), start[1] - 0.1 * 8 * 3)
    assert optimizer.power == 1.0


ERRORS = [
    (
        lambda: optim.Optimizer(one_parameter(), power=2),
        TypeError,
        "Optimizer: options must be among lr, weight_decay, maximize, but got lr, weight_decay, maximize, power",
    ),
    (lambda: optim.SGD([{"lr": 1}]), TypeError, "SGD: params must be a sequence of tensors, but got NoneType"),
    (lambda: optim.SGD([{"params": []}]), ValueError, "SGD: params must hold at least one tensor, but got none"),
    (
        lambda: optim.SGD([{"params": one_parameter()}, ndl.ones(2)]),
        TypeError,
        "SGD: each group of params must be a dict, but got Tensor",
    ),
    (lambda: optim.SGD([{"params": one_parameter(), "learning_rate": 1}]), ValueError, STRANGE),
    (
        lambda: optim.SGD([{"params": one_parameter(), "lr": -1}]),
        ValueError,
        "SGD: lr must lie in [0, inf], but got -1",
    ),
    (
        lambda: setattr(optim.SGD([{"params": one_parameter()} for _ in range(2)]), "params", one_parameter()),
        ValueError,
        'SGD: of several groups, the "params" of one must be set, but got a list for 2',
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
