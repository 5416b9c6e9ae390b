"""Elementwise work in chunks equals a direct call, in every memory order, on one thread and on two."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import kernels, ops, tuning
from needle.backend import to_host
from needle.kernels import relu_grad, where_positive
from needle.ops.elementwise import ReLUGrad
from tests.kernels.memory_orders import draw, every_order


@every_order
@pytest.mark.parametrize("other", [(6, 5, 4, 7), (5, 1, 1), (1, 5, 4, 1), (6, 1, 1, 1), (7,), ()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_elementwise_work_equals_a_direct_call(order, other, dtype, threads):
    x, y = order(draw(6, 5, 4, 7)), draw(*other, dtype=dtype, seed=1)
    for a, b in ((x, y), (y, x), (x, order(draw(6, 5, 4, 7, seed=2)))):
        result, expected = kernels.elementwise(np.add, a, b), a + b
        np.testing.assert_array_equal(result, expected, strict=True)
        if expected.shape == x.shape and a is x:
            assert result.strides == expected.strides


@every_order
def test_ops_return_the_same_bits_below_and_above_the_threshold(order, threads, monkeypatch):
    x, y = (ndl.Tensor.make_const(order(draw(3, 5, 4, 7)) + shift) for shift in (0, 0.5))
    x.array[0, 0, 0] = [0, -0.0, np.nan, np.inf, -np.inf, 1, -1]
    results = []
    for least in (0, 1 << 40):
        monkeypatch.setattr(tuning, "PARALLEL_ELEMENTWISE_BYTES", least)
        results.append([ops.relu(x), ReLUGrad()(y, x), x + y, x * y])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(result.numpy().view("int32"), expected.numpy().view("int32"))


@pytest.mark.parametrize("shape", [(64, 2048), (1, 64, 2048)], ids=str)
def test_large_results_are_shared_by_all_threads(shape, threads):
    calls = []

    def work(x, out=None):
        calls.append(x.shape)
        return np.negative(x, out=out)

    x = draw(*shape)
    np.testing.assert_array_equal(kernels.elementwise(work, x), -x)
    assert len(calls) == threads


@pytest.mark.parametrize("size", [5, 1000])
def test_a_masked_gradient_has_the_memory_order_of_the_result(size, device):
    """The gradient may be a broadcast number, behind a mean: sums along its rows would take longer in its order."""
    y = device.xp.asarray(device.asarray(np.random.randn(size, 3, 4).astype("float32"))).transpose(2, 0, 1)
    grad = device.xp.broadcast_to(device.asarray(np.float32([[[2]]])), y.shape)
    for masked in (where_positive(y, grad), relu_grad(y, grad)):
        assert masked.strides == y.strides
        np.testing.assert_array_equal(to_host(masked), np.where(to_host(y) > 0, np.float32(2), 0))
