"""Modules: their contents and order, modes, state, printing, and copies."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.functional.alike import raises

pytestmark = pytest.mark.usefixtures("on_device")

ROOT = Path(__file__).resolve().parent.parent.parent


def parameter(*values):
    return nn.Parameter(ndl.Tensor(np.array(values, np.float32)))


def buffer(*values):
    return nn.Buffer(np.array(values, np.float32))


class Scale(nn.Module):
    """One parameter `gain`, one buffer `seen`."""

    def __init__(self, value=1.0):
        super().__init__()
        self.gain = parameter(value)
        self.seen = buffer(value, value)

    def forward(self, x):
        return x * self.gain


class Nested(nn.Module):
    """Parameters, buffers and modules in every kind of container, at several depths, among unrelated attributes."""

    def __init__(self):
        super().__init__()
        self.name, self.count, self.nothing, self.array = "nested", 3, None, np.ones(2)
        self.zeta = parameter(0)
        self.branches = [Scale(1), (parameter(2), buffer(3)), None, [[Scale(4)], "text", 5]]
        self.alpha = parameter(6)
        self.table = {"b": Scale(7), "a": {"deep": [parameter(8)]}, 9: (buffer(9),)}
        self.offset = buffer(10)
        self.last = Scale(11)


NESTED_PARAMETERS = {
    "zeta": 0,
    "branches.0.gain": 1,
    "branches.1.0": 2,
    "branches.3.0.0.gain": 4,
    "alpha": 6,
    "table.b.gain": 7,
    "table.a.deep.0": 8,
    "last.gain": 11,
}
NESTED_BUFFERS = {
    "branches.0.seen": [1, 1],
    "branches.1.1": [3],
    "branches.3.0.0.seen": [4, 4],
    "table.b.seen": [7, 7],
    "table.9.0": [9],
    "offset": [10],
    "last.seen": [11, 11],
}


def small_net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))


def values(module):
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def assert_same_values(module, expected):
    assert list(module.state_dict()) == list(expected)
    for name, value in values(module).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name, strict=True)


# ---- what a module holds ---------------------------------------------------------------------------------------------


def test_parameters_are_in_order_of_definition_through_all_containers():
    module = Nested()
    named = list(module.named_parameters())
    assert {name: tensor.item() for name, tensor in named} == NESTED_PARAMETERS
    assert [name for name, _ in named] == list(NESTED_PARAMETERS)
    assert all(isinstance(tensor, nn.Parameter) and tensor.requires_grad for _, tensor in named)
    assert [tensor.item() for tensor in module.parameters()] == list(NESTED_PARAMETERS.values())
    assert isinstance(module.parameters(), list)


def test_buffers_are_in_order_of_definition_through_all_containers():
    module = Nested()
    named = list(module.named_buffers())
    assert [(name, tensor.numpy().tolist()) for name, tensor in named] == list(NESTED_BUFFERS.items())
    assert [tensor.numpy().tolist() for tensor in module.buffers()] == list(NESTED_BUFFERS.values())


def test_a_shared_parameter_appears_once_under_its_first_name():
    module = nn.Module()
    module.first, module.second = Scale(), Scale()
    module.second.gain = module.first.gain
    module.again = [module.first.gain, module.first]
    assert [name for name, _ in module.named_parameters()] == ["first.gain"]
    assert module.parameters() == [module.first.gain]


def test_equal_parameters_are_not_shared():
    module = nn.Module()
    module.pair = [parameter(1), parameter(1)]
    assert [name for name, _ in module.named_parameters()] == ["pair.0", "pair.1"]


def test_children_are_the_modules_held_directly():
    module = Nested()
    held = [module.branches[0], module.branches[3][0][0], module.table["b"], module.last]
    assert module.children() == held
    assert Scale().children() == []


def test_named_modules_begin_with_the_module_itself():
    outer = nn.Sequential(nn.Residual(nn.Linear(2, 2)), nn.ReLU())
    named = [(name, type(module).__name__) for name, module in outer.named_modules()]
    assert named == [("", "Sequential"), ("0", "Residual"), ("0.fn", "Linear"), ("1", "ReLU")]


def test_a_module_without_anything_holds_nothing():
    module = nn.Module()
    assert module.parameters() == module.buffers() == module.children() == []
    assert module.state_dict() == {}


def test_deleted_and_replaced_attributes_are_gone():
    module = Scale()
    old = module.gain
    module.gain = parameter(2)
    assert module.parameters() == [module.gain] != [old]
    del module.gain
    assert module.parameters() == []


def test_a_parameter_requires_grad_and_copies_its_values():
    source = ndl.Tensor(np.ones(2, np.float32), requires_grad=False)
    learned = nn.Parameter(source)
    source.data = source * 5
    assert learned.requires_grad
    assert learned.is_leaf()
    assert learned.numpy().tolist() == [1, 1]


def test_a_parameter_replaced_by_a_plain_tensor_is_used_by_the_next_forward():
    linear = nn.Linear(2, 3)
    x = ndl.Tensor(np.array([[1, 2]], np.float32))
    linear.weight = ndl.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    linear.bias = ndl.Tensor(np.array([10, 20, 30], np.float32))
    y = linear(x)
    assert y.numpy().tolist() == [[16, 29, 42]]
    y.sum().backward()
    assert linear.weight.grad.numpy().tolist() == [[1, 1, 1], [2, 2, 2]]
    assert linear.parameters() == []
    assert [name for name, _ in linear.named_buffers()] == ["weight", "bias"]


def test_a_plain_tensor_is_not_state():
    """Assigned in `forward`, say: a state saved before it loads after it, and the other way round."""

    class Remembering(Scale):
        def forward(self, x):
            self.last, self.pair = x * self.gain, [x, self.gain.detach()]
            return self.last

    module = Remembering()
    before = module.state_dict()
    assert module(ndl.ones(2)).numpy().tolist() == module.last.numpy().tolist() == [1, 1]
    assert list(module.state_dict()) == list(before) == ["gain", "seen"]
    assert [name for name, _ in module.named_buffers()] == ["seen"]
    module.load_state_dict(before)


def test_buffers_are_declared(device):
    module = nn.Module()
    module.register_buffer("mean", ndl.ones(2))
    module.register_buffer("mask", ndl.zeros(3), persistent=False)
    module.register_buffer("later", None)
    module.scratch = [nn.Buffer([1.0], persistent=False), nn.Buffer([2.0])]
    assert [name for name, _ in module.named_buffers()] == ["mean", "mask", "scratch.0", "scratch.1"]
    assert list(module.state_dict()) == ["mean", "scratch.1"]
    module.mean, module.mask, module.later = (ndl.Tensor([i], device=device) for i in range(3))
    assert list(module.state_dict()) == ["mean", "later", "scratch.1"]
    twin = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    assert list(twin.state_dict()) == ["mean", "later", "scratch.1"]
    assert [len(twin.buffers()), twin.parameters()] == [5, []]
    del module.mean
    module.mean = ndl.ones(1)
    assert list(module.state_dict()) == ["later", "scratch.1"]


LEFT_OUT = {
    "Linear": (lambda: nn.Linear(2, 2, bias=False), ["bias"]),
    "Conv": (lambda: nn.Conv(2, 2, 1, bias=False), ["bias"]),
    "Conv2d": (lambda: nn.Conv2d(2, 2, 1, bias=False), ["bias"]),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 2, 1, bias=False), ["bias"]),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(2, affine=False, track_running_stats=False),
                    ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]),
    "GroupNorm": (lambda: nn.GroupNorm(1, 2, bias=False), ["bias"]),
    "LayerNorm": (lambda: nn.LayerNorm(2, elementwise_affine=False), ["weight", "bias"]),
    "RMSNorm": (lambda: nn.RMSNorm(2, elementwise_affine=False), ["weight"]),
    "RNNCell": (lambda: nn.RNNCell(2, 2, bias=False), ["bias_ih", "bias_hh"]),
    "NLLLoss": (lambda: nn.NLLLoss(), ["weight"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_a_layer_left_out_is_state_once_it_is_assigned(name):
    make, missing = LEFT_OUT[name]
    layer = make()
    before = list(layer.state_dict())
    for attribute in missing:
        assert getattr(layer, attribute) is None
        setattr(layer, attribute, ndl.ones(2))
    assert set(layer.state_dict()) == {*before, *missing}


def test_registered_parameters():
    module = Scale()
    module.register_parameter("new", parameter(3))
    module.register_parameter("none", None)
    assert [name for name, _ in module.named_parameters()] == ["gain", "new"]
    module.none = parameter(4)
    assert [name for name, _ in module.named_parameters()] == ["gain", "new", "none"]
    with pytest.raises(TypeError, match=r"^register_parameter: parameter must be a Parameter, but got Tensor$"):
        module.register_parameter("plain", ndl.ones(2))


def test_names_with_a_prefix_and_without_children():
    net = nn.Sequential(Scale())
    net.own, net.mask = parameter(1), buffer(1)
    assert [name for name, _ in net.named_parameters(prefix="net")] == ["net.0.gain", "net.own"]
    assert [name for name, _ in net.named_buffers("net", recurse=False)] == ["net.mask"]
    assert net.parameters(recurse=False) == [net.own]
    assert [b is net.mask for b in net.buffers(recurse=False)] == [True]


@pytest.mark.parametrize(
    ("name", "tensor", "error", "message"),
    [
        ("a.b", None, ValueError, "name must be new, not empty and without a dot, but got 'a.b'"),
        ("", None, ValueError, "name must be new, not empty and without a dot, but got ''"),
        ("gain", None, ValueError, "name must be new, not empty and without a dot, but got 'gain'"),
        ("train", None, ValueError, "name must be new, not empty and without a dot, but got 'train'"),
        ("new", [1.0], TypeError, "tensor must be a Tensor, but got list"),
        (3, None, TypeError, "name must be a str, but got int"),
    ],
)
def test_buffers_that_cannot_be_registered(name, tensor, error, message):
    raises(lambda: Scale().register_buffer(name, tensor), error, f"register_buffer: {message}")


@pytest.mark.parametrize(("name", "kind"), [("weight", "Tensor"), ("running_mean", "Tensor"), ("child", "Module")])
@pytest.mark.parametrize("value", [3.0, np.ones(2), "conv", "other"])
def test_state_is_replaced_by_its_like_only(name, kind, value):
    module = nn.BatchNorm1d(2)
    module.child = nn.ReLU()
    if isinstance(value, str) and value == "other":
        value = nn.ReLU() if kind == "Tensor" else ndl.ones(2)
    message = f"BatchNorm1d: {name} must be a {kind}, but got {type(value).__name__}"
    raises(lambda: setattr(module, name, value), TypeError, message)
    setattr(module, name, None)
    assert getattr(module, name) is None


def test_a_mistyped_attribute_raises():
    with pytest.raises(AttributeError, match="wieght"):
        nn.Linear(2, 3).wieght  # noqa: B018
    with pytest.raises(AttributeError, match="features"):
        small_net().features  # noqa: B018


def test_calling_a_module_calls_forward_with_all_arguments():
    class Two(nn.Module):
        def forward(self, x, y, *, scale=1):
            return (x + y) * scale

    assert Two()(2, y=3, scale=4) == 20


def test_a_module_without_forward_says_so():
    class Blank(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match=r"^Blank: forward is not defined$"):
        Blank()(1)


# ---- modes -----------------------------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    module = Nested()
    everything = [module, *module.children()]
    assert all(part.training is True for part in everything)
    assert module.eval() is module
    assert all(part.training is False for part in everything)
    assert module.train() is module
    assert all(part.training is True for part in everything)
    module.train(False)
    assert all(part.training is False for part in everything)


def test_a_mode_can_be_set_in_one_part_only():
    net = nn.Sequential(nn.Dropout(), nn.Residual(nn.Sequential(nn.Dropout())))
    net[1].eval()
    assert [module.training for _, module in net.named_modules()] == [True, True, False, False, False]


@pytest.mark.parametrize("mode", [0, "no", None])
def test_a_mode_is_a_bool(mode):
    raises(lambda: Scale().train(mode), TypeError, f"train: mode must be a bool, but got {type(mode).__name__}")


def test_parameters_are_frozen_and_forget_their_gradients():
    net = nn.Sequential(Scale(2), Scale(3))
    net(ndl.ones(1)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad(set_to_none=False)
    assert [parameter.grad.item() for parameter in net.parameters()] == [0, 0]
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net[0].requires_grad_(False) is net[0]
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, True]
    assert all(parameter.requires_grad for parameter in net.requires_grad_().parameters())


def test_apply_visits_children_first_and_shared_modules_are_named_once():
    shared = nn.ReLU()
    net = nn.Sequential(nn.Residual(shared), shared, shared)
    visited = []
    assert net.apply(visited.append) is net
    assert visited == [shared, net[0], shared, net]  # once for each parent, as in torch
    assert [name for name, _ in net.named_modules()] == ["", "0", "0.fn"]
    assert [name for name, _ in net.named_children()] == ["0", "1", "2"]


def test_a_shared_buffer_is_found_under_its_first_name_and_saved_under_both():
    norm = nn.BatchNorm1d(2)
    net = nn.Sequential(norm, nn.Residual(norm))
    assert [name for name, _ in net.named_buffers()] == ["0.running_mean", "0.running_var", "0.num_batches_tracked"]
    assert len(net.buffers()) == 3
    assert len(net.state_dict()) == 10


# ---- state -----------------------------------------------------------------------------------------------------------


def test_state_dict_holds_parameters_and_buffers_in_order_of_definition():
    norm = ["1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert list(small_net().state_dict()) == ["0.weight", "0.bias", *norm, "4.weight", "4.bias"]
    assert set(Nested().state_dict()) == set(NESTED_PARAMETERS) | set(NESTED_BUFFERS)


def test_state_dict_returns_copies_without_gradient():
    module = Scale(2)
    state = module.state_dict()
    assert not any(tensor.requires_grad for tensor in state.values())
    module.gain.data = module.gain * 10
    assert state["gain"].item() == 2
    state["seen"].cached_data[...] = 7
    assert module.seen.numpy().tolist() == [2, 2]


def test_state_dict_round_trips():
    first, second = small_net(), small_net()
    first(ndl.init.randn(3, 1, 4, 4))
    expected = values(first)
    second.load_state_dict(first.state_dict())
    assert_same_values(second, expected)
    assert [type(tensor) for tensor in second.parameters()] == [nn.Parameter] * 6
    assert all(tensor.requires_grad for tensor in second.parameters())
    assert not any(tensor.requires_grad for tensor in second.buffers())
    second[0].weight.data = second[0].weight * 2
    assert_same_values(first, expected)


def test_a_shared_parameter_is_in_the_state_under_each_name_and_stays_shared():
    module = nn.Module()
    module.one = parameter(1)
    module.other = module.one
    assert list(module.state_dict()) == ["one", "other"]
    module.load_state_dict({"one": np.array([5]), "other": np.array([5])})
    assert module.one is module.other
    assert module.one.item() == 5


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64"])
def test_state_of_another_dtype_is_cast(dtype):
    module = Scale()
    module.load_state_dict({"gain": np.array([3], dtype), "seen": ndl.Tensor(np.array([4, 5], dtype))})
    assert_same_values(module, {"gain": np.array([3], np.float32), "seen": np.array([4, 5], np.float32)})


def test_loading_copies():
    module, gain = Scale(), np.array([3], np.float32)
    module.load_state_dict({"gain": gain, "seen": np.zeros(2)})
    gain[0] = 4
    assert module.gain.item() == 3


def test_loading_keeps_the_tensors_for_the_optimizer():
    module = Scale()
    gain = module.gain
    module.load_state_dict({"gain": np.array([3]), "seen": np.zeros(2)})
    assert module.gain is gain


def test_all_problems_are_in_one_message_and_nothing_is_copied():
    net = small_net()
    before = values(net)
    state = {name: value + 1 for name, value in before.items()}
    del state["0.bias"], state["1.running_var"]
    state["4.weight"] = np.zeros((3, 8))
    state["head.weight"] = ndl.zeros(4, 5)
    with pytest.raises(ValueError, match=r"^load_state_dict: ") as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "load_state_dict: names and shapes must agree, but got missing 0.bias (2,); missing 1.running_var (2,); "
        "unexpected head.weight (4, 5); 4.weight has shape (8, 3), not (3, 8)"
    )
    assert_same_values(net, before)


@pytest.mark.parametrize("shape", [(8,), (8, 3, 1), (24,), (1, 3), ()])
def test_shapes_are_neither_broadcast_nor_reshaped(shape):
    net = small_net()
    before = values(net)
    with pytest.raises(ValueError, match=r"4\.weight has shape"):
        net.load_state_dict(before | {"4.weight": np.zeros(shape)})
    assert_same_values(net, before)


@pytest.mark.parametrize("value", [None, "text", [1.0, [2.0]], object()])
def test_values_that_are_no_arrays_are_named(value):
    message = f"load_state_dict: gain must be an array of numbers, but got {type(value).__name__}"
    raises(lambda: Scale().load_state_dict({"gain": value}, strict=False), TypeError, message)


def test_nothing_is_copied_if_one_value_cannot_be():
    module = Scale()
    with pytest.raises((TypeError, ValueError)):
        module.load_state_dict({"gain": np.array([3]), "seen": np.array(["a", "b"])})
    assert_same_values(module, {"gain": np.array([1], np.float32), "seen": np.array([1, 1], np.float32)})


def test_not_strict_loads_the_common_names():
    module = Scale()
    module.load_state_dict({"gain": np.array([3]), "unknown": np.zeros(9)}, strict=False)
    assert_same_values(module, {"gain": np.array([3], np.float32), "seen": np.array([1, 1], np.float32)})
    with pytest.raises(ValueError, match=r"seen has shape \(2,\), not \(3,\)$"):
        module.load_state_dict({"gain": np.array([4]), "seen": np.zeros(3)}, strict=False)
    assert module.gain.item() == 3


def test_loading_tells_which_names_do_not_match():
    net, module = small_net(), Scale()
    assert net.load_state_dict(net.state_dict()) == ([], [])
    keys = module.load_state_dict({"gain": np.array([3]), "other": np.zeros(2)}, strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == (["seen"], ["other"])
    theirs = torch.nn.BatchNorm1d(2).load_state_dict({"weight": torch.ones(2), "x": torch.ones(1)}, strict=False)
    mine = nn.BatchNorm1d(2).load_state_dict({"weight": ndl.ones(2), "x": ndl.ones(1)}, strict=False)
    assert tuple(mine) == tuple(theirs)


def with_orders():
    """A module with a parameter of each memory order."""
    module = nn.Module()
    base = ndl.init.randn(3, 4, 5, 6)
    module.rows, module.columns = nn.Parameter(base), nn.Parameter(base)
    module.batch_last, module.half = nn.Parameter(base), nn.Parameter(base)
    space = base.device.xp
    module.columns.array = module.columns.spec = space.asfortranarray(base.array)
    module.batch_last.array = module.batch_last.spec = base.array.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)
    module.half.array = module.half.spec = base.array.repeat(2, 0)[::2]
    return module


def strides(module):
    return {name: tensor.array.strides for name, tensor in module.named_parameters()}


def test_loading_keeps_memory_orders():
    """BLAS rounds by memory order: a resumed run must have the same."""
    module = with_orders()
    before, expected = strides(module), {name: value + 1 for name, value in values(module).items()}
    assert len({*before.values()}) == 4
    addresses = [tensor.device.address(tensor.array) for tensor in module.parameters()]
    module.load_state_dict(expected)
    assert strides(module) == before
    assert [tensor.device.address(tensor.array) for tensor in module.parameters()] == addresses
    assert_same_values(module, expected)


def test_loading_reaches_views_and_stale_graphs():
    module = Scale(2.0)
    view = module.gain.detach()
    y = module(module.gain * 3)
    module.load_state_dict({"gain": [5.0], "seen": [1.0, 1.0]})
    assert view.item() == 5
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.sum().backward()


def test_a_repeated_buffer_gets_memory_of_its_own():
    module = nn.Module()
    module.register_buffer("mask", ndl.ones(1).broadcast_to(3).detach())
    module.load_state_dict({"mask": [1.0, 2.0, 3.0]})
    assert module.mask.numpy().tolist() == [1, 2, 3]


def test_a_state_may_share_the_memory_that_it_is_loaded_into():
    module = nn.Module()
    module.a, module.b = parameter(1, 2), parameter(3, 4)
    module.load_state_dict({"a": module.b.detach(), "b": module.a.array[::-1]})
    assert [module.a.numpy().tolist(), module.b.numpy().tolist()] == [[3, 4], [2, 1]]


def test_a_state_without_copies_shares_memory():
    net = small_net()
    state = net.state_dict(copy=False)
    assert list(state) == list(net.state_dict())
    assert all(state[name].array is tensor.array for name, tensor in net.named_parameters())
    assert not any(tensor.requires_grad for tensor in state.values())
    net.load_state_dict({name: value + 1 for name, value in values(net).items()})
    assert_same_values(net, {name: tensor.numpy() for name, tensor in state.items()})


def test_state_must_be_a_mapping():
    for state in [("gain", np.ones(1))], np.array({"gain": np.ones(1)}, object):
        with pytest.raises(TypeError, match=r"^load_state_dict: state must be a Mapping, but got (list|ndarray)$"):
            Scale().load_state_dict(state)


def test_a_file_of_numpy_is_a_state(tmp_path):
    net, other = small_net(), small_net()
    np.savez(tmp_path / "net.npz", **values(net))
    with np.load(tmp_path / "net.npz") as state:
        other.load_state_dict(state)
    assert_same_values(other, values(net))
    other.load_state_dict({"0.bias": [1.0, 2.0]}, strict=False)
    assert other[0].bias.numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("layer", "name", "shape", "how"),
    [
        (lambda: nn.Linear(3, 3, bias=False), "weight", (3, 3), "T"),
        (lambda: nn.Conv(3, 3, 3, bias=False), "weight", (3, 3, 3, 3), "permute(2, 3, 1, 0)"),
        (lambda: nn.RNNCell(3, 3), "W_hh", (3, 3), "T"),
    ],
)
def test_a_torch_tensor_in_another_layout_is_refused_even_if_it_fits(layer, name, shape, how):
    """Nothing is guessed from shapes: what has torch's type has torch's layout; an array has needle's."""
    net = nn.Sequential(nn.Identity(), layer())
    theirs = torch.randn(shape)
    reason = f"1.{name} has torch's layout: pass its {how}.numpy()"
    message = f"load_state_dict: names and shapes must agree, but got {reason}"
    for value in theirs, torch.nn.Parameter(theirs):
        raises(lambda v=value: net.load_state_dict({f"1.{name}": v}, strict=False), ValueError, message)
    mine = eval(f"theirs.{how}.numpy()")
    net.load_state_dict({f"1.{name}": mine}, strict=False)
    np.testing.assert_array_equal(getattr(net[1], name).numpy(), mine)
    twin = nn.Conv2d(3, 4, 3)  # in torch's layout
    twin.load_state_dict(torch.nn.Conv2d(3, 4, 3).state_dict())


