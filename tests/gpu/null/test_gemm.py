"""Products on the real CuPy: one call of cuBLAS for any strides, no copy, and within a capture."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import nn
from tests.backend.test_cublas import PATTERNS, laid
from tests.gpu.null import device
from tests.gpu.null.counts import counting

if device.library is None:
    pytest.skip("runs on the null device (make gpu-check)", allow_module_level=True)

import cupy

pytestmark = pytest.mark.gpu
TOLERANCE = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}


def sent(array):
    """An array of the GPU with the same strides."""
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return cupy.asarray(np.ascontiguousarray(array.transpose(order))).transpose(np.argsort(order))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", PATTERNS)
def test_one_call_and_no_copy(name, dtype):
    a_shape, a_order, b_shape, b_order = PATTERNS[name]
    a, b = laid(a_shape, a_order, dtype), laid(b_shape, b_order, dtype, 1)
    left, right = sent(a), sent(b)
    with counting() as counts:
        y = ndl.cuda().matmul(left, right)
    assert (counts["gemm"], counts.launches) == (1, 1)
    assert [line.split()[0] for line in counts.journal[-2:]] == ["workspace", "gemm"]
    np.testing.assert_allclose(y.get(), np.matmul(a, b), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_a_copy_where_blas_cannot_read():
    a, b = laid((6, 10), (0, 1)), laid((5, 3), (0, 1))
    left, right = cupy.asarray(a)[:, ::2], cupy.asarray(b)
    with counting() as counts:
        y = ndl.cuda().matmul(left, right)
    assert (counts["gemm"], counts.launches) == (1, 2)
    np.testing.assert_allclose(y.get(), a[:, ::2] @ b, rtol=1e-5)


def test_products_are_captured_with_a_workspace_of_the_stream():
    a, b = laid((6, 5), (0, 1)), laid((2, 5, 3), (0, 1, 2))
    left, right, out = cupy.asarray(a), cupy.asarray(b), cupy.zeros((2, 6, 3), "float32")
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        ndl.cuda().matmul(left, right, out=out)
        graph = stream.end_capture()
    assert not out.get().any()
    with counting() as counts:
        graph.launch(stream)
    stream.synchronize()
    assert (counts.graph_launches, counts.launches) == (1, 0)
    np.testing.assert_allclose(out.get(), a @ b, rtol=1e-5)


def test_empty_arrays_are_cupys():
    assert ndl.cuda().matmul(cupy.zeros((2, 0)), cupy.zeros((0, 3))).get().tolist() == [[0] * 3] * 2


def test_tf32_is_a_switch():
    matrix = cupy.asarray(laid((4, 4), (0, 1)))
    for allowed in (False, True):
        with counting() as counts, ndl.allow_tf32(allowed):
            ndl.cuda().matmul(matrix, matrix)
        assert counts.journal[-1].endswith("tf32") == allowed


@pytest.mark.parametrize(("features", "launches"), [(20, (1, 2)), (3000, (2, 2))])
def test_launches_of_a_linear_layer(features, launches):
    """With relu, forward and backward; of 3000 terms cuBLAS adds the forward products, and a kernel the bias."""
    layer = nn.Sequential(nn.Linear(features, 6, device=ndl.cuda()), nn.ReLU())
    x = ndl.Tensor(laid((8, features), (0, 1)), device=ndl.cuda(), requires_grad=True)
    grad = ndl.ones(8, 6, device=ndl.cuda())
    with counting() as forward:
        y = layer(x)
    with counting() as backward:
        y.backward(grad, create_graph=False)
    assert (forward.launches, backward.launches) == launches


@pytest.mark.parametrize(
    ("equation", "copies"),
    [("bij,bjk->bik", 0), ("bhid,bhjd->bhij", 0), ("ij,kj->ik", 0), ("ij,i->j", 0), ("nchw,oc->nohw", 1)],
)
def test_einsum_takes_one_product(equation, copies):
    """And a copy where axes that become one do not lie side by side: n and h of the last."""
    sizes = dict(zip("bhijdknchwo", range(2, 13), strict=True))
    terms = equation.partition("->")[0].split(",")
    arrays = [laid([sizes[label] for label in term], range(len(term)), seed=len(term)) for term in terms]
    tensors = [ndl.Tensor(array, device=ndl.cuda()) for array in arrays]
    with counting() as counts:
        y = ndl.ops.einsum(equation, *tensors)
    assert (counts["gemm"], counts.launches) == (1, 1 + copies)
    np.testing.assert_allclose(y.numpy(), np.einsum(equation, *arrays), rtol=1e-4, atol=1e-4)
