"""The course's op functions: values against NumPy and torch, gradients against differences, names of arguments."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl


def normal(*shape, dtype="float64"):
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def positive(*shape, dtype="float64"):
    return np.abs(normal(*shape, dtype=dtype)) + 0.5


def tensor(array, device):
    return ndl.Tensor(array, device=device)


def dilated(array, axes, dilation):
    """`dilation` zeros after every element along the axes that exist."""
    present = [axis for axis in axes if axis < array.ndim]
    result = np.zeros([n * (dilation + 1) if i in present else n for i, n in enumerate(array.shape)])
    result[tuple(slice(None, None, dilation + 1 if i in present else 1) for i in range(array.ndim))] = array
    return result


def swapped(first, second):
    return lambda a: np.swapaxes(a, first, second)


def row(name, oracle, *arrays, **options):
    """The op's name, its value by NumPy, its inputs and its keyword arguments."""
    text = f"{name} {' '.join(str(array.shape) for array in arrays)} {options or ''}"
    return pytest.param(getattr(ndl, name), oracle, arrays, options, id=text.replace("array", ""))


ROWS = [
    row("add", np.add, normal(2, 3), normal(3, 2).T),
    row("multiply", np.multiply, normal(2, 3), normal(3, 2).T),
    row("divide", np.divide, normal(5, 4), positive(5, 4)),
    row("power", np.power, positive(2, 3), normal(2, 3)),
    row("power", np.power, positive(1, 3), normal(3)),
    row("add_scalar", lambda a: a + 1.5, normal(2, 3), scalar=1.5),
    row("mul_scalar", lambda a: a * -2, normal(2, 3), scalar=-2),
    *(row("power_scalar", lambda a, s=s: a**s, positive(2, 3), scalar=s) for s in (0, 1, 2, 3, -1, -2, 0.5, -1.5)),
    row("divide_scalar", lambda a: a / 3, normal(2, 3), scalar=3),
    row("divide_scalar", lambda a: a / 2.5, normal(2, 3), scalar=np.array([2.5])),
    row("divide_scalar", lambda a: a / 2.5, normal(1), scalar=np.float64(2.5)),
    row("matmul", np.matmul, normal(5, 4), normal(4, 5)),
    row("matmul", np.matmul, normal(6, 6, 5, 4), normal(6, 6, 4, 3)),
    row("matmul", np.matmul, normal(6, 6, 5, 4), normal(4, 3)),
    row("matmul", np.matmul, normal(5, 4), normal(6, 6, 4, 3)),
    row("matmul", np.matmul, normal(2, 1, 3, 4), normal(5, 4, 2)),
    row("summation", lambda a: a.sum(), normal(5, 4)),
    row("summation", lambda a: a.sum(), normal(5, 4), axes=None),
    row("summation", lambda a: a.sum(1), normal(5, 4), axes=1),
    row("summation", lambda a: a.sum((0, 1)), normal(5, 4, 1), axes=(0, 1)),
    row("summation", lambda a: a.sum((0, 2)), normal(2, 3, 4), axes=[0, 2]),
    row("broadcast_to", lambda a: np.broadcast_to(a, (3, 3)), normal(3, 1), shape=(3, 3)),
    row("broadcast_to", lambda a: np.broadcast_to(a, (4, 2, 3)), normal(1, 3), shape=(4, 2, 3)),
    row("broadcast_to", lambda a: np.broadcast_to(a, (3, 3, 3)), normal(1), shape=(3, 3, 3)),
    row("broadcast_to", lambda a: np.broadcast_to(a, (3, 3, 3)), normal(), shape=(3, 3, 3)),
    row("broadcast_to", lambda a: np.broadcast_to(a, (5, 4, 1)), normal(5, 4, 1), shape=(5, 4, 1)),
    row("reshape", lambda a: a.reshape(4, 5), normal(5, 4), shape=(4, 5)),
    row("reshape", lambda a: a.reshape(()), normal(1, 1), shape=()),
    row("transpose", swapped(1, 2), normal(3, 5, 4)),
    row("transpose", swapped(1, 2), normal(3, 5, 4), axes=None),
    row("transpose", swapped(0, 2), normal(3, 5, 4), axes=(0, 2)),
    row("transpose", swapped(0, 1), normal(3, 5, 4), axes=(1, 0)),
    row("negate", np.negative, normal(5, 4)),
    row("log", np.log, positive(5, 4)),
    row("exp", np.exp, normal(5, 4)),
    row("relu", lambda a: np.maximum(a, 0), normal(5, 4)),
    row("tanh", np.tanh, normal(5, 4)),
    row("logsumexp", lambda a: np.log(np.exp(a).sum()), normal(3, 3, 3)),
    row("logsumexp", lambda a: np.log(np.exp(a).sum(1)), normal(3, 3, 3), axes=1),
    row("logsumexp", lambda a: np.log(np.exp(a).sum((0, 2))), normal(3, 2, 4), axes=(0, 2)),
    row("logsoftmax", lambda a: a - np.log(np.exp(a).sum(1, keepdims=True)), normal(3, 4)),
    row("flip", lambda a: np.flip(a, (0,)), normal(2, 3), axes=(0,)),
    row("flip", lambda a: np.flip(a, (0, 2)), normal(2, 3, 4), axes=(0, 2)),
    *(
        row("dilate", lambda a, axes=axes, d=d: dilated(a, axes, d), normal(*shape), axes=axes, dilation=d)
        for shape, axes, d in [
            ((2, 5), (0,), 1),
            ((2, 5), (1,), 2),
            ((2, 5), (0, 1), 1),
            ((2, 2), (0, 1), 0),
            ((2, 5), (2,), 1),
            ((2, 5), (1, 2), 1),
            ((2, 1, 3, 2), (1, 2), 3),
        ]
    ),
    row("undilate", lambda a: a[::2, ::2], normal(4, 6), axes=(0, 1), dilation=1),
    row("undilate", lambda a: a[:, ::3], normal(4, 6), axes=(1,), dilation=2),
]


