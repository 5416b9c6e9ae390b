"""States of optimizers: a resumed run is the uninterrupted one bit for bit, torch's states fit, others are refused."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

import needle as ndl
from needle import optim
from tests.optim.steps import (
    MANY,
    OPTIMIZERS,
    assert_same_bits,
    every_optimizer,
    one_parameter,
    parameters_with_gradients,
    tensor,
)
from tests.standin.device import STANDIN

torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("double_precision")


def drawn(params, step):
    """Give every parameter a gradient of this step, less some that differ from step to step."""
    rng = np.random.default_rng(step)
    for i, parameter in enumerate(params):
        grad = rng.standard_normal(parameter.shape).astype(str(parameter.dtype))
        parameter.grad = tensor(grad, parameter.device) if (step + i) % 4 or i == 0 else None


def through_json(state):
    """What JSON and a file of arrays make of a state: text for keys, lists for tuples, arrays of shape ()."""
    arrays = []

    def keep(value):
        arrays.append(value)
        return {"array": len(arrays) - 1}

    def restore(value):
        return np.array(arrays[value["array"]]) if value.keys() == {"array"} else value

    return json.loads(json.dumps(state, default=keep), object_hook=restore)


def trained(make, shapes, resumed_after=None, trip=copy.deepcopy, steps=7, device=None, other=None, **options):
    """Parameters after some steps; with `resumed_after`, new ones go on from there with a state that made a trip."""
    params = parameters_with_gradients(*shapes, device=device, **options)
    optimizer = make(params)
    for step in range(steps):
        if step == resumed_after:
            state = trip(optimizer.state_dict())
            values = [parameter.numpy() for parameter in params]
            params = [tensor(value, other or device) for value in values]
            optimizer = make(params)
            optimizer.load_state_dict(state)
        drawn(params, step)
        if step > 3:
            optimizer.lr = 0.03 / step
        optimizer.step()
    return [parameter.numpy() for parameter in params]


TWO_GROUPS = {
    "two groups": lambda params: optim.AdamW(
        [{"params": params[:2], "lr": 0.2, "amsgrad": True}, {"params": params[2:], "betas": (0.5, 0.7)}]
    ),
    "two groups of SGD": lambda params: optim.SGD(
        [{"params": params[::2], "nesterov": True}, {"params": params[1::2], "momentum": 0.0, "lr": 1}], momentum=0.5
    ),
}


@pytest.mark.parametrize("make", [*OPTIMIZERS.values(), *TWO_GROUPS.values()], ids=[*OPTIMIZERS, *TWO_GROUPS])
@pytest.mark.parametrize(
    ("shapes", "dtype"), [(MANY, "float32"), (MANY, "float16"), ([(3, 4), (2,), (150, 120)], "float64")]
)
@pytest.mark.filterwarnings("ignore:divide by zero")  # eps is 0 in float16
def test_a_resumed_run_is_the_uninterrupted_one(make, shapes, dtype, device):
    expected = trained(make, shapes, dtype=dtype, device=device)
    for resumed_after, trip in ((0, copy.deepcopy), (3, through_json), (6, copy.deepcopy)):
        resumed = trained(make, shapes, resumed_after, trip, dtype=dtype, device=device)
        assert_same_bits(resumed, expected)


@every_optimizer
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_run_resumes_from_a_file(make, ending, tmp_path):
    path = tmp_path / f"state.{ending}"

    def through_a_file(state):
        ndl.save(path, {"optimizer": state})
        return ndl.load(path)["optimizer"]

    expected = trained(make, MANY, dtype="float32")
    assert_same_bits(trained(make, MANY, 3, through_a_file, dtype="float32"), expected)


@every_optimizer
def test_a_run_resumes_on_another_device(make):
    expected = trained(make, MANY, dtype="float32")
    assert_same_bits(trained(make, MANY, 3, through_json, dtype="float32", other=STANDIN), expected)
    assert_same_bits(trained(make, MANY, 3, dtype="float32", device=STANDIN, other=ndl.cpu()), expected)


@every_optimizer
def test_a_state_loads_over_another(make):
    """Into an optimizer that has taken other steps, and whose parameters have another memory order."""
    params, twins = (parameters_with_gradients(*MANY) for _ in range(2))
    optimizer, other = make(params), make(twins)
    for step in range(3):
        drawn(params, step)
        optimizer.step()
        drawn(twins, step + 5)
        other.step()
    other.load_state_dict(optimizer.state_dict())
    for parameter, twin in zip(params, twins, strict=True):
        twin.data = parameter
    for step in range(3, 6):
        for tensors, each in ((params, optimizer), (twins, other)):
            drawn(tensors, step)
            each.step()
    assert_same_bits([twin.numpy() for twin in twins], [parameter.numpy() for parameter in params])


# ---- torch -----------------------------------------------------------------------------------------------------------

TORCH = {
    "SGD": ("SGD", {"lr": 0.1, "dampening": 0.0}),
    "momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.1}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": True, "maximize": True}),
    "Adam": ("Adam", {"lr": 0.1}),
    "Adam, options": ("Adam", {"betas": (0.8, 0.9), "weight_decay": 0.1, "eps": 1e-5, "maximize": True, "lr": 0.01}),
    "Adam, amsgrad": ("Adam", {"lr": 0.1, "amsgrad": True}),
    "Adam, decoupled": ("Adam", {"lr": 0.1, "weight_decay": 0.3, "decoupled_weight_decay": True}),
    "AdamW": ("AdamW", {"lr": 0.1}),
    "AdamW, options": ("AdamW", {"lr": 0.1, "amsgrad": True, "maximize": True, "weight_decay": 0.0}),
    "RMSprop": ("RMSprop", {"momentum": 0.5, "centered": True}),
    "RMSprop, plain": ("RMSprop", {"weight_decay": 0.1, "maximize": True}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    "Adadelta": ("Adadelta", {"lr": 0.5}),
    "NAdam": ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "RAdam": ("RAdam", {"betas": (0.9, 0.99)}),
    "Adamax": ("Adamax", {"weight_decay": 0.1}),
}
SHAPES = [(3, 4), (5,), (), (2, 1, 3, 2), (4,)]
LESS = {"foreach", "fused", "capturable", "differentiable"}  # of torch's groups


def pair(name, device=None, values=None):
    """Parameters and optimizers of needle and torch, in two groups."""
    kind, options = TORCH[name]
    params = (
        parameters_with_gradients(*SHAPES, device=device) if values is None else [tensor(x, device) for x in values]
    )
    twins = [torch.from_numpy(parameter.numpy()).requires_grad_() for parameter in params]
    groups = [[{"params": each[:2]}, {"params": each[2:], "lr": 0.02}] for each in (params, twins)]
    return params, twins, getattr(optim, kind)(groups[0], **options), getattr(torch.optim, kind)(groups[1], **options)


def step_both(params, twins, optimizers, steps):
    """Steps in which the last parameter has no gradient."""
    for step in steps:
        drawn(params[:-1], step)
        params[-1].grad = None
        for parameter, twin in zip(params, twins, strict=True):
            twin.grad = None if parameter.grad is None else torch.from_numpy(parameter.grad.numpy())
        for optimizer in optimizers:
            optimizer.step()


def in_numpy(state):
    """The state dict of an optimizer of torch with NumPy's arrays."""
    entries = {i: {name: x.numpy() for name, x in entry.items()} for i, entry in state["state"].items()}
    return {"state": entries, "param_groups": state["param_groups"]}


