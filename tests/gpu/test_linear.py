"""Linear layers by raw kernels equal the generic kernels; large ones take cuBLAS and the kernels beside it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

import needle as ndl
from needle import kernels, nn, tuning
from tests.gpu.faults import Fault
from tests.gpu.kernels import missing, running
from tests.gpu.shim_device import SHIM

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

SIZES = {  # (n, I, O)
    "one": (1, 1, 1),
    "odd tiles": (33, 70, 19),
    "many terms": (4, 150, 10),
}


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def placed(array, order="C"):
    """An array on the device; with "F", batch-last."""
    return SHIM.array(np.ascontiguousarray(array.T)).T if order == "F" else SHIM.array(array)


def close(result, expected):
    if expected is None:
        assert result is None
        return
    assert result.shape == expected.shape
    np.testing.assert_allclose(np.asarray(result), expected, rtol=2e-5, atol=2e-5)


WAYS = ["product_8", "product_16", "cublas"]


@contextmanager
def multiplied_by(way):
    """Let that kernel, or cuBLAS, multiply."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "PRODUCT_FEW_BLOCKS", 0 if way == "product_16" else 1 << 30)
        patch.setattr(tuning, "PRODUCT_MAX_MACS", 0 if way == "cublas" else 1 << 30)
        yield


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", SIZES)
def test_linear(name, order, way, run):
    n, i, o = SIZES[name]
    x, w, bias = drawn(n, i), drawn(i, o, seed=1), drawn(o, seed=2)
    x[0, 0] = np.nan
    for b in (bias, bias[None], None):
        for rectified in (False, True):
            expected = kernels.linear(x, w, b, rectified)
            operands = placed(x, order), placed(w), None if b is None else placed(b)
            with multiplied_by(way):
                y = kernels.linear(*operands, rectified)
            close(y, expected)
            assert y.flags.c_contiguous if order == "C" else y.T.flags.c_contiguous


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("x_order", "w_order", "grad_order"), ["CCC", "FCF", "CFC"])
@pytest.mark.parametrize("name", SIZES)
def test_linear_backward(name, x_order, w_order, grad_order, way, run):
    n, i, o = SIZES[name]
    x, w, grad = drawn(n, i), drawn(i, o, seed=1), drawn(n, o, seed=2)
    output = drawn(n, o, seed=3)
    output[output < 0.3] = 0
    for mask in (None, output):
        for needed in ((True, True, True), (True, False, True)):
            expected = kernels.linear_backward(grad, x, w, needed, mask)
            operands = placed(grad, grad_order), placed(x, x_order), placed(w, w_order)
            y = None if mask is None else placed(mask, x_order)
            with multiplied_by(way):
                results = kernels.linear_backward(*operands, needed, y)
            for result, wanted in zip(results, expected, strict=True):
                close(result, wanted)
    if needed[0] and n > 1 and i > 1:
        assert (results[0].strides[0] < results[0].strides[1]) == (x_order == "F")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("position", range(3), ids=["x", "w", "bias"])
def test_a_gradient_that_is_needed_alone_is_masked(position, way):
    grad, x, w, mask = drawn(6, 4), drawn(6, 9, seed=1), drawn(9, 4, seed=2), drawn(6, 4, seed=3)
    needed = tuple(place == position for place in range(3))
    with multiplied_by(way):
        results = kernels.linear_backward(placed(grad), placed(x), placed(w), needed, placed(mask))
    for result, wanted in zip(results, kernels.linear_backward(grad, x, w, needed, mask), strict=True):
        close(result, wanted)


@pytest.mark.parametrize("rectified", [False, True])
def test_rows_of_rows_are_one_product(rectified, run):
    x, w, bias = drawn(2, 3, 5), drawn(5, 4, seed=1), drawn(1, 4, seed=2)
    y = kernels.linear(x, w, bias, rectified)
    close(kernels.linear(placed(x), placed(w), placed(bias), rectified), y)
    grad, mask = drawn(2, 3, 4, seed=3), y if rectified else None
    needed = (True, True, True)
    results = kernels.linear_backward(
        placed(grad), placed(x), placed(w), needed, None if mask is None else placed(mask)
    )  # fmt: skip
    for result, wanted in zip(results, kernels.linear_backward(grad, x, w, needed, mask), strict=True):
        close(result, wanted)