@pytest.mark.parametrize(("function", "oracle", "arrays", "options"), ROWS)
def test_values_and_gradients(function, oracle, arrays, options, device):
    """In float64 to the last digits, in float32 without leaving it; first and second derivatives by differences."""
    y = function(*(tensor(array, device) for array in arrays), **options)
    assert (y.shape, y.dtype, y.device) == (np.shape(oracle(*arrays)), "float64", device)
    assert_allclose(y.numpy(), oracle(*arrays), rtol=1e-12, atol=1e-14)
    y = function(*(tensor(array.astype("float32"), device) for array in arrays), **options)
    assert y.dtype == "float32"
    assert_allclose(y.numpy(), oracle(*arrays), rtol=1e-4, atol=1e-5)
    assert ndl.gradcheck(lambda *x: function(*x, **options), *(tensor(array, device) for array in arrays))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("power_scalar", {"scalar": ...}),
        ("divide_scalar", {"scalar": ...}),
        ("add_scalar", {"scalar": ...}),
        ("mul_scalar", {"scalar": ...}),
        ("summation", {"axes": None}),
        ("broadcast_to", {"shape": ...}),
        ("reshape", {"shape": ...}),
        ("transpose", {"axes": None}),
        ("logsumexp", {"axes": None}),
        ("flip", {"axes": ...}),
        ("dilate", {"axes": ..., "dilation": ...}),
        ("undilate", {"axes": ..., "dilation": ...}),
        ("conv", {"weight": ..., "stride": 1, "padding": 1}),
    ],
)
def test_arguments(name, arguments):
    """The names after the first tensor (the course does not fix the names of other tensors), and the defaults."""
    parameters = list(inspect.signature(getattr(ndl, name)).parameters.values())[1 : 1 + len(arguments)]
    for parameter, (expected, default) in zip(parameters, arguments.items(), strict=True):
        assert parameter.name == expected
        assert default is ... or parameter.default == default


# ---- scalars ---------------------------------------------------------------------------------------------------------


def test_a_power_of_integers(device):
    x, y = tensor(np.array([[1, 2, 3]]), device), tensor(np.array([2, 0, 3]), device)
    assert ndl.power(x, y).numpy().tolist() == [[1, 1, 27]]
    assert (tensor(positive(1, 3), device) ** y).shape == (1, 3)