def stepped(state):
    """The parameters that took a step; torch's Adagrad has a state for all."""
    return {i for i, entry in state["state"].items() if entry.get("step", 1)}


@pytest.mark.parametrize("name", TORCH)
def test_the_state_dict_is_torch_s(name, device):
    params, twins, optimizer, other = pair(name, device)
    step_both(params, twins, (optimizer, other), range(50))
    for parameter, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), rtol=1e-12, atol=1e-14)
    state, expected = optimizer.state_dict(), in_numpy(other.state_dict())
    less = [{key: value for key, value in group.items() if key not in LESS} for group in expected["param_groups"]]
    assert state["param_groups"] == less
    assert state["state"].keys() == stepped(expected)
    for i in state["state"]:
        entry = expected["state"][i]
        assert list(state["state"][i]) == list(entry)
        for key, value in entry.items():
            np.testing.assert_allclose(state["state"][i][key], value, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("name", TORCH)
def test_each_goes_on_from_the_state_of_the_other(name, device):
    params, twins, optimizer, other = pair(name, device)
    step_both(params, twins, (optimizer, other), range(5))
    params, twins, from_torch, from_needle = pair(name, device, [parameter.numpy() for parameter in params])
    from_torch.load_state_dict(through_json(in_numpy(other.state_dict())))
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry |= {key: torch.as_tensor(value) for key, value in entry.items()}
    from_needle.load_state_dict(state)
    step_both(params, twins, (from_torch, from_needle), range(5, 10))
    for parameter, twin in zip(params, twins, strict=True):
        np.testing.assert_allclose(parameter.numpy(), twin.detach().numpy(), rtol=1e-12, atol=1e-14)
    assert stepped(from_torch.state_dict()) == stepped(from_needle.state_dict())


# ---- what a state holds, and what it must hold -----------------------------------------------------------------------


@every_optimizer
def test_a_state_is_a_copy_or_shares_memory(make):
    params = parameters_with_gradients(*MANY)
    optimizer = make(params)
    optimizer.step()
    copied, shared = optimizer.state_dict(), optimizer.state_dict(copy=False)
    before = copy.deepcopy(copied)
    for parameter in params:
        parameter.grad = parameter.grad * 2
    optimizer.step()
    for i, entry in before["state"].items():
        for name, value in entry.items():
            assert np.array_equal(copied["state"][i][name], value)
            if name not in ("step", "mu_product"):
                assert not np.array_equal(shared["state"][i][name], value)
    optimizer.load_state_dict(copied)
    optimizer.step()
    for i, entry in before["state"].items():
        for name, value in entry.items():
            assert np.array_equal(copied["state"][i][name], value)
    assert json.dumps(optimizer.state_dict()["param_groups"]) == json.dumps(copied["param_groups"])


def test_a_state_keeps_the_notes_of_schedulers_and_none_of_the_optimizer_that_loads_it():
    optimizer, other = (optim.SGD(parameters_with_gradients((3,))) for _ in range(2))
    optimizer.param_groups[0] |= {"initial_lr": 0.5, "name": "all"}
    other.param_groups[0] |= {"max_lr": 2.0}
    group, params = other.param_groups[0], other.params
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0] is group
    assert other.params is params
    assert group == {**optimizer.param_groups[0], "params": params}


