"""Sums, means and gradients of activations by raw kernels; elementwise ops keep the memory order."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import kernels, ops, tuning
from needle.kernels.layout import batch_first
from tests.gpu.faults import Fault
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM

CASES = {
    "all": ((7, 9), (0, 1)), "rows": ((5, 130), (1,)), "columns": ((130, 5), (0,)), "middle": ((3, 17, 40), (1,)),
    "two runs": ((3, 4, 5, 6), (0, 2)), "one element": ((1, 4), (1,)), "nothing": ((3, 4), ()), "many": ((6000,), (0,)),
}  # fmt: skip


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def placed(x):
    """x (N, C, *S) on the device, in batch-last memory order."""
    return batch_first(SHIM.array(np.moveaxis(x, 0, -1)))


@pytest.mark.parametrize("order", ["row-major", "batch-last"])
@pytest.mark.parametrize("name", CASES)
def test_sums_and_means(name, order, run):
    shape, axes = CASES[name]
    x = normal(*shape)
    on = placed(x) if order == "batch-last" else SHIM.array(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "CUDA_ONE_BLOCK_ITEMS", 1024)
        total, mean = kernels.sums(on, axes), kernels.means(on, axes)
    assert total.dtype == mean.dtype == "float32"
    np.testing.assert_allclose(total, x.astype("float64").sum(axes, keepdims=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean, x.astype("float64").mean(axes, keepdims=True), rtol=1e-5, atol=1e-6)


def test_means_in_float64(run):
    x = normal(4, 6)
    means = kernels.means(SHIM.array(x), (1,), "float64")
    assert means.dtype == "float64"
    np.testing.assert_allclose(means, x.mean(1, "float64", keepdims=True), 1e-6)


def test_addresses_that_are_no_multiples_of_16_bytes(run):
    x = SHIM.array(normal(65))[1:].reshape(8, 8)
    np.testing.assert_allclose(kernels.sums(x, (1,)), np.asarray(x).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(kernels.relu_grad(x, x), np.maximum(x, 0))


def test_the_gradient_of_relu_for_a_result_with_gaps():
    y = SHIM.array(normal(4, 6))[:, ::2]
    np.testing.assert_array_equal(kernels.relu_grad(y, y), np.maximum(y, 0))


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5)])
def test_the_gradient_of_relu(shape, run):
    y, grad = normal(*shape), normal(*shape, seed=1)
    y[0, 0] = np.nan
    for out_grad in (placed(grad), SHIM.array(grad), np.broadcast_to(SHIM.array(grad[:1]), shape)):
        on = placed(y)
        result = kernels.relu_grad(on, out_grad)
        np.testing.assert_array_equal(result, np.where(y > 0, np.asarray(out_grad), 0))
        assert result.strides == on.strides


FUNCTIONS = {
    "relu": ops.relu, "exp": ops.exp, "sum": lambda x: x + x, "scalar": lambda x: x * 2 + 1, "sigmoid": ops.sigmoid,
    "broadcast": lambda x: x + ndl.Tensor(normal(3, 1, 1), device=SHIM),
    "beside a number": lambda x: x * ndl.Tensor(np.float32(2), device=SHIM),
    "where": lambda x: ops.where(x > 0, x, x * 0.1), "power": lambda x: x**2, "clip": lambda x: ops.clip(x, -1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementwise_ops_keep_the_memory_order(name):
    x = normal(6, 3, 4, 5)
    result, expected = (FUNCTIONS[name](ndl.Tensor.make_const(array)) for array in (placed(x), SHIM.array(x)))
    np.testing.assert_array_equal(result.numpy(), expected.numpy())
    assert result.array.strides == placed(x).strides


@pytest.mark.parametrize("op", [lambda x: ops.flip(x, (0,)), ops.tril], ids=["flip", "tril"])
def test_ops_with_axes_are_not_elementwise(op):
    x = normal(3, 3, 4, 4)
    result, expected = (op(ndl.Tensor.make_const(array)) for array in (placed(x), SHIM.array(x)))
    np.testing.assert_array_equal(result.numpy(), expected.numpy())


def test_sums_use_whole_sectors():
    x = placed(normal(64, 4, 4, 4))
    with running(checked=True, measure=True) as run:
        kernels.sums(x, (2, 3))
        kernels.sums(x, (0, 1, 2, 3))
        kernels.relu_grad(x, x)
    for kernel in ("sum_columns", "sum_rows_4", "where_positive_4"):
        assert run.used(kernel, write=False) >= 0.95


COLUMNS = partial(test_sums_and_means, "columns", "row-major")
GRADIENT = partial(test_the_gradient_of_relu, (6, 3))
FAULTS = [
    Fault("reduce.cu", "columns past the end", "  if (column < columns)\n", "", COLUMNS),
    Fault("reduce.cu", "a line left out", "int line = 1;", "int line = 2;", COLUMNS),
    Fault("reduce.cu", "no barrier", "= sum;\n  __syncthreads();", "= sum;", COLUMNS),
    Fault("activation.cu", "NaN let through", "y > 0 ?", "!(y <= 0) ?", GRADIENT),
]