def test_the_power_of_zero(device):
    """x ** 0 is 1 with gradient 0 for every x."""
    x = tensor([0.0, -2.0, 3.0], device)
    y = ndl.power_scalar(x, scalar=0)
    y.backward()
    assert (y.numpy().tolist(), x.grad.numpy().tolist()) == ([1, 1, 1], [0, 0, 0])
    (x**2).backward()
    assert x.grad.numpy().tolist() == [0, -4, 6]


def test_an_array_of_one_element_is_a_scalar(device):
    x = tensor(normal(5, 4, dtype="float32"), device)
    y = ndl.divide_scalar(x, scalar=np.random.rand(1))
    assert (y.shape, y.dtype) == ((5, 4), "float32")
    assert tuple(y.inputs) == (x,)
    y.backward()
    assert (x.grad.shape, x.grad.dtype) == ((5, 4), "float32")


def test_the_slope_of_relu_at_zero(device):
    x = tensor([-1.0, 0.0, 2.0], device)
    ndl.relu(x).backward()
    assert x.grad.numpy().tolist() == [0, 0, 1]


# ---- exponentials without overflow -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logsoftmax_of_large_inputs(dtype, device):
    array = (normal(3, 4) * 1e5).astype(dtype)
    x, expected = tensor(array, device), torch.tensor(array, requires_grad=True)
    weights = normal(4, 3, dtype=dtype).T
    y = ndl.ops.logsoftmax(x)
    y.backward(tensor(weights, device))
    torch.log_softmax(expected, 1).backward(torch.tensor(np.ascontiguousarray(weights)))
    assert np.isfinite(y.numpy()).all()
    assert_allclose(y.numpy(), torch.log_softmax(expected, 1).detach(), rtol=1e-5)
    assert_allclose(x.grad.numpy(), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("axes", [None, (0,), (1, 2), (0, 2)])
def test_logsumexp_of_large_inputs(axes, device):
    """In float64 the differences of 1e10 and 1e8 count: float32 would round them away."""
    array = np.array([1e10, 1e8, -1e10, 1e10 - 1.0, 1e10 + 0.5, 0, 1e8, 1e8 + 2]).reshape(2, 2, 2)
    x, expected = tensor(array, device), torch.tensor(array, requires_grad=True)
    y = ndl.ops.logsumexp(x, axes=axes)
    y.backward()
    result = torch.logsumexp(expected, (0, 1, 2) if axes is None else axes)
    result.sum().backward()
    assert np.isfinite(y.numpy()).all()
    assert_allclose(y.numpy(), result.detach(), rtol=1e-14)
    assert_allclose(x.grad.numpy(), expected.grad, rtol=1e-5)
    assert ((x.grad.numpy() > 0.1) & (x.grad.numpy() < 0.9)).any() or axes == (0,)


# ---- dilate ----------------------------------------------------------------------------------------------------------


def test_dilation_puts_zeros_after_the_last_element_too(device):
    x = tensor([1.0, 2.0], device)
    assert ndl.dilate(x, axes=(0,), dilation=2).numpy().tolist() == [1, 0, 0, 2, 0, 0]
    assert ndl.undilate(tensor([1.0, 0, 0, 2, 0, 0], device), (0,), 2).numpy().tolist() == [1, 2]


@pytest.mark.parametrize(("axes", "dilation"), [((0,), 1), ((0, 1), 2), ((0, 1), 0), ((2,), 1)])
def test_dilate_and_undilate_are_the_gradients_of_each_other(axes, dilation, device):
    array = normal(2, 3)
    x = tensor(array, device)
    y = ndl.dilate(x, axes, dilation)
    weights = np.random.rand(*y.shape)
    y.backward(tensor(weights, device))
    assert_array_equal(x.grad.numpy(), ndl.undilate(tensor(weights, device), axes, dilation).numpy())
    y = tensor(y, device)
    ndl.undilate(y, axes, dilation).backward(tensor(array, device))
    assert_array_equal(y.grad.numpy(), dilated(array, axes, dilation))


# ---- conv ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("k", [1, 3, 5, 7])
def test_conv(k, stride, padding, device):
    """Against torch, values and gradients; the padding of 1 and 2 is more than k - 1 where k is 1."""
    a, b = normal(2, 8, 7, 3), normal(k, k, 3, 4)
    x, w = tensor(a, device), tensor(b, device)
    u = torch.tensor(a.transpose(0, 3, 1, 2), requires_grad=True)
    v = torch.tensor(b.transpose(3, 2, 0, 1), requires_grad=True)
    y = ndl.conv(x, w, stride=stride, padding=padding)
    expected = torch.conv2d(u, v, stride=stride, padding=padding)
    sizes = tuple((n + 2 * padding - k) // stride + 1 for n in (8, 7))
    assert y.shape == (2, *sizes, 4)
    assert_allclose(y.numpy(), expected.detach().permute(0, 2, 3, 1), rtol=1e-10, atol=1e-12)
    weights = normal(2, *sizes, 4)
    y.backward(tensor(weights, device))
    expected.backward(torch.tensor(weights.transpose(0, 3, 1, 2)))
    assert_allclose(x.grad.numpy(), u.grad.permute(0, 2, 3, 1), rtol=1e-10, atol=1e-12)
    assert_allclose(w.grad.numpy(), v.grad.permute(2, 3, 1, 0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("k", "stride", "padding"), [(3, 2, 1), (1, 1, 2)])
def test_second_derivatives_of_conv(k, stride, padding, device):
    x, w = tensor(normal(1, 4, 3, 2), device), tensor(normal(k, k, 2, 2), device)
    assert ndl.gradcheck(lambda x, w: ndl.conv(x, w, stride=stride, padding=padding), x, w)


def test_rows_that_the_stride_leaves_over_have_no_gradient(device):
    x, w = tensor(normal(1, 6, 6, 2), device), tensor(positive(3, 3, 2, 2), device)
    ndl.conv(x, w, stride=4, padding=0).backward()
    grad = x.grad.numpy()
    assert grad[:, :3, :3].all()
    assert not grad[:, 3:].any()
    assert not grad[:, :, 3:].any()


# ---- several tensors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(("shape", "axis"), [((5, 5), 0), ((5, 5), 1), ((5, 5), 2), ((1, 5, 7), 2), ((), 0)])
def test_stack(shape, axis, kind, device):
    arrays = [normal(*shape) + i for i in range(3)]
    x = kind(tensor(array, device) for array in arrays)
    y = ndl.stack(x, axis=axis)
    assert_array_equal(y.numpy(), np.stack(arrays, axis))
    weights = np.random.rand(*y.shape)
    y.backward(tensor(weights, device))
    for i, part in enumerate(x):
        assert_array_equal(part.grad.numpy(), weights.take(i, axis))
    assert ndl.gradcheck(lambda *parts: ndl.stack(parts, axis=axis), *x)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_split(axis, device):
    array = normal(2, 3, 4)
    parts = ndl.split(tensor(array, device), axis)
    assert isinstance(parts, ndl.TensorTuple)
    assert len(parts) == array.shape[axis]
    for i, part in enumerate(parts):
        assert_array_equal(part.numpy(), array.take(i, axis), strict=True)
    assert_array_equal(ndl.stack(parts.tuple(), axis).numpy(), array)
    assert ndl.gradcheck(lambda x: ndl.split(x, axis), tensor(array, device))


def test_tuples(device):
    x, y = tensor([1.0], device), tensor([2.0], device)
    pair = ndl.make_tuple(x, y)
    assert ndl.tuple_get_item(pair, 0) is x
    assert ndl.tuple_get_item(pair, 1) is y
    sums = ndl.ops.fused_add_scalars(x, 3, 5)
    assert isinstance(sums, ndl.TensorTuple)
    assert [part.numpy().tolist() for part in sums] == [[4], [6]]
    (sums[0] * 2 + sums[1]).backward()
    assert x.grad.numpy().tolist() == [3]


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b, c: (a @ b + c) * (a @ b),
        lambda a, b, c: ndl.tanh(a @ b) / (c * c + 1),
        lambda a, b, c: ndl.logsumexp(ndl.reshape(a @ b, (9,)), axes=0) * ndl.summation(c),
        lambda a, b, c: ndl.power_scalar(ndl.exp(ndl.transpose(a @ b)), 0.5) - ndl.relu(c),
    ],
)
def test_compositions(function, device):
    a, b, c = normal(3, 2), normal(2, 3), normal(3, 3)
    assert ndl.gradcheck(function, *(tensor(array, device) for array in (a, b, c)))