@pytest.mark.parametrize("way", WAYS)
def test_broadcast_gradients_and_slices_are_read_where_they_lie(way, run):
    """The gradient of a sum is one number with strides of 0; a slice has gaps."""
    x, w = drawn(6, 20)[:, 3:12], drawn(9, 4, seed=1)
    grad = np.broadcast_to(np.float32(2), (6, 4))
    on_device = placed(drawn(6, 20))[:, 3:12]
    broadcast = SHIM.strided(SHIM.array(np.float32(2)), (6, 4), (0, 0))
    with multiplied_by(way):
        results = kernels.linear_backward(broadcast, on_device, placed(w), (True, True, True))
    for result, wanted in zip(results, kernels.linear_backward(grad, x, w, (True, True, True)), strict=True):
        close(result, wanted)


@pytest.mark.parametrize("way", WAYS)
def test_a_bias_with_gaps(way):
    x, w, bias = drawn(6, 5), drawn(5, 4, seed=1), drawn(8, seed=2)
    with multiplied_by(way):
        close(kernels.linear(placed(x), placed(w), placed(bias)[::2]), kernels.linear(x, w, bias[::2]))


def test_other_dtypes_take_the_generic_kernels():
    x, w = drawn(4, 3).astype("float64"), drawn(3, 2).astype("float64")
    y = kernels.linear(placed(x), placed(w), None, True)
    assert y.dtype == "float64"
    np.testing.assert_allclose(np.asarray(y), kernels.linear(x, w, None, True))
    results = kernels.linear_backward(placed(x @ w), placed(x), placed(w), (True, True, True), y)
    assert {result.dtype.name for result in results} == {"float64"}


def test_an_empty_batch():
    y = kernels.linear(placed(drawn(0, 3)), placed(drawn(3, 2)), placed(drawn(2)), True)
    assert y.shape == (0, 2)


def test_a_small_layer_is_one_launch_forward_and_two_backward(launches):
    layer = nn.Sequential(nn.Linear(20, 6, device=SHIM), nn.ReLU())
    x = ndl.Tensor(drawn(8, 20), device=SHIM, requires_grad=True)
    grad = ndl.Tensor(drawn(8, 6, seed=1), device=SHIM)
    layer(x).backward(grad, create_graph=False)
    assert launches == ["product_8"] * 3


def test_a_layer_trains_as_on_the_cpu(run):
    results = []
    for device in (ndl.cpu(), SHIM):
        np.random.seed(0)
        net = nn.Sequential(nn.Linear(20, 6), nn.ReLU(), nn.Linear(6, 3)).to(device)
        x = ndl.Tensor(drawn(8, 20), device=device, requires_grad=True)
        (net(x) ** 2).sum().backward(create_graph=False)
        results.append([x.grad, *(p.grad for p in net.parameters())])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["product_8", "product_16", "mask_sums", "bias_relu"])
def test_sectors_are_used(kernel):
    """Where sizes are multiples of 8, at least 95 % of what a warp reads from memory is used, in either order."""
    x, w, bias = drawn(32, 64), drawn(64, 32, seed=1), drawn(32, seed=2)
    for order in "CF":
        with multiplied_by(kernel if kernel in WAYS else "cublas"), running(checked=True, measure=True) as run:
            y = kernels.linear(placed(x, order), placed(w), placed(bias), True)
            kernels.linear_backward(y, placed(x, order), placed(w), (True, True, True), y)
        assert run.used(kernel, write=False) >= 0.95
        assert run.used(kernel, write=True) >= 0.95


FORWARD = partial(test_linear, "many terms", "F", "product_8")
BACKWARD = partial(test_linear_backward, "odd tiles", "C", "C", "C", "product_16")
BESIDE = partial(test_linear_backward, "odd tiles", "F", "C", "F", "cublas")
FAULTS = [
    Fault("linear.cu", "a tile is read while it is written", "put(stage ^ 1)", "put(stage)", FORWARD),
    Fault("linear.cu", "no barrier before the tile is read", "put(0);\n  __syncthreads();", "put(0);", FORWARD),
    Fault("linear.cu", "columns past the end", "row >= p.rows || column >= p.columns", "row >= p.rows", FORWARD),
    Fault("linear.cu", "NaN made 0", "relu && total < 0 ?", "relu && !(total > 0) ?", FORWARD),
    Fault("linear.cu", "a slice too few is added", "i < SLICES; i++", "i < SLICES - 1; i++", FORWARD),
    Fault("linear.cu", "the mask is not turned", "mask[row * p.mask_row + term * p.mask_term]",
          "mask[term * p.mask_row + row * p.mask_term]", BACKWARD),
    Fault("linear.cu", "sums by every column of blocks", "sums && first_column == 0", "sums", BACKWARD),
    Fault("linear.cu", "sums of columns past the end", "column < m.columns; row += step", "true; row += step", BESIDE),
]  # fmt: skip