@pytest.mark.parametrize("shapes", [[(3,), (2, 2)], MANY], ids=["few", "pooled"])
@pytest.mark.parametrize("absent", [False, True])
def test_arrays_come_with_the_options_that_ask_for_them(shapes, absent):
    """A run that is resumed right after an option has changed goes on alike; what is not asked for stays."""

    def make(params):
        return optim.Adam(params, betas=(0.9, 0.3))

    results = []
    for resumed in False, True:
        params = parameters_with_gradients(*shapes)
        optimizer = make(params)
        for step, amsgrad in enumerate([False, True, False, True, True]):
            optimizer.amsgrad = amsgrad
            if resumed:
                state = optimizer.state_dict()
                assert all("max_exp_avg_sq" in entry for entry in state["state"].values()) or not amsgrad
                optimizer = make(params)
                optimizer.load_state_dict(state)
            drawn(params, step)
            for parameter in params:
                parameter.grad = parameter.grad if absent or parameter.grad is not None else parameter.detach() / 9
            optimizer.step()
        results.append([parameter.numpy() for parameter in params])
    assert_same_bits(*results)


def trained_adam():
    params = parameters_with_gradients((3,), (2, 2), dtype="float32")
    optimizer = optim.Adam([{"params": params[:1]}, {"params": params[1:]}])
    for _ in range(2):
        optimizer.step()
    return optimizer


def loaded(change):
    """Load a state that was changed; nothing may have changed when that fails."""
    optimizer = trained_adam()
    state = optimizer.state_dict()
    state = change(state) or state
    before = optimizer.state_dict(), [parameter.numpy() for parameter in optimizer.params]
    try:
        optimizer.load_state_dict(state)
    finally:
        after = optimizer.state_dict(), [parameter.numpy() for parameter in optimizer.params]
        np.testing.assert_equal(after, before)


def entry(i, **values):
    return lambda state: state["state"][i].update(values)


def group(i, **values):
    return lambda state: state["param_groups"][i].update(values)


