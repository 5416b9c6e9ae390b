"""Sigmoid, and the gradients of sigmoid and tanh, by raw kernels against the generic kernels in float64."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from needle import kernels
from needle.kernels.gpu.source import generic
from tests.gpu.faults import Fault
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM, placed
from tests.gpu.test_norm import normal

GRADIENTS = [kernels.sigmoid_grad, kernels.tanh_grad]
EDGES = np.float32([-np.inf, -1000, -90, -20, -0.0, 0, 20, 90, 1000, np.inf, np.nan])


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (300, 5), ()])
def test_sigmoid(shape, run):
    x = np.asarray(normal(*shape) * 5, "float32")
    for there in (placed(x) if shape else SHIM.array(x), SHIM.array(x)):
        result = kernels.sigmoid(there)
        np.testing.assert_allclose(result, generic(kernels.sigmoid)(x.astype("float64")), rtol=3e-7)
        assert result.strides == there.strides


def test_sigmoid_at_the_edges(run):
    with np.errstate(invalid="ignore"):
        expected = generic(kernels.sigmoid)(EDGES)
    np.testing.assert_allclose(kernels.sigmoid(SHIM.array(EDGES)), expected, rtol=3e-7)


def test_sigmoid_of_a_part_of_an_array(run):
    x = normal(4, 6)
    np.testing.assert_allclose(kernels.sigmoid(SHIM.array(x)[:, 1:4]), generic(kernels.sigmoid)(x[:, 1:4]), rtol=3e-7)


@pytest.mark.parametrize("kernel", GRADIENTS)
@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (300, 5)])
def test_gradients(shape, kernel, run):
    y, grad = np.tanh(normal(*shape)), normal(*shape, seed=1)
    for out_grad in (placed(grad), SHIM.array(grad), np.broadcast_to(SHIM.array(grad[:1]), shape)):
        on = placed(y)
        result = kernel(on, out_grad)
        wide = generic(kernel)(y.astype("float64"), np.asarray(out_grad, "float64"))
        np.testing.assert_allclose(result, wide, rtol=1e-6, atol=1e-7)
        assert result.strides == on.strides


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_dtypes_take_the_generic_kernels(dtype, run):
    x = SHIM.array(normal(4, 3).astype(dtype))
    for result in (kernels.sigmoid(x), *(kernel(x, x) for kernel in GRADIENTS)):
        assert result.dtype == dtype


def test_activations_use_whole_sectors():
    x = placed(normal(64, 4, 4, 4))
    with running(checked=True, measure=True) as run:
        kernels.sigmoid(x)
        for kernel in GRADIENTS:
            kernel(x, x)
    run.assert_streams("sigmoid_4", "sigmoid_grad_4", "tanh_grad_4")


ODD = partial(test_gradients, (6, 3))
FAULTS = [
    Fault("activation.cu", "overflow", "expf(-fabsf(x))", "expf(x)", test_sigmoid_at_the_edges),
    Fault("activation.cu", "the derivative by x in that by y", "(1 - y) * y", "(1 - y) * (1 - y)",
          partial(ODD, kernels.sigmoid_grad)),
    Fault("activation.cu", "a square left out", "1 - y * y", "1 - y", partial(ODD, kernels.tanh_grad)),
]  # fmt: skip