# ---- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["half", "float", "double"])
def test_dtypes_move_as_in_torch(name):
    mine, theirs = small_net(), torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    mine(ndl.ones(2, 1, 4, 4)).sum().backward()
    tensors = list(mine.state_dict(copy=False))
    before, kept = values(mine), [*mine.parameters(), *mine.buffers()]
    dtype = {"half": "float16", "float": "float32", "double": "float64"}[name]
    assert getattr(mine, name)() is mine
    getattr(theirs, name)()
    assert [str(x.dtype) for x in theirs.state_dict().values()] == [
        f"torch.{mine.state_dict()[key].dtype}" for key in theirs.state_dict()
    ]
    assert all(x is y for x, y in zip(kept, [*mine.parameters(), *mine.buffers()], strict=True))
    assert {str(parameter.grad.dtype) for parameter in mine.parameters()} == {dtype}
    for key in tensors:
        expected = before[key] if "tracked" in key else before[key].astype(dtype)
        np.testing.assert_array_equal(mine.state_dict()[key].numpy(), expected, strict=True)
    assert str(mine(ndl.ones(2, 1, 4, 4, dtype=dtype)).dtype) == dtype


def test_dtypes_keep_memory_orders():
    module = with_orders()
    del module.half  # no copy has that order
    before = strides(module)
    assert {name: tuple(n // 2 for n in steps) for name, steps in strides(module.double()).items()} == before


def test_device_and_dtype_move_together(device):
    module = nn.BatchNorm1d(2)
    counter = module.num_batches_tracked.array
    for arguments in [(device, "float64"), ("float16",), (None, np.float32)]:
        assert module.to(*arguments) is module
    assert [str(tensor.dtype) for tensor in module.parameters()] == ["float32"] * 2
    assert module.num_batches_tracked.array is counter


@pytest.mark.parametrize("count", [1, 6], ids=["few", "pooled"])
def test_the_state_of_an_optimizer_follows_the_dtype(count):
    """From float64 to float32 and back: the steps are those of float64, rounded once."""
    start = np.linspace(1, 2, 3)
    nets = [nn.ParameterList(nn.Parameter(start + i) for i in range(count)) for _ in range(2)]
    optimizers = [ndl.optim.Adam(net.parameters(), lr=0.1) for net in nets]
    for step in range(4):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            sum((parameter * parameter).sum() for parameter in net).backward(create_graph=False)
            optimizer.step()
        nets[0].to(dtype="float32" if step % 2 == 0 else "float64")
    for mine, theirs in zip(*nets, strict=True):
        assert mine.dtype == "float64"
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)


def test_frozen_parameters_do_not_change_in_training_and_learn_again():
    net = small_net()
    train_a_little(net)
    before = values(net)
    net[0].requires_grad_(False)
    train_a_little(net, 3)  # which forgets the gradients of the last step first
    after = values(net)
    assert {name for name in after if after[name].tobytes() == before[name].tobytes()} == {"0.weight", "0.bias"}
    net.requires_grad_()
    train_a_little(net)
    assert not np.array_equal(net[0].weight.numpy(), before["0.weight"])


def test_statistics_of_a_frozen_norm_follow_its_mode_as_in_torch():
    """Frozen parameters stop learning; statistics stop with `eval`."""
    x = np.random.default_rng(0).standard_normal((4, 2)).astype("float32")
    for library, data in (ndl, ndl.Tensor(x)), (torch, torch.from_numpy(x)):
        norm = library.nn.BatchNorm1d(2).requires_grad_(False)
        norm(data)
        assert norm.num_batches_tracked.item() == 1
        norm.eval()
        norm(data)
        assert norm.num_batches_tracked.item() == 1


# ---- printing --------------------------------------------------------------------------------------------------------

SAME_AS_TORCH = {
    "linear": lambda nn: nn.Linear(3, 2),
    "linear without bias": lambda nn: nn.Linear(3, 2, bias=False),
    "conv1d": lambda nn: nn.Conv1d(1, 2, 3),
    "conv2d": lambda nn: nn.Conv2d(1, 16, 3, padding=1),
    "conv2d with all options": lambda nn: nn.Conv2d(4, 8, (3, 5), 2, (1, 0), 2, 2, bias=False),
    "conv3d": lambda nn: nn.Conv3d(2, 4, 3, stride=(1, 2, 2), groups=2),
    "avg pool": lambda nn: nn.AvgPool2d(3, stride=2, padding=1),
    "relu": lambda nn: nn.ReLU(),
    "identity": lambda nn: nn.Identity(),
    "loss": lambda nn: nn.CrossEntropyLoss(),
    "empty": lambda nn: nn.Sequential(),
    "nested": lambda nn: nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 3))), nn.Identity()
    ),
}