def without_moments(state):
    del state["state"][0]["exp_avg"], state["state"][1]["step"]
    state["param_groups"][1]["params"].append(7)


FITS = "load_state_dict: the state must fit the optimizer, but got "
ERRORS = [
    (
        lambda: optim.Optimizer(one_parameter()).state_dict(),
        NotImplementedError,
        "Optimizer: what overrides step must override state_dict, too",
    ),
    (lambda: trained_adam().state_dict(copy=1), TypeError, "state_dict: copy must be a bool, but got int"),
    (lambda: loaded(lambda state: [1]), TypeError, "load_state_dict: state must be a dict, but got list"),
    (
        lambda: loaded(lambda state: state["state"]),
        ValueError,
        "load_state_dict: state must hold state, param_groups, but got 0, 1",
    ),
    (
        lambda: loaded(lambda state: {**state, "state": []}),
        TypeError,
        'load_state_dict: state["state"] must be a dict, but got list',
    ),
    (
        lambda: loaded(lambda state: state["state"].update({0: 1})),
        TypeError,
        "load_state_dict: each entry of the state must be a dict, but got int",
    ),
    (
        lambda: loaded(lambda state: state["state"].update({"x": {}})),
        TypeError,
        "load_state_dict: each index of a parameter must be an integer, but got 'x'",
    ),
    (
        lambda: loaded(group(0, params=None)),
        TypeError,
        'load_state_dict: each "params" of a group must be a list, but got NoneType',
    ),
    (
        lambda: loaded(group(0, params=[1])),
        ValueError,
        (
            "load_state_dict: each parameter must be in one group, and each entry be one's, but got [1, 1] in groups, "
            "and entries for [0, 1]"
        ),
    ),
    (
        lambda: loaded(lambda state: {"state": {}, "param_groups": state["param_groups"][:1]}),
        ValueError,
        "load_state_dict: state and optimizer must have as many groups, but got 1 for 2",
    ),
    (
        lambda: trained_adam().load_state_dict(
            {"state": {}, "param_groups": [{"params": [0], "lr": 0.1}, {"params": [1]}]}
        ),
        ValueError,
        (
            "load_state_dict: each group must have weight_decay, maximize, betas, eps, amsgrad, "
            "decoupled_weight_decay, but got ['lr']"
        ),
    ),
    (lambda: loaded(group(1, lr=-1)), ValueError, "Adam: lr must lie in [0, inf], but got -1"),
    (
        lambda: loaded(group(1, momentum=0.9)),
        ValueError,
        (
            "Adam: each key of a group must be one of params, lr, weight_decay, maximize, betas, eps, amsgrad, "
            "decoupled_weight_decay or a note of schedulers, but got 'momentum'"
        ),
    ),
    (
        lambda: loaded(without_moments),
        ValueError,
        (f"{FITS}no exp_avg for parameter 0; 2 parameters for the 1 of group 1; no step for parameter 1"),
    ),
    (
        lambda: loaded(entry(0, step=-1, exp_avg=np.zeros(4, "float32"), exp_avg_sq=np.zeros(3))),
        ValueError,
        (
            f"{FITS}a step of -1 for parameter 0; exp_avg of shape (4,) and float32, not (3,) and float32, for "
            "parameter 0; exp_avg_sq of shape (3,) and float64, not (3,) and float32, for parameter 0"
        ),
    ),
    (
        lambda: loaded(entry(1, step=2.5, exp_avg=torch.zeros(2, 2), exp_avg_sq=[1])),
        ValueError,
        (
            f"{FITS}a step of 2.5 for parameter 1; exp_avg as a torch tensor (pass its .numpy(); that of Linear.weight "
            "as .T.numpy()) for parameter 1; exp_avg_sq as a list, not an array, for parameter 1"
        ),
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_arrays_of_either_byte_order_and_tensors_fit():
    optimizer = trained_adam()
    state = optimizer.state_dict()
    expected = copy.deepcopy(state)
    state["state"][0]["exp_avg"] = state["state"][0]["exp_avg"].astype(">f4")
    state["state"][1]["exp_avg"] = tensor(state["state"][1]["exp_avg"], STANDIN)
    state["state"][0]["step"] = np.float32(2)
    optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), expected)
