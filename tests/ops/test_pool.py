"""Pooling: against torch to second order, with ties and infinities, and as pairs of transposes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import kernels
from needle.ops.operand import make_window
from tests.kernels.windows import arrange, is_batch_last, orders, pools
from tests.ops.derivatives import assert_like_torch

KINDS = pytest.mark.parametrize("kind", ["max", "avg"])
close = partial(assert_allclose, rtol=1e-10, atol=1e-10)


def functions(kind, rank, *arguments):
    """The pooling functions of needle and of torch."""
    name = f"{kind}_pool{rank}d"

    def pool(x):
        return getattr(F, name)(x, *arguments)

    def torch_pool(x):
        function = getattr(torch.nn.functional, name)
        if name != "avg_pool3d":
            return function(x, *arguments)
        kernel, stride, padding = arguments  # torch refuses kernels that fit only into the padded input
        pads = [padding] * 3 if isinstance(padding, int) else padding
        return function(torch.nn.functional.pad(x, [n for n in reversed(pads) for _ in range(2)]), kernel, stride)

    return pool, torch_pool


def arguments_of(problem):
    return problem.kernel, problem.window.stride, tuple(before for before, _ in problem.window.padding)


# ---- against torch ---------------------------------------------------------------------------------------------------

# name: x (N, C, *S), kernel, stride, padding
TABLE = {
    "1d": ((2, 3, 8), 2, None, 0),
    "1d with overlap": ((2, 3, 9), 3, 2, 1),
    "1d with gaps": ((2, 3, 11), 2, 4, 1),
    "2x2": ((2, 3, 6, 4), 2, None, 0),
    "2x2 with remainder": ((2, 3, 7, 5), 2, None, 0),
    "2x2 at every place": ((2, 3, 5, 4), 2, 1, 0),
    "3x3 with stride 2": ((2, 3, 7, 7), 3, 2, 1),
    "3x3 that keeps the size": ((2, 3, 5, 4), 3, 1, 1),
    "2x2 with padding": ((2, 3, 5, 6), 2, 2, 1),
    "stride beyond the kernel": ((2, 3, 11, 9), 2, 4, 0),
    "stride beyond the input": ((2, 3, 5, 5), 3, 9, 0),
    "1x1": ((2, 3, 4, 5), 1, None, 0),
    "1x1 with stride": ((2, 3, 5, 5), 1, 2, 0),
    "the whole image": ((2, 3, 4, 5), (4, 5), None, 0),
    "options by axis": ((2, 3, 9, 8), (4, 1), (1, 3), (2, 0)),
    "as large as input and padding": ((2, 2, 2, 2), 4, None, 1),
    "one image of one channel": ((1, 1, 6, 6), 3, 2, 1),
    "empty batch": ((0, 3, 6, 6), 2, None, 0),
    "3d": ((2, 2, 4, 4, 6), 2, None, 0),
    "3d with overlap": ((2, 2, 5, 4, 5), 3, 2, 1),
    "3d by axis": ((2, 1, 5, 6, 4), (1, 3, 2), (2, 1, 3), (0, 1, 1)),
}


@KINDS
@pytest.mark.parametrize("name", TABLE)
def test_like_torch(device, kind, name):
    shape, *arguments = TABLE[name]
    assert_like_torch(*functions(kind, len(shape) - 2, *arguments), [np.random.randn(*shape)], device)


@KINDS
@given(problem=pools())
def test_like_torch_in_any_window(device, kind, problem):
    x, _, _ = problem.values()
    assert_like_torch(*functions(kind, problem.rank, *arguments_of(problem)), [x], device)


@KINDS
def test_the_stride_is_the_kernel_by_default(device, kind):
    x = ndl.Tensor(np.random.randn(2, 3, 7, 7), device=device)
    pool = getattr(F, f"{kind}_pool2d")
    close(pool(x, (2, 3)).numpy(), pool(x, (2, 3), (2, 3)).numpy())
    close(pool(x, 3, padding=1).numpy(), pool(x, 3, 3, 1).numpy())


@KINDS
def test_single_precision_stays_single(device, kind):
    x = np.random.randn(2, 3, 7, 6).astype("float32")
    assert_like_torch(*functions(kind, 2, 3, 2, 1), [x], device, rtol=1e-5, atol=1e-5)


@KINDS
def test_half_precision_stays_half(device, kind):
    x = ndl.Tensor(np.random.randn(2, 3, 7, 6).astype("float16"), device=device)
    y = getattr(F, f"{kind}_pool2d")(x, 3, 2, 1)
    y.backward()
    assert y.dtype == x.grad.dtype == "float16"
    single = getattr(torch.nn.functional, f"{kind}_pool2d")(torch.tensor(x.numpy()).float(), 3, 2, 1)
    assert_allclose(y.numpy(), single.numpy(), rtol=2e-3, atol=2e-3)


def test_the_mean_of_float16_is_computed_in_float32(device):
    x = abs(np.random.randn(2, 3, 16, 16)).astype("float16")
    y = F.avg_pool2d(ndl.Tensor(x, device=device), 16)
    assert_allclose(y.numpy(), x.astype("float64").mean((2, 3), keepdims=True), rtol=2**-10)
    x = ndl.Tensor(np.full((1, 1, 16, 16), 300, "float16"), device=device)  # their sum overflows float16
    y = F.avg_pool2d(x, 16)
    y.backward()
    assert y.dtype == x.grad.dtype == "float16"
    assert y.item() == 300
    assert (x.grad.numpy() == 1 / 256).all()


@KINDS
@pytest.mark.parametrize("name", ["1d with overlap", "3x3 with stride 2", "options by axis", "3d by axis"])
def test_derivatives_pass_gradcheck(device, kind, name):
    shape, *arguments = TABLE[name]
    draws = np.random.permutation(int(np.prod(shape))).reshape(shape) / 16  # further apart than a step
    pool, _ = functions(kind, len(shape) - 2, *arguments)
    assert ndl.gradcheck(pool, ndl.Tensor(draws, device=device))


# ---- ties, infinities, NaN -------------------------------------------------------------------------------------------


@given(problem=pools(), levels=st.integers(1, 3))
def test_the_first_of_equal_elements_takes_the_gradient(device, problem, levels):
    """As in torch, on inputs of few distinct values: nearly every window holds its maximum more than once."""
    x = np.random.default_rng(problem.seed).integers(-1, levels - 1, problem.x_shape).astype("float64")
    assert_like_torch(*functions("max", problem.rank, *arguments_of(problem)), [x], device)


def test_the_first_of_equal_elements_by_hand(device):
    x = ndl.Tensor([[[[1.0, 2.0, 2.0], [2.0, 2.0, 0.0]]]], device=device)
    F.max_pool2d(x, 2, 1).backward(ndl.Tensor([[[[10.0, 1.0]]]], device=device))
    assert x.grad.numpy().tolist() == [[[[0, 11, 0], [0, 0, 0]]]]


@given(problem=pools(), share=st.sampled_from([0.5, 0.9, 1.0]))
def test_minus_infinity_is_a_value_like_others(device, problem, share):
    """If a window holds nothing else, its first element takes the gradient; padding never does."""
    draws = np.random.default_rng(problem.seed)
    x = np.where(draws.random(problem.x_shape) < share, -np.inf, draws.standard_normal(problem.x_shape))
    leaf, v = ndl.Tensor(x, device=device), draws.standard_normal(problem.y_shape)
    pool, torch_pool = functions("max", problem.rank, *arguments_of(problem))
    y = pool(leaf)
    y.backward(ndl.Tensor(v, device=device))
    torch_leaf = torch.tensor(x, requires_grad=True)
    expected = torch_pool(torch_leaf)
    expected.backward(torch.tensor(v))
    assert_array_equal(y.numpy(), expected.detach().numpy())
    close(leaf.grad.numpy(), torch_leaf.grad.numpy())


def test_of_several_nans_the_last_takes_the_gradient(device):
    """As in torch."""
    values = np.array([[[np.nan, 1.0, np.nan, 2.0, 0.0, np.nan]]])
    x, theirs = ndl.Tensor(values, device=device), torch.tensor(values, requires_grad=True)
    F.max_pool1d(x, 4, 2).sum().backward()
    torch.nn.functional.max_pool1d(theirs, 4, 2).sum().backward()
    assert x.grad.numpy().tolist() == theirs.grad.numpy().tolist() == [[[0, 0, 1, 0, 0, 1]]]


@KINDS
@given(problem=pools(), value=st.sampled_from([np.nan, np.inf, -np.inf]), place=st.integers(0, 63))
def test_infinities_and_nan_reach_the_windows_that_hold_them(device, kind, problem, value, place):
    x, _, _ = problem.values()
    x.flat[place % x.size] = value
    pool, torch_pool = functions(kind, problem.rank, *arguments_of(problem))
    assert_allclose(pool(ndl.Tensor(x, device=device)).numpy(), torch_pool(torch.tensor(x)).numpy(), rtol=1e-10)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_infinite_gradient_goes_to_the_maximum_alone(device, value):
    x = ndl.Tensor([[[0.0, 3.0, 1.0, 5.0, 4.0, 2.0]]], device=device)
    F.max_pool1d(x, 3).backward(ndl.Tensor([[[value, 7.0]]], device=device))
    assert_array_equal(x.grad.numpy(), [[[0, value, 0, 7, 0, 0]]])


def test_the_second_derivative_of_an_infinite_gradient(device):
    """The derivative of the gradient in `out_grad` reads only the direction at the maximum."""
    x = ndl.Tensor([[[0.0, 3.0, 1.0]]], device=device)
    out_grad = ndl.Tensor([[[1.0]]], device=device)
    F.max_pool1d(x, 3).backward(out_grad)
    x.grad.backward(ndl.Tensor([[[np.inf, 2.0, np.nan]]], device=device))
    assert out_grad.grad.numpy().tolist() == [[[2.0]]]


def test_the_maximum_of_integers():
    x = np.array([[[-7, -5, -9, -128]]], "int8")
    window = kernels.Window((2,), ((1, 1),), (1,))
    assert kernels.max_windows(x, (2,), window).tolist() == [[[-7, -5, -128]]]


# ---- pairs of transposes ---------------------------------------------------------------------------------------------


def inner(a, b):
    return float((a * b).sum())


@given(problem=pools(), x_order=orders, y_order=orders, g_order=orders)
def test_scatter_and_gather_are_transposes(device, problem, x_order, y_order, g_order):
    window, kernel = problem.window, problem.kernel
    draws = np.random.default_rng(problem.seed)
    x, y, g = (
        arrange(draws.standard_normal(shape).round(0), order, device)
        for shape, order in ((problem.x_shape, x_order), (problem.y_shape, y_order), (problem.x_shape, g_order))
    )
    best = kernels.max_windows(x, kernel, window)
    scattered = kernels.scatter_to_max(y, x, best, kernel, window)
    gathered = kernels.gather_at_max(g, x, best, kernel, window)
    assert (scattered.shape, gathered.shape) == (problem.x_shape, problem.y_shape)
    x, y, g, best, scattered, gathered = map(device.to_host, (x, y, g, best, scattered, gathered))
    close(inner(scattered, g), inner(y, gathered))
    close(scattered.sum(), y.sum())  # each goes somewhere, once
    close(inner(scattered, x), inner(y, best))  # and to an element that is the maximum


@given(problem=pools(), x_order=orders, y_order=orders)
def test_spread_and_sum_are_transposes(device, problem, x_order, y_order):
    x, _, y = problem.values()
    x, y = arrange(x, x_order, device), arrange(y, y_order, device)
    spread = kernels.spread_windows(y, problem.kernel, problem.window, problem.size)
    summed = kernels.sum_windows(x, problem.kernel, problem.window)
    assert (spread.shape, summed.shape) == (problem.x_shape, problem.y_shape)
    x, y, spread, summed = map(device.to_host, (x, y, spread, summed))
    close(inner(spread, x), inner(y, summed))


@pytest.mark.parametrize("name", ["ScatterToMax", "GatherAtMax", "SumPool", "SpreadPool"])
def test_each_by_differences(device, name):
    """Checks squared results, so that the gradient depends on the incoming gradient."""
    window, kernel = kernels.Window((2, 1), ((1, 1), (0, 1)), (1, 1)), (3, 2)
    x = ndl.Tensor(np.random.randn(2, 2, 5, 4), device=device, requires_grad=False)
    best = ndl.ops.pool.MaxPool(kernel, window)(x)
    op, shape, constants = {
        "ScatterToMax": (ndl.ops.pool.ScatterToMax(kernel, window), best.shape, (x, best)),
        "GatherAtMax": (ndl.ops.pool.GatherAtMax(kernel, window), x.shape, (x, best)),
        "SumPool": (ndl.ops.pool.SumPool(kernel, window), x.shape, ()),
        "SpreadPool": (ndl.ops.pool.SpreadPool(kernel, window, x.shape[2:]), best.shape, ()),
    }[name]
    assert ndl.gradcheck(lambda y: op(y, *constants) ** 2, ndl.Tensor(np.random.randn(*shape), device=device))


# ---- memory ----------------------------------------------------------------------------------------------------------


@given(problem=pools(), order=orders)
def test_any_memory_order_gives_the_same(device, problem, order):
    window, kernel = problem.window, problem.kernel
    x = arrange(problem.values()[0].round(1), order, device)
    plain = device.array(x)
    for pool in (kernels.max_windows, kernels.sum_windows):
        close(device.to_host(pool(x, kernel, window)), device.to_host(pool(plain, kernel, window)))
    best = arrange(device.to_host(kernels.max_windows(plain, kernel, window)), order, device)
    if order != "broadcast":  # which changes the maxima
        y = arrange(problem.values()[2], order, device)
        actual = kernels.scatter_to_max(y, x, best, kernel, window)
        expected = kernels.scatter_to_max(device.array(y), plain, device.array(best), kernel, window)
        close(device.to_host(actual), device.to_host(expected))


@pytest.mark.parametrize("order", ["row-major", "batch-last"])
@pytest.mark.parametrize("name", ["2x2", "3x3 with stride 2", "1x1", "3d with overlap"])
def test_results_are_batch_last(device, name, order):
    (_, *shape), kernel, stride, padding = TABLE[name]
    rank = len(shape) - 1
    window = make_window("f", rank, stride or kernel, padding)
    kernel = (kernel,) * rank
    x = arrange(np.random.randn(32, *shape), order, device)
    best, total = kernels.max_windows(x, kernel, window), kernels.sum_windows(x, kernel, window)
    for y in (best, total, kernels.gather_at_max(x, x, best, kernel, window)):
        assert y.transpose((*range(1, y.ndim), 0)).flags.c_contiguous
    assert is_batch_last(kernels.scatter_to_max(best, x, best, kernel, window))
    assert is_batch_last(kernels.spread_windows(best, kernel, window, x.shape[2:]))


@given(problem=pools())
def test_arguments_are_only_read_and_results_have_memory_of_their_own(device, problem):
    window, kernel = problem.window, problem.kernel
    x, y = (device.array(values) for values in problem.values()[::2])
    host_x, host_y = np.array(device.to_host(x)), np.array(device.to_host(y))
    best = kernels.max_windows(x, kernel, window)
    results = [
        best,
        kernels.sum_windows(x, kernel, window),
        kernels.gather_at_max(x, x, best, kernel, window),
        kernels.scatter_to_max(y, x, best, kernel, window),
        kernels.spread_windows(y, kernel, window, problem.size),
    ]
    assert_array_equal(device.to_host(x), host_x)
    assert_array_equal(device.to_host(y), host_y)
    before = [np.array(device.to_host(result)) for result in results]
    x[...] = 7
    y[...] = 7
    for result, values in zip(results, before, strict=True):
        assert_array_equal(device.to_host(result), values)
