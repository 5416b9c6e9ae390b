"""Normalization by raw kernels against the generic kernels in float64, and whole layers against torch."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import kernels
from needle.kernels.gpu.source import generic
from needle.kernels.layout import batch_first
from needle.nn import functional
from tests.gpu.faults import Fault
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM

CHANNELS = {"axes": lambda x: (0, *range(2, x.ndim)), "form": lambda x: (1, x.shape[1], *(1,) * (x.ndim - 2))}
SHAPES = [(4, 3, 5, 2), (3, 2, 7), (8, 2, 40, 50), (6, 5), (1, 1, 1, 33)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def placed(x):
    """x (N, C, *S) on the device, in batch-last memory order."""
    return batch_first(SHIM.array(np.moveaxis(x, 0, -1)))


def by_float64(kernel, *arguments):
    """The generic kernel on float64 arrays of NumPy."""
    widened = [x.astype("float64") if isinstance(x, np.ndarray) else x for x in arguments]
    return generic(kernel)(*widened)


def assert_close(results, expected, atol=1e-5):
    for result, other in zip(results, expected, strict=True):
        if other is None:
            assert result is None
        else:
            assert result.shape == other.shape
            np.testing.assert_allclose(result, other, rtol=2e-5, atol=atol)


@pytest.mark.parametrize(
    ("parameters", "rectified"), [("weight and bias", True), ("weight", False), ("bias", True), ("none", False)]
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channels(shape, parameters, rectified, run):
    x, grad = normal(*shape) + 1, normal(*shape, seed=1)
    axes, form = CHANNELS["axes"](x), CHANNELS["form"](x)
    named = enumerate(["weight", "bias"])
    weight, bias = (normal(*form, seed=2 + i) if name in parameters else None for i, name in named)
    parameters = [value if value is None else SHIM.array(value) for value in (weight, bias)]
    y, mean, variance = kernels.standardize_array(placed(x), *parameters, axes, 1e-5, rectified)
    expected = by_float64(kernels.standardize_array, x, weight, bias, axes, 1e-5, rectified)
    assert_close((y, mean, variance), expected)
    assert mean.dtype == variance.dtype == "float64"
    assert y.transpose(*range(1, y.ndim), 0).flags.c_contiguous
    np.testing.assert_allclose(mean, expected[1], rtol=1e-7, atol=1e-7)
    masks, expected_masks = (y, np.asarray(y)) if rectified else (None, None)
    grads = kernels.standardize_gradients(placed(grad), placed(x), masks, *parameters, mean, variance, axes, 1e-5)
    expected = by_float64(
        kernels.standardize_gradients, grad, x, expected_masks, weight, bias, *expected[1:], axes, 1e-5
    )
    assert_close(grads, expected, atol=1e-5 * max(1.0, float(abs(grads[0]).max())))


@pytest.mark.parametrize("far", [1e3, -1e5])
def test_means_far_from_zero(far, run):
    x, grad = normal(16, 3, 9, 4) + np.float32(far), normal(16, 3, 9, 4, seed=1)
    axes = (0, 2, 3)
    y, mean, variance = kernels.standardize_array(placed(x), None, None, axes, 1e-5)
    expected = by_float64(kernels.standardize_array, x, None, None, axes, 1e-5)
    np.testing.assert_allclose(mean, expected[1], rtol=1e-12)
    np.testing.assert_allclose(variance, expected[2], rtol=1e-6)
    np.testing.assert_allclose(y, expected[0], atol=1e-5)
    grads = kernels.standardize_gradients(placed(grad), placed(x), None, None, None, mean, variance, axes, 1e-5)
    wide = by_float64(kernels.standardize_gradients, grad, x, None, None, None, *expected[1:], axes, 1e-5)
    np.testing.assert_allclose(grads[0], wide[0], atol=1e-5)


def test_special_elements(run):
    x = np.full((4, 4, 3), 0.1, "float32")
    x[1, 1], x[2, 2, 1], x[:, 3] = np.inf, np.nan, [[1e18, -1e18, 0]]
    bias = SHIM.array(np.ones((1, 4, 1), "float32"))
    y, *_ = kernels.standardize_array(placed(x), None, None, (0, 2), 1e-5, True)
    assert (y[:, 0] == 0).all()  # equal elements are exact zeros
    assert np.isnan(y[:, 1:3]).all()
    np.testing.assert_allclose(y[:, 3], np.tile(np.float32([1.5**0.5, 0, 0]), (4, 1)), rtol=1e-6)
    y, *_ = kernels.standardize_array(placed(x), None, bias, (0, 2), 1e-5)
    assert (y[:, 0] == 1).all()


ALONG = {
    "layer": ((6, 40), (1,), (40,)),
    "layer, odd": ((6, 5, 7), (1, 2), (5, 7)),
    "instance": ((3, 4, 6, 2), (2, 3), (1, 4, 1, 1)),
    "group": ((3, 2, 4, 5), (2, 3), (1, 2, 4, 1)),
    "many rows": ((70, 3), (1,), (3,)),
    "by the outer axis": ((3, 4, 6), (2,), (3, 1, 1)),
    "by the inner axis": ((3, 4, 6), (1, 2), (6,)),
}


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", ALONG)
def test_rows_of_row_major_arrays(name, rectified, run):
    shape, axes, form = ALONG[name]
    x, grad, weight, bias = normal(*shape) - 1, normal(*shape, seed=1), normal(*form, seed=2), normal(*form, seed=3)
    on = [SHIM.array(value) for value in (x, weight, bias)]
    y, mean, variance = kernels.standardize_array(*on, axes, 1e-5, rectified)
    expected = by_float64(kernels.standardize_array, x, weight, bias, axes, 1e-5, rectified)
    assert_close((y, mean, variance), expected)
    masks, expected_masks = (y, np.asarray(y)) if rectified else (None, None)
    grads = kernels.standardize_gradients(SHIM.array(grad), on[0], masks, *on[1:], mean, variance, axes, 1e-5)
    wide = by_float64(kernels.standardize_gradients, grad, x, expected_masks, weight, bias, *expected[1:], axes, 1e-5)
    assert_close(grads, wide, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_take_the_generic_kernel(dtype, run):
    x = np.asarray(normal(4, 2, 6), dtype)
    y, *_ = kernels.standardize_array(SHIM.array(x), None, None, (0, 2), 1e-5)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, by_float64(kernels.standardize_array, x, None, None, (0, 2), 1e-5)[0], atol=1e-2)


@pytest.mark.parametrize("layout", ["batch-last", "row-major", "broadcast gradient"])
def test_a_layer_trains_as_torchs(layout, run):
    x, grad = normal(6, 3, 5, 4) + 2, normal(6, 3, 1, 1, seed=1)
    theirs, mine = torch.nn.BatchNorm2d(3), ndl.nn.BatchNorm2d(3, device=SHIM)
    mine.unbiased = True
    for _ in range(2):
        a = torch.tensor(x, requires_grad=True)
        b = ndl.Tensor(x, device=SHIM, requires_grad=True)
        y = torch.relu(theirs(a))
        last = ndl.permute(ndl.permute(b, (1, 2, 3, 0)) * 1, (3, 0, 1, 2))
        z = mine.forward_relu(b if layout == "row-major" else last)
        full = np.broadcast_to(grad, x.shape).copy()
        y.backward(torch.tensor(full))
        out_grad = ndl.Tensor(grad if layout == "broadcast gradient" else full, device=SHIM)
        z.backward(ndl.broadcast_to(out_grad, x.shape), create_graph=False)
        x = y.detach().numpy() + x
        pairs = [(z, y), (b.grad, a.grad), (mine.weight.grad, theirs.weight.grad), (mine.bias.grad, theirs.bias.grad)]
        pairs += [(mine.running_mean, theirs.running_mean), (mine.running_var, theirs.running_var)]
        for result, expected in pairs:
            np.testing.assert_allclose(result.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        theirs.zero_grad()
    assert mine.num_batches_tracked.item() == 2


@pytest.mark.parametrize("unbiased", [False, True])
def test_running_statistics_are_those_of_the_cpu(unbiased, run):
    x, moved = normal(4, 3, 2) + 1, []
    for array in (np.array, SHIM.array):
        statistics = [array(np.ones(3, "float32")) for _ in range(2)]
        running = kernels.Running(*statistics, None, 0.25, unbiased)
        kernels.standardize_array(array(x), None, None, (0, 2), 1e-5, False, running)
        moved.append(statistics)
    np.testing.assert_allclose(moved[1], moved[0], rtol=1e-6)


def test_a_weight_in_another_memory_order_than_the_rows(run):
    x, weight = normal(2, 4, 3), normal(3, 4, seed=2)
    there = SHIM.array(x).transpose(0, 2, 1)
    y, *_ = kernels.standardize_array(there, SHIM.array(weight), None, (1, 2), 1e-5)
    wide = by_float64(kernels.standardize_array, x.transpose(0, 2, 1), weight, None, (1, 2), 1e-5)
    np.testing.assert_allclose(y, wide[0], atol=1e-5)


def test_running_statistics_keep_their_memory(run):
    layer = ndl.nn.BatchNorm1d(2, device=SHIM)
    before = [value.array for value in (layer.running_mean, layer.running_var, layer.num_batches_tracked)]
    version = layer.running_mean.version_counter().version
    layer(ndl.Tensor(normal(8, 2), device=SHIM))
    after = [value.array for value in (layer.running_mean, layer.running_var, layer.num_batches_tracked)]
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert layer.running_mean.version_counter().version > version


def test_channels_use_whole_sectors():
    x = placed(normal(32, 3, 6, 6))
    with running(checked=True, measure=True) as run:
        y, mean, variance = kernels.standardize_array(x, None, None, (0, 2, 3), 1e-5, True)
        kernels.standardize_gradients(x, x, y, None, None, mean, variance, (0, 2, 3), 1e-5)
    for kernel in ("standardize_4", "standardize_backward_4"):
        assert run.used(kernel, write=True) >= 0.95
        assert run.used(kernel, write=False) >= 0.95


def test_the_functions_of_other_norms_agree_with_torch(run):
    x = normal(4, 6, 5)
    for name, options in {"layer_norm": {"normalized_shape": (5,)}, "group_norm": {"num_groups": 3}}.items():
        result = getattr(functional, name)(ndl.Tensor(x, device=SHIM), **options)
        expected = getattr(torch.nn.functional, name)(torch.tensor(x), **options)
        np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


PLAIN = partial(test_channels, (4, 3, 5, 2), "weight and bias", True)
LONG = partial(test_channels, (8, 2, 40, 50), "none", False)
FAR = partial(test_means_far_from_zero, -1e5)
LAYER = partial(test_rows_of_row_major_arrays, "layer, odd", False)
TRAINING = partial(test_a_layer_trains_as_torchs, "row-major")
BARRIER = "__syncthreads();  // the sums before may still be read"
FAULTS = [
    Fault("norm.cu", "scratch used again without a barrier", BARRIER, "", LONG),
    Fault("norm.cu", "a variance that is not corrected", "squares / m - rest * rest", "squares / m", FAR),
    Fault("norm.cu", "a mean in float32", "average = near + rest", "average = near", FAR),
    Fault("norm.cu", "products with a mean that is not corrected", "along -= rest * sum;", "", FAR),
    Fault("norm.cu", "NaN lost", "relu && d <= 0 ? 0.0f : d", "relu ? fmaxf(d, 0.0f) : d", test_special_elements),
    Fault("norm.cu", "equal elements", "s += here.v[v] - first", "s += here.v[v]", test_special_elements),
    Fault("norm.cu", "zeros that mask nothing", "!(result.v[v] > 0)", "result.v[v] < 0", PLAIN),
    Fault("norm.cu", "reads past the end of a row", "i + 3 * step < m", "i + 2 * step < m", LONG),
    Fault("norm.cu", "every block counts", "counter && row == 0", "counter", TRAINING),
    Fault("norm.cu", "columns past the end", "  if (column < m)\n", "", LAYER),
    Fault("norm.cu", "lines that overlap", "row += LINES", "row += LINES - 1",
          partial(test_rows_of_row_major_arrays, "many rows", False)),
]  # fmt: skip
