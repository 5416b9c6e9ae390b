"""`compute_gradient`, the fused form of a gradient, equals `gradient`, which the table of ops compares with torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import needle as ndl
from needle import nn, ops
from needle.autograd import TensorOp, find_topo_sort
from needle.backend.communicator import Alone
from needle.kernels import Window
from needle.ops.conv import Correlate, CorrelateTranspose, RectifiedCorrelate
from needle.ops.cross_entropy import CrossEntropy, CrossEntropyWithGradient
from needle.ops.linear import Linear, RectifiedLinear
from needle.ops.norm import Standardize
from needle.ops.norm_across_ranks import StandardizeAcrossRanks
from needle.ops.squared_error import SquaredErrorWithGradient
from tests.ops.op_classes import all_op_classes


def both(function, *arrays, device, dtype="float64"):
    """The gradients of the leaves of a weighted result, by ops and in place."""
    results = []
    for create_graph in (True, False):
        leaves = [ndl.Tensor(array, device=device, dtype=dtype) for array in arrays]
        y = function(*leaves)
        weights = np.random.default_rng(1).normal(size=y.shape)
        y.backward(ndl.Tensor(weights, device=device, dtype=dtype), create_graph=create_graph)
        results.append([leaf.grad for leaf in leaves])
    return results


def draw(*shapes):
    generator = np.random.default_rng(0)
    return [generator.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("axes", [(0, 2), (1, 2), 2, (0, 1, 2)], ids=str)
@pytest.mark.parametrize("affine", [(1, 3, 1), (5,), (4, 3, 5)], ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_standardize(axes, affine, dtype, tolerance, device):
    arrays = draw((4, 3, 5), affine, affine)
    by_ops, in_place = both(lambda x, w, b: ops.standardize(x, axes, w, b)[0], *arrays, device=device, dtype=dtype)
    for expected, actual in zip(by_ops, in_place, strict=True):
        assert actual.dtype == expected.dtype == dtype
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=tolerance, atol=tolerance)
        assert expected.requires_grad
        assert not actual.requires_grad


def test_standardize_rows_shorter_than_the_buffer_of_ufuncs(device):
    arrays = draw((3, 700), (3, 1), (3, 1))
    by_ops, in_place = both(lambda x, w, b: ops.standardize(x, 1, w, b)[0], *arrays, device=device)
    for expected, actual in zip(by_ops, in_place, strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("parameter", ["", "w", "b"])
def test_standardize_without_weight_or_bias(parameter, device):
    x, w, b = draw((4, 3), (3,), (3,))
    named = {"w": {"weight": w}, "b": {"bias": b}, "": {}}[parameter]

    def function(x, *affine):
        return ops.standardize(x, 0, **dict(zip(named, affine, strict=True)))[0]

    by_ops, in_place = both(function, x, *named.values(), device=device)
    for expected, actual in zip(by_ops, in_place, strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)


def test_the_statistics_match_numpy_and_are_constants(device):
    (array,) = draw((4, 3, 5))
    y, average, variance = ops.standardize(ndl.Tensor(array, device=device), (0, 2))
    np.testing.assert_allclose(average.numpy(), array.mean((0, 2), keepdims=True))
    np.testing.assert_allclose(variance.numpy(), array.var((0, 2), keepdims=True))
    assert y.requires_grad
    assert not average.requires_grad
    assert not variance.requires_grad


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_logsoftmax(axis, device):
    by_ops, in_place = both(lambda x: ops.logsoftmax(x, axis), *draw((4, 3)), device=device)
    np.testing.assert_allclose(in_place[0].numpy(), by_ops[0].numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3), (2, 5, 3, 4)], ids=str)
@pytest.mark.parametrize("order", ["row-major", "batch-last"])
def test_cross_entropy(shape, order, device):
    """The gradient in place equals the gradient by ops, the loss equals the formula, for logits of any size."""
    (array,) = draw(shape)
    array *= 1000
    axis = min(len(shape) - 1, 1)
    classes = np.random.default_rng(3).integers(0, 5, shape[:axis] + shape[axis + 1 :])
    if order == "batch-last":
        array = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 0, -1)), -1, 0)
    targets = ndl.Tensor(classes, device=device, requires_grad=False)
    by_ops, in_place = both(lambda x: CrossEntropy()(x, targets), array, device=device)
    np.testing.assert_allclose(in_place[0].numpy(), by_ops[0].numpy(), rtol=1e-12, atol=1e-12)
    assert by_ops[0].requires_grad
    assert not in_place[0].requires_grad
    shifted = array - array.max(axis, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    picked = np.take_along_axis(log_p, np.expand_dims(classes, axis), axis)
    x = ndl.Tensor.make_const(device.asarray(array))
    np.testing.assert_allclose(CrossEntropy()(x, targets).item(), -picked.mean())
    assert ndl.gradcheck(lambda x: CrossEntropy()(x, targets), ndl.Tensor(array / 1000, device=device))


@pytest.mark.parametrize("mean", [True, False])
def test_losses_with_gradients_equal_those_by_ops(mean, device):
    """They are taken on GPUs."""
    x, target = (ndl.Tensor(array, device=device) for array in draw((4, 3, 2), (4, 3, 2)))
    classes = ndl.Tensor(np.random.default_rng(2).integers(0, 3, (4, 2)), device=device, requires_grad=False)
    reduction = "mean" if mean else "sum"

    def cross_entropy(x):
        return CrossEntropyWithGradient(1, mean)(x, classes)[0]

    def squared_error(x, target):
        return SquaredErrorWithGradient(mean)(x, target)[0]

    on_host = [ndl.Tensor(value.numpy()) for value in (x, target, classes)]
    expected = nn.functional.cross_entropy(on_host[0], on_host[2], ignore_index=1, reduction=reduction)
    np.testing.assert_allclose(cross_entropy(x).numpy(), expected.numpy(), rtol=1e-12)
    expected = nn.functional.mse_loss(*on_host[:2], reduction=reduction)
    np.testing.assert_allclose(squared_error(x, target).numpy(), expected.numpy(), rtol=1e-12)
    assert ndl.gradcheck(cross_entropy, x)
    assert ndl.gradcheck(squared_error, x, target)


@pytest.mark.parametrize("create_graph", [True, False])
def test_a_frozen_input_gets_no_gradient(create_graph, device):
    x, w, b = (ndl.Tensor(array, device=device) for array in draw((4, 3), (3,), (3,)))
    x.requires_grad = w.requires_grad = False
    ops.standardize(x, 0, w, b)[0].sum().backward(create_graph=create_graph)
    assert x.grad is w.grad is None
    np.testing.assert_allclose(b.grad.numpy(), [4, 4, 4])


def test_the_gradient_of_relu_keeps_the_memory_order_of_its_input():
    x = ndl.Tensor(np.random.randn(2, 3, 4, 5).astype("float32"))
    inner = ndl.permute(x, (3, 0, 1, 2)) * 1  # its first axis is innermost in memory
    y = ops.relu(inner)
    y.backward(ndl.Tensor(np.ones(y.shape, "float32")))
    (gate,) = [node for node in find_topo_sort([x.grad]) if isinstance(node.op, ops.elementwise.ReLUGrad)]
    assert gate.cached_data.strides == inner.cached_data.strides
    assert gate.cached_data.strides[0] == 1


@pytest.mark.parametrize("a_order", "CF")
@pytest.mark.parametrize("b_order", "CF")
def test_the_gradients_of_a_matrix_product_have_the_memory_order_of_its_operands(a_order, b_order, device):
    arrays = draw((5, 4), (4, 3))
    by_ops, in_place = both(lambda a, b: a @ b, *arrays, device=device)
    for expected, actual in zip(by_ops, in_place, strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    orders = zip(arrays, (a_order, b_order), strict=True)
    a, b = (ndl.Tensor.make_const(device.xp.asarray(device.asarray(x), order=order), True) for x, order in orders)
    (a @ b).sum().backward(create_graph=False)
    assert a.grad.array.strides == a.array.strides
    assert b.grad.array.strides == b.array.strides


def test_the_gradient_of_relu_does_not_depend_on_its_input():
    x = ndl.Tensor([-1.0, 2.0])
    ops.relu(x).backward(ndl.Tensor([3.0, 4.0], requires_grad=False))
    assert x.grad.numpy().tolist() == [0, 4]
    assert not x.grad.requires_grad


# ---- every op that has one -------------------------------------------------------------------------------------------

FUSED = {
    op_class.__name__: op_class
    for op_class in all_op_classes()
    if op_class.__module__.startswith("needle.ops.") and op_class.compute_gradient is not None
}

WINDOW = Window((2, 1), ((1, 0), (2, 2)), (1, 2), 2)
CLASSES = np.array([[0, 3], [2, 2], [1, 4]])

# op class, variant -> (op, arrays of its floating inputs, constant inputs); weighted, so that no gradient is uniform
CASES = {
    "Correlate": (Correlate(WINDOW), draw((3, 4, 7, 6), (6, 2, 3, 2), (6,)), ()),
    "RectifiedCorrelate": (RectifiedCorrelate(WINDOW), draw((3, 4, 7, 6), (6, 2, 3, 2), (6,)), ()),
    "Linear": (Linear(), draw((6, 4), (4, 3), (1, 3)), ()),
    "Linear, rows of rows": (Linear(), draw((2, 3, 4), (4, 3), (3,)), ()),
    "Linear, no bias": (Linear(), draw((6, 4), (4, 3)), ()),
    "RectifiedLinear": (RectifiedLinear(), draw((6, 4), (4, 3), (3,)), ()),
    "CorrelateTranspose": (
        CorrelateTranspose(Window((1,), ((0, 0),), (1,)), (5,)), draw((2, 3, 4), (3, 2, 2), (2,)), ()
    ),
    "CrossEntropy": (CrossEntropy(), draw((3, 5, 2)), (CLASSES,)),
    "CrossEntropyWithGradient": (CrossEntropyWithGradient(1, True), draw((3, 5, 2)), (CLASSES,)),
    "CrossEntropyWithGradient, sum": (CrossEntropyWithGradient(-1, False), draw((3, 5, 2)), (CLASSES,)),
    "SquaredErrorWithGradient": (SquaredErrorWithGradient(True), draw((3, 5), (3, 5)), ()),
    "SquaredErrorWithGradient, sum": (SquaredErrorWithGradient(False), draw((3, 5), (3, 5)), ()),
    "LogSoftmax": (ops.LogSoftmax(1), draw((3, 5, 2)), ()),
    "MatMul": (ops.MatMul(), draw((3, 1, 2, 4), (5, 4, 3)), ()),
    "Standardize": (Standardize((0, 2), 1e-5, True, True, (1, 4, 1)), draw((3, 4, 5), (4,), (4,)), ()),
    "Sigmoid": (ops.elementwise.Sigmoid(), draw((3, 5)), ()),
    "Tanh": (ops.Tanh(), draw((3, 5)), ()),
    "Standardize, relu": (Standardize((0, 2), 1e-5, True, True, (1, 4, 1), True), draw((3, 4, 5), (4,), (4,)), ()),
    "Standardize, relu, weight by column": (
        Standardize((1,), 1e-5, True, True, None, True), draw((6, 5), (5,), (5,)), ()
    ),
    "StandardizeAcrossRanks": (
        StandardizeAcrossRanks(Alone(), (0, 2), 1e-5, True, True, (1, 4, 1), True), draw((3, 4, 5), (4,), (4,)), ()
    ),
}


def gradients(name, needed, create_graph, device):
    """The gradients of a weighted result in the floating inputs; only the `needed` inputs require one."""
    op, arrays, constants = CASES[name]
    leaves = [ndl.Tensor(x, device=device, requires_grad=need) for x, need in zip(arrays, needed, strict=True)]
    result = op(*leaves, *(ndl.Tensor(x, device=device, requires_grad=False) for x in constants))
    y = result[0] if isinstance(result, ndl.TensorTuple) else result
    weights = np.random.default_rng(5).normal(size=y.shape)
    y.backward(ndl.Tensor(weights, device=device), create_graph=create_graph)
    return [x.grad for x in leaves]


def each_subset(name):
    count = len(CASES[name][1])
    return [needed for needed in itertools.product((True, False), repeat=count) if any(needed)]


def test_every_fused_gradient_has_a_case():
    assert FUSED.keys() == {name.split(",")[0] for name in CASES}


@pytest.mark.parametrize(("name", "needed"), [(name, needed) for name in CASES for needed in each_subset(name)])
def test_a_fused_gradient_equals_the_gradient(name, needed, device):
    """For every choice of inputs that require a gradient: the same values, and none for the others."""
    exact, fused = (gradients(name, needed, create_graph, device) for create_graph in (True, False))
    for expected, actual, need in zip(exact, fused, needed, strict=True):
        assert (expected is not None, actual is not None) == (need, need)
        if need:
            assert (actual.shape, actual.dtype, actual.requires_grad) == (expected.shape, expected.dtype, False)
            np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_backward_without_a_graph_uses_it(name, monkeypatch):
    """And the comparison can fail: a fused gradient that is off by a thousandth differs."""
    op_class, needed = FUSED[name.split(",")[0]], [True] * len(CASES[name][1])
    exact, right = gradients(name, needed, True, ndl.cpu()), op_class.compute_gradient

    def wrong(self, *arguments, needed):
        return tuple(None if x is None else x * 1.001 for x in right(self, *arguments, needed=needed))

    monkeypatch.setattr(op_class, "compute_gradient", wrong)
    for expected, actual in zip(exact, gradients(name, needed, False, ndl.cpu()), strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy() * 1.001, rtol=1e-9, atol=1e-12)


def test_a_wrong_number_of_fused_gradients_is_an_error(monkeypatch):
    monkeypatch.setattr(ops.LogSoftmax, "compute_gradient", lambda self, *arrays, needed: (arrays[0], arrays[0]))
    message = r"backward: an op must return one gradient for each of its 1 inputs, but LogSoftmax\(axis=1\) returned 2"
    with pytest.raises(ValueError, match=message):
        ops.logsoftmax(ndl.ones(2, 3, requires_grad=True)).backward(create_graph=False)


# ---- ops of one's own ------------------------------------------------------------------------------------------------


class Doubled(TensorOp):
    """2x, with a fused gradient."""

    saved_inputs = ()

    def compute(self, x):
        return x + x

    def gradient(self, out_grad, node):
        return out_grad + out_grad

    def compute_gradient(self, out_grad, output, x, *, needed):
        return out_grad + out_grad


class ProductOfTuple(TensorOp):
    """x · y for a tuple (x, y): an op whose input is a tuple."""

    def compute(self, pair):
        return pair[0] * pair[1]

    def gradient(self, out_grad, node):
        (pair,) = node.inputs
        return {0: out_grad * pair[1], 1: out_grad * pair[0]}

    def compute_gradient(self, out_grad, output, pair, *, needed):
        return ((out_grad * pair[1], out_grad * pair[0]),)


def test_a_single_fused_gradient_need_not_be_a_tuple(device):
    x = ndl.Tensor([1.0, 2.0], device=device)
    Doubled()(x).backward(create_graph=False)
    assert x.grad.numpy().tolist() == [2, 2]


def test_a_fused_gradient_of_a_tuple(device):
    x, y = ndl.Tensor([1.0, 2.0], device=device), ndl.Tensor([3.0, 4.0], device=device)
    ProductOfTuple()(ops.make_tuple(x, y)).sum().backward(create_graph=False)
    assert (x.grad.numpy().tolist(), y.grad.numpy().tolist()) == ([3, 4], [1, 2])


def test_the_gradient_of_a_parameter_is_a_plain_tensor():
    """A module that stores it must not adopt it as one more parameter."""
    layer = nn.Conv2d(1, 1, 2)
    layer(ndl.ones(1, 1, 3, 3)).sum().backward(create_graph=False)
    assert type(layer.weight.grad) is ndl.Tensor
    layer.last_grad = layer.weight.grad
    assert len(layer.parameters()) == 2


class Hundredfold:
    """A gradient to mix in."""

    def gradient(self, out_grad, node):
        return out_grad * 100


@pytest.mark.parametrize("bases", [(Hundredfold, ops.LogSoftmax), (ops.LogSoftmax,)], ids=["mixin", "subclass"])
def test_a_class_with_another_gradient_does_not_inherit_the_fused_one(bases):
    Sharp = type("Sharp", bases, {} if len(bases) > 1 else {"gradient": Hundredfold.gradient})
    sharper = type("Sharper", (Sharp,), {})
    for op_class in (Sharp, sharper):
        assert op_class.compute_gradient is None
        x = ndl.Tensor([[1.0, 2.0]])
        op_class(1)(x).sum().backward(create_graph=False)
        assert x.grad.numpy().tolist() == [[100, 100]]


def test_a_subclass_inherits_the_fused_gradient_with_its_gradient():
    assert type("Same", (ops.LogSoftmax,), {}).compute_gradient is ops.LogSoftmax.compute_gradient


@pytest.mark.parametrize("former", [{"reads_inputs": False}, {"reads_output": True}])
def test_the_former_names_of_saved_values_are_refused(former):
    message = r"^Old: an op must define saved_inputs, saves_output, but got their former names$"
    with pytest.raises(TypeError, match=message):
        type("Old", (TensorOp,), former)
    with pytest.raises(TypeError, match=message):
        type("Old", (type("Former", (), former), TensorOp), {})


def test_gradcheck_checks_the_fused_gradient():
    class Wrong(Doubled):
        def compute_gradient(self, out_grad, output, x, *, needed):
            return out_grad * 3

    x = ndl.Tensor([1.0, 2.0])
    assert ndl.gradcheck(Doubled(), x)
    with pytest.raises(AssertionError, match=r"^gradcheck: Wrong\(\) has a wrong derivative of order 1 in input 0"):
        ndl.gradcheck(Wrong(), x)
