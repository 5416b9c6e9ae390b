"""Points that the table does not cover: large and small arguments, infinities, points without a derivative."""

import numpy as np
import pytest
import torch

import needle as ndl
from needle import ops, tuning


def derivative(function, values, device, dtype="float64"):
    """f(x) and the derivative of its sum, as host arrays."""
    x = ndl.Tensor(values, dtype=dtype, device=device)
    y = function(x)
    y.backward()
    return y.numpy(), x.grad.numpy()


@pytest.mark.parametrize(("dtype", "rtol"), [("float16", 2e-3), ("float32", 1e-6), ("float64", 1e-14)])
def test_sigmoid_is_exact_where_it_is_small(dtype, rtol, device):
    values = np.array([-9.0, -5.0, -1.0, 0.0, 1.0, 5.0, 9.0])
    y, slope = derivative(ops.sigmoid, values, device, dtype)
    expected = 1 / (1 + np.exp(-values))
    np.testing.assert_allclose(y, expected, rtol=rtol)
    np.testing.assert_allclose(slope[:4], (expected * (1 - expected))[:4], rtol=2 * rtol)
    small = ndl.Tensor([-20.0, -60.0], device=device)
    np.testing.assert_allclose(ops.log(ops.sigmoid(small)).numpy(), [-20, -60], rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nothing_overflows(dtype, device):
    """Warnings are errors: an overflow on the way would show."""
    large = [-3e4, 0.0, 3e4]
    y, slope = derivative(ops.sigmoid, large, device, dtype)
    assert (y.tolist(), slope.tolist()) == ([0, 0.5, 1], [0, 0.25, 0])
    y, slope = derivative(ops.tanh, large, device, dtype)
    assert (y.tolist(), slope.tolist()) == ([-1, 0, 1], [0, 1, 0])
    y, slope = derivative(ops.logsumexp, large, device, dtype)
    assert (y, slope.tolist()) == (np.dtype(dtype).type(3e4), [0, 0, 1])
    y, slope = derivative(ops.logsoftmax, large, device, dtype)
    np.testing.assert_allclose(y, [-6e4, -3e4, 0], rtol=1e-3)
    assert slope.tolist() == [1, 1, -2]
    y, slope = derivative(ops.softmax, large, device, dtype)
    assert (y.tolist(), slope.tolist()) == ([0, 0, 1], [0, 0, 0])


def test_softmax_is_as_exact_as_its_dtype(device):
    """exp(logsoftmax) is not: it rounds large logarithms."""
    x = np.asarray(30 * np.random.standard_normal((200, 31)), "float32")
    exact = np.exp(x.astype("float64") - x.max(1, keepdims=True))
    exact /= exact.sum(1, keepdims=True)
    direct, indirect = (
        np.sqrt(np.mean((y.numpy() / exact - 1)[exact > 1e-30] ** 2))
        for y in (ops.softmax(ndl.Tensor(x, device=device)), ops.exp(ops.logsoftmax(ndl.Tensor(x, device=device))))
    )
    assert direct < 0.9 * indirect
    assert direct < 2e-6


def test_logsumexp_of_infinities(device):
    y, slope = derivative(ops.logsumexp, [-np.inf, 1.0], device)
    assert (y.tolist(), slope.tolist()) == (1, [0, 1])
    y = ops.logsumexp(ndl.Tensor([np.inf, 1.0], device=device))
    assert y.item() == np.inf


def test_logsumexp_of_no_elements_is_minus_infinity(device):
    for shape, axes in (((0,), None), ((2, 0), -1), ((0, 3), 0), ((2, 0, 3), (0, 1))):
        expected = torch.logsumexp(torch.zeros(shape), tuple(range(len(shape))) if axes is None else axes)
        y, slope = derivative(lambda x, a=axes: ops.logsumexp(x, a), np.zeros(shape), device)
        assert (y.shape, slope.shape) == (tuple(expected.shape), shape)
        np.testing.assert_array_equal(y, expected.numpy())


def test_powers_of_zero(device):
    """x ** 0 is 1 with derivative 0; x ** 1 and x ** 2 have derivatives 1 and 0 at 0, finite for any order."""
    for exponent, (value, first, second) in {0: (1, 0, 0), 1: (0, 1, 0), 2: (0, 0, 2), 3: (0, 0, 0)}.items():
        constant = ndl.Tensor(float(exponent), device=device, requires_grad=False)
        for power in (exponent, float(exponent), constant):
            x = ndl.Tensor(0.0, device=device)
            y = x**power
            y.backward()
            slope = x.grad
            assert (y.item(), slope.item()) == (value, first)
            if slope.requires_grad:
                slope.backward()
                assert x.grad.item() == second


def test_exponents_of_zero(device):
    """0 ** b is 0 for every positive b, so that its derivatives are 0."""
    b = ndl.Tensor([0.5, 1.0, 2.0], device=device)
    y = ops.power(0.0, b)
    y.backward()
    slope = b.grad
    slope.backward()
    assert (y.numpy().tolist(), slope.numpy().tolist(), b.grad.numpy().tolist()) == ([0] * 3, [0] * 3, [0] * 3)


@pytest.mark.parametrize("name", ["max", "min"])
def test_equal_elements_share_the_gradient(name, device):
    _, slope = derivative(getattr(ops, name), [2.0, 2.0, 2.0, 2.0], device)
    assert slope.tolist() == [0.25] * 4


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_equal_operands_share_the_gradient(name, device):
    a, b = ndl.Tensor([1.0], device=device), ndl.Tensor([1.0], device=device)
    getattr(ops, name)(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (0.5, 0.5)
    _, slope = derivative(lambda x: getattr(ops, name)(x, x), [3.0], device)
    assert slope.tolist() == [1]


def test_kinks_have_torchs_derivatives(device):
    for function, expected in (
        (ops.relu, 0),
        (ops.abs, 0),
        (lambda x: ops.clip(x, 0, 1), 1),
        (lambda x: ops.clip(x, -1, 0), 1),
        (lambda x: ops.maximum(x, 0), 0.5),
    ):
        _, slope = derivative(function, [0.0], device)
        assert slope.tolist() == [expected]


@pytest.mark.parametrize("shared", [False, True])
def test_relu_of_many_elements_equals_relu_of_few(shared, device, monkeypatch):
    """Many elements are computed by another function, which threads share; infinities and NaN must not differ."""
    if shared:
        monkeypatch.setattr(tuning, "PARALLEL_ELEMENTWISE_BYTES", 1)
    few = np.array([-np.inf, -1.5, 0.0, 2.5, np.inf, np.nan], "float32")
    y, slope = derivative(ops.relu, few, device, "float32")
    many, slopes = derivative(ops.relu, np.tile(few, 1000), device, "float32")
    np.testing.assert_array_equal(y, [0, 0, 0, 2.5, np.inf, np.nan])
    np.testing.assert_array_equal(many, np.tile(y, 1000))
    np.testing.assert_array_equal(slopes, np.tile(slope, 1000))


def test_a_gradient_with_zero_weight_hides_nothing(device):
    """If `where` chooses one branch, an infinite slope of the other has no effect."""
    x = ndl.Tensor([0.0, 4.0], device=device)
    safe = ops.where(x > 0, x, 1)
    ops.where(x > 0, ops.sqrt(safe), 0).sum().backward()
    assert x.grad.numpy().tolist() == [0, 0.25]


@pytest.mark.parametrize("axis", [None, 0, -1, ()])
@pytest.mark.parametrize("name", ["any", "all", "sum", "mean", "amax", "prod", "logsumexp"])
def test_a_tensor_without_axes_is_reduced_along_0_and_minus_1(name, axis, device):
    x = ndl.Tensor(2.0, device=device)
    y = getattr(ndl, name)(x, axis)
    assert (y.shape, y.item()) == ((), x.item() if name not in ("any", "all") else True)
