"""Containers, Residual and Identity: order, names, indices, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from needle.grad_mode import watch
from tests.nn.compare import assert_as_in_torch, normal
from tests.standin.device import STANDIN

pytestmark = pytest.mark.usefixtures("on_device")


def test_sequential_applies_in_order_and_names_by_number():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1, bias=False))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight"]
    x = ndl.init.randn(4, 2)
    expected = np.maximum(x.numpy() @ net[0].weight.numpy() + net[0].bias.numpy(), 0) @ net[2].weight.numpy()
    np.testing.assert_allclose(net(x).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_sequential_is_indexed_like_a_sequence():
    layers = [nn.ReLU(), nn.Identity(), nn.Flatten()]
    net = nn.Sequential(*layers)
    assert len(net) == 3
    assert [net[0], net[-1], net.modules[1]] == [layers[0], layers[2], layers[1]]
    assert list(net) == list(net.modules) == layers
    with pytest.raises(IndexError):
        net[3]


# ---- relu in the pass of the layer before it -------------------------------------------------------------------------


def ops_of(net, x):
    """The names of the ops that a call of a module runs."""
    names = []

    class Watcher:
        def made(self, value, op, inputs):
            names.append(type(op).__name__)

        def passed(self, *args):
            pass

    with watch(Watcher()):
        net(x)
    return names


@pytest.mark.parametrize("training", [True, False])
def test_relu_behind_a_norm_gives_the_same_as_alone(training):
    nets = [nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten()).train(training) for _ in range(2)]
    nets[1][0].register_forward_hook(lambda *args: None)  # what has hooks, runs alone
    results = []
    for net in nets:
        ndl.seed(1)
        x = ndl.init.randn(8, 3, 4, 4, requires_grad=True)
        net[0].weight.data = ndl.init.randn(3)
        y = net(x)
        assert (y.numpy() >= 0).all()
        (grad,) = ndl.grad((y * y * y).sum(), [x], create_graph=True)
        (grad * grad).sum().backward()
        results.append([y, grad, x.grad, *(p.grad for p in net.parameters()), *net.buffers()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-4)


def test_relu_runs_in_the_pass_of_a_norm_where_nothing_sees_between():
    class Scaled(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x) * -1

    class Shifted(nn.ReLU):
        def forward(self, x):
            return super().forward(x) + 1

    x = ndl.init.randn(6, 3)
    fused = ops_of(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU()), x)
    assert "ReLU" not in fused
    for pair in (Scaled(3), nn.ReLU()), (nn.BatchNorm1d(3), Shifted()):
        y = nn.Sequential(*pair)(x)
        np.testing.assert_array_equal(y.numpy(), pair[1](pair[0](x)).numpy())
        assert "ReLU" in ops_of(nn.Sequential(*pair), x)
    replaced, seen = nn.BatchNorm1d(3), []
    replaced.forward = lambda x: x
    np.testing.assert_array_equal(nn.Sequential(replaced, nn.ReLU())(x).numpy(), np.maximum(x.numpy(), 0))
    for i in range(2):
        net = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())
        with net[i].register_forward_hook(lambda module, args, y: seen.append(y.numpy().min())):
            net(x)
        assert ops_of(net, x) == fused
    assert seen[0] < 0 == seen[1]


def test_a_class_with_another_forward_or_call_runs_alone():
    class Negative:  # no Module
        def forward(self, x):
            return super().forward(x) ** 2 * -1

    class Called(nn.Conv1d):
        def __call__(self, x):
            return super().__call__(x) ** 2 * -1

    class Mixed(Negative, nn.Conv1d):
        pass

    class MixedNorm(Negative, nn.BatchNorm1d):
        pass

    x = ndl.init.randn(2, 3, 4)
    for layer in Called(3, 2, 1), Mixed(3, 2, 1), MixedNorm(3):
        assert nn.Sequential(layer, nn.ReLU())(x).numpy().max() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kinds", [kinds for kinds in itertools.product("cbrm", repeat=3) if "r" in kinds])
def test_every_order_of_layers_agrees_with_torch(kinds, training):
    make = {
        "c": lambda lib, i: lib.Conv2d(2, 2, 1 + i, padding=i, groups=1 + i % 2),
        "b": lambda lib, i: lib.BatchNorm2d(2),
        "r": lambda lib, i: lib.ReLU(),
        "m": lambda lib, i: lib.MaxPool2d(2, 1 + i, padding=i % 2, ceil_mode=i == 2),
    }
    net, twin = (lib.Sequential(*(make[kind](lib, i) for i, kind in enumerate(kinds))) for lib in (nn, torch.nn))
    net.to(dtype="float64").train(training)
    twin.double().train(training)
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        mine.data = ndl.Tensor(theirs.detach().numpy(), dtype="float64")
    values = np.random.default_rng(0).integers(-2, 3, (3, 2, 6, 7)).astype("float64")  # with ties and zeros
    x, other = ndl.Tensor(values), torch.tensor(values, requires_grad=True)
    y, expected = net(x), twin(other)
    (y * y * y).sum().backward()
    (expected**3).sum().backward()
    pairs = [(y, expected.detach()), (x.grad, other.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(net.parameters(), twin.parameters(), strict=True)]
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: nn.Conv1d(2, 3, 3, padding=1), (4, 2, 9)),
        (lambda: nn.Conv2d(2, 4, 3, stride=2, groups=2, padding_mode="reflect", padding=1), (3, 2, 7, 6)),
        (lambda: nn.Conv2d(2, 3, 1, bias=False), (2, 5, 5)),
        (lambda: nn.Conv3d(1, 2, 2), (1, 1, 3, 4, 3)),
    ],
)
def test_relu_behind_a_convolution_gives_the_same_bits(layer, shape, create_graph):
    layer, values = layer(), np.random.default_rng(0).standard_normal(shape).astype("float32")
    values.flat[7] = np.nan
    results = []
    for net in (nn.Sequential(layer, nn.ReLU()), lambda x: nn.ReLU()(layer(x))):
        layer.zero_grad()
        x = ndl.Tensor(values)
        y = net(x)
        (y * y).sum().backward(create_graph=create_graph)
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    assert "ReLU" not in ops_of(nn.Sequential(layer, nn.ReLU()), x)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6, 5), (5,), (2, 3, 5), (0, 5), (900, 5)], ids=str)
def test_relu_behind_a_linear_layer_gives_the_same_bits(shape, bias, create_graph):
    layer, values = nn.Linear(5, 4, bias=bias), np.random.default_rng(0).standard_normal(shape).astype("float32")
    values.flat[7:8] = np.nan
    results = []
    for net in (nn.Sequential(layer, nn.ReLU()), lambda x: nn.ReLU()(x @ layer.weight + (layer.bias if bias else 0))):
        layer.zero_grad()
        x = ndl.Tensor(values)
        y = net(x)
        y = y if y.shape[:-1] == shape[:-1] else y.reshape(4)
        (y * y).sum().backward(create_graph=create_graph)
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    assert ("ReLU" in ops_of(nn.Sequential(layer, nn.ReLU()), x)) == (len(shape) == 1)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("layer", [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(1)], ids=["convolution", "normalization"])
def test_relu_stays_in_the_pass_of_its_layer_on_a_gpu(layer):
    """On the CPU max-pooling comes before it."""
    net = nn.Sequential(layer, nn.ReLU(), nn.MaxPool2d(2))
    values = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype("float32")
    results = []
    for device in ndl.cpu(), STANDIN:
        net.to(device)
        x = ndl.Tensor(values, device=device)
        assert ("ReLU" in ops_of(net, x)) == (device == ndl.cpu())
        y = net(x)
        net.zero_grad()
        (y * y).sum().backward()
        results.append([y, x.grad, *(p.grad for p in net.parameters())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-4)


def test_backward_notices_a_write_into_a_rectified_convolution():
    x = ndl.init.randn(2, 1, 5, 5)
    y = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())(x)
    y.data = ndl.ones(2, 2, 3, 3)
    with pytest.raises(RuntimeError, match="the result of RectifiedCorrelate"):
        y.sum().backward()


# ---- as lists --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])
def test_sequences_change_like_lists(kind):
    def same(net, expected):
        assert type(net) is kind
        assert list(net) == list(net.modules) == net.children() == expected
        assert [name for name, _ in net.named_children()] == [str(i) for i in range(len(expected))]

    a, b, c, d = nn.ReLU(), nn.Identity(), nn.Flatten(), nn.Tanh()
    net = kind() if kind is nn.ModuleList else kind(a)
    net = net.extend([a, b]) if kind is nn.ModuleList else net.append(b)
    same(net, [a, b])
    assert net.insert(1, c) is net
    same(net, [a, c, b])
    net[-1] = d
    same(net, [a, c, d])
    same(net[:2], [a, c])
    same(net[::-2], [d, a])
    del net[0]
    same(net + kind(*([[b]] if kind is nn.ModuleList else [b])), [c, d, b])
    net += [a, b]
    same(net, [c, d, a, b])
    del net[1:3]
    assert net.pop() is b
    same(net, [c])
    for change in (lambda: net.append(3), lambda: net.insert(0, None), lambda: net.__setitem__(0, []),
                   lambda: net.extend([a, "x"])):  # fmt: skip
        with pytest.raises(TypeError, match=f"^{kind.__name__}: module must be a Module, but got "):
            change()
    for index in 1, -2:
        with pytest.raises(IndexError):
            net[index] = a
    same(net, [c])


def test_a_changed_sequential_computes_with_its_new_layers():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    x = ndl.ones(1, 2)
    net[-1] = nn.Linear(3, 5)
    assert net(x).shape == (1, 5)
    assert net[:2](x).shape == (1, 3)
    assert net[:2][0] is net[0]
    assert net.append(nn.Linear(5, 1)).eval()(x).shape == (1, 1)
    assert [name for name, _ in net.named_parameters()][-2:] == ["3.weight", "3.bias"]


def test_a_module_list_is_not_callable():
    with pytest.raises(NotImplementedError, match=r"^ModuleList: forward is not defined$"):
        nn.ModuleList([nn.ReLU()])(ndl.ones(1))


def test_module_dict_is_a_dict():
    relu, tanh = nn.ReLU(), nn.Linear(1, 1)
    table = nn.ModuleDict({"relu": relu})
    table["tanh"] = tanh
    table.update([("flat", nn.Flatten())])
    assert [*table] == [*table.keys()] == ["relu", "tanh", "flat"]
    assert [name for name, _ in table.named_parameters()] == ["tanh.weight", "tanh.bias"]
    assert table["relu"] is relu
    assert "tanh" in table
    assert len(table) == 3
    assert dict(table.items()) == dict(zip(table.keys(), table.values(), strict=True))
    del table["relu"]
    assert table.pop("tanh") is tanh
    assert repr(table) == repr(torch.nn.ModuleDict({"flat": torch.nn.Flatten()}))
    table.clear()
    assert table.children() == []
    for key, value in ("a.b", relu), ("", relu), (1, relu), ("a", 1):
        with pytest.raises((TypeError, ValueError), match=r"^ModuleDict: (key|module) must "):
            table[key] = value


def test_parameter_list_makes_parameters():
    mine = nn.Parameter(ndl.ones(1))
    values = nn.ParameterList([mine, ndl.zeros(2)])
    values.append(ndl.ones(3))
    values[1] = ndl.ones(4)
    assert [(name, p.shape) for name, p in values.named_parameters()] == [("0", (1,)), ("1", (4,)), ("2", (3,))]
    assert values[0] is mine
    assert len(values) == len(list(values)) == 3
    with pytest.raises(TypeError, match=r"^ParameterList: value must be a Tensor, but got int$"):
        values.append(3)


def test_an_empty_sequential_is_the_identity():
    x = ndl.ones(2)
    assert nn.Sequential()(x) is x
    assert len(nn.Sequential()) == 0


def relu_shapes(net, x):
    """The shapes of the results of relu in a call of the network."""

    shapes = []

    class Watcher:
        def made(self, value, op, inputs):
            if type(op).__name__ == "ReLU":
                shapes.append(value.shape)

    with watch(Watcher()), ndl.no_grad():
        net(x)
    return shapes


SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, -1.0, 2.0, 2.0]
POOLS = [
    nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d((2, 3), ceil_mode=True),
    nn.MaxPool2d(2, stride=1, dilation=2), nn.MaxPool2d(2, padding=1, dilation=2),
]  # fmt: skip


@pytest.mark.parametrize("pool", POOLS, ids=repr)
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_pooling_before_its_relu_gives_the_same(pool, create_graph):
    values = np.random.default_rng(0).choice([*SPECIAL, *range(-4, 4)], size=(3, 2, 6, 7))
    results = []
    for net in (nn.Sequential(nn.ReLU(), pool), lambda x: pool(nn.ReLU()(x))):
        x = ndl.Tensor(values, dtype="float32")
        y = net(x)
        weight = ndl.Tensor(np.arange(1 - y.size // 2, 1 + y.size - y.size // 2).reshape(y.shape), dtype="float32")
        y.backward(weight, create_graph=create_graph)
        results.append((y.numpy(), x.grad.numpy()))
    np.testing.assert_array_equal(*(y for y, _ in results))
    np.testing.assert_array_equal(*(grad for _, grad in results))


def test_relu_computes_only_the_maxima_that_follow():
    x = ndl.init.randn(2, 1, 8, 8)
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.ReLU())
    assert relu_shapes(net, x) == [(2, 1, 2, 2)] * 2
    assert [type(module) for module in net] == [nn.ReLU, nn.MaxPool2d, nn.MaxPool2d, nn.ReLU]
    assert relu_shapes(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, padding=1, dilation=2)), x) == [(2, 1, 8, 8)]
    assert nn.Sequential(nn.ReLU(), nn.MaxPool1d(2))(ndl.Tensor([[[True, False]]])).dtype == "int64"


def test_modules_with_hooks_and_subclasses_run_in_their_place():
    class Mine(nn.ReLU):
        pass

    x = ndl.init.randn(2, 1, 8, 8)
    assert relu_shapes(nn.Sequential(Mine(), nn.MaxPool2d(2)), x) == [(2, 1, 8, 8)]
    for i in (0, 1):
        net, seen = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), []
        with net[i].register_forward_hook(lambda module, args, y, seen=seen: seen.append((args[0].shape, y.shape))):
            assert relu_shapes(net, x) == [(2, 1, 8, 8)]
        assert seen == [((2, 1, 8, 8), (2, 1, 4, 4) if i else (2, 1, 8, 8))]
        net[i].forward = lambda x: x + 1
        assert relu_shapes(net, x) == ([(2, 1, 8, 8)] if i else [])


def test_what_a_subclass_of_sequential_adds_is_found():
    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(2, 2, bias=False))
            self.scale = nn.Parameter(ndl.Tensor(np.array([3], np.float32)))
            self.tail = nn.Linear(2, 1)

        def forward(self, x):
            return self.tail(super().forward(x) * self.scale)

    net = Scaled()
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "scale", "tail.weight", "tail.bias"]
    net.eval()
    assert not net.tail.training


@pytest.mark.parametrize("wrong", [ndl.relu, [nn.ReLU()], None])
def test_sequential_and_residual_take_modules_only(wrong):
    kind = type(wrong).__name__
    with pytest.raises(TypeError, match=f"^Sequential: module must be a Module, but got {kind}$"):
        nn.Sequential(nn.ReLU(), wrong)
    with pytest.raises(TypeError, match=f"^Residual: fn must be a Module, but got {kind}$"):
        nn.Residual(wrong)


class Double(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(ndl.Tensor(np.array([2], np.float32)))

    def forward(self, x):
        return x * self.gain


def test_residual_adds_its_input():
    block = nn.Residual(Double())
    x = ndl.Tensor(np.array([1, -3], np.float32))
    y = block(x)
    assert y.numpy().tolist() == [3, -9]
    y.sum().backward()
    assert x.grad.numpy().tolist() == [3, 3]
    assert [name for name, _ in block.named_parameters()] == ["fn.gain"]


def test_identity_is_its_input(device):
    x = ndl.ones(2, device=device)
    layer = nn.Identity()
    assert layer(x) is x
    assert layer.parameters() == layer.buffers() == []
    assert_as_in_torch(layer, torch.nn.Identity(), normal(3, 4), device)
    assert nn.Identity(54, unused=False)(x) is x  # what a layer in its place would take