@pytest.mark.parametrize("make", SAME_AS_TORCH.values(), ids=SAME_AS_TORCH)
def test_modules_print_as_in_torch(make):
    assert repr(make(nn)) == str(make(nn)) == repr(make(torch.nn))


@pytest.mark.parametrize(
    ("module", "text", "torch_module", "options_needle_lacks"),
    [
        (nn.Dropout(0.3), "Dropout(p=0.3)", torch.nn.Dropout(0.3), ", inplace=False"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_options_that_needle_lacks_are_not_printed(module, text, torch_module, options_needle_lacks):
    assert repr(module) == text == repr(torch_module).replace(options_needle_lacks, "")


def test_modules_in_containers_print_under_their_names():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.branches = [nn.ReLU(), nn.Residual(nn.Identity())]
            self.gain = parameter(1)

    assert repr(Net()) == "Net(\n  (branches.0): ReLU()\n  (branches.1): Residual(\n    (fn): Identity()\n  )\n)"


def test_a_module_with_options_and_children_prints_both_as_in_torch():
    def make(nn):
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.act = nn.ReLU()

            def extra_repr(self):
                return "width=3"

        return Block()

    assert repr(make(nn)) == repr(make(torch.nn)) == "Block(\n  width=3\n  (act): ReLU()\n)"


# ---- copies ----------------------------------------------------------------------------------------------------------


def train_a_little(net, steps=2):
    optimizer = ndl.optim.Adam(net.parameters(), lr=0.1)
    x = ndl.Tensor(np.random.default_rng(1).standard_normal((4, 1, 4, 4)).astype(np.float32), requires_grad=False)
    for _ in range(steps):
        optimizer.reset_grad()
        (net(x) * net(x)).sum().backward(create_graph=False)
        optimizer.step()


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["deepcopy", "pickle"]
)
def test_a_copy_is_equal_independent_and_learns_the_same(duplicate):
    net = small_net()
    net.shared = net[0].weight
    train_a_little(net)
    net.eval()
    before = values(net)
    twin = duplicate(net)
    assert_same_values(twin, before)
    assert not any(module.training for _, module in twin.named_modules())
    assert twin.shared is twin[0].weight is not net[0].weight
    assert [type(tensor) for tensor in twin.parameters()] == [nn.Parameter] * 6
    train_a_little(twin.train())
    assert_same_values(net, before)
    train_a_little(net.train())
    assert_same_values(twin, values(net))


def test_a_pickle_learns_in_another_process(tmp_path):
    net = small_net()
    train_a_little(net)
    path = tmp_path / "net.pickle"
    path.write_bytes(pickle.dumps(net))
    code = f"""
import pickle, sys
import numpy as np
sys.path.insert(0, {str(ROOT)!r})
import needle as ndl
net = pickle.loads(open({str(path)!r}, "rb").read())
x = ndl.Tensor(np.ones((2, 1, 4, 4), np.float32), requires_grad=False)
(net(x) * net(x)).sum().backward()
assert all(np.isfinite(p.grad.numpy()).all() for p in net.parameters())
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
