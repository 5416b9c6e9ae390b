"""No product leaves a share of its work to BLAS's own threads: then its bits depend on loops in other threads."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import needle as ndl
import needle.nn.functional as F
from needle import kernels, nn, ops, tuning
from needle.backend import blas

BLAS = ThreadpoolController().select(user_api="blas")
pytestmark = pytest.mark.skipif(not BLAS.lib_controllers, reason="no BLAS")


SHARED = []  # the shapes of operands


class Watched(np.ndarray):
    """An array that notes products which BLAS would share among its threads."""

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, np.ndarray) else x for x in inputs]
        if ufunc is np.matmul:
            note(*plain)
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        results = getattr(ufunc, method)(*plain, **options)
        if out is not None:
            return out[0]
        return results.view(Watched) if isinstance(results, np.ndarray) else results

    def __array_function__(self, function, types, args, options):
        if function is np.dot:  # within np.tensordot
            note(*args)
        return super().__array_function__(function, types, args, options)


def note(a, b):
    rows, inner, columns = a.shape[-2] if a.ndim > 1 else 1, a.shape[-1], b.shape[-1] if b.ndim > 1 else 1
    most = tuning.BLAS_ONE_THREAD_VECTOR_MACS if min(rows, inner, columns) == 1 else tuning.BLAS_ONE_THREAD_MACS
    if a.dtype.kind == "f" and rows * inner * columns > most and not blas._limit.loops:
        SHARED.append((a.shape, b.shape))


def draw(*shape):
    array = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return ndl.Tensor.make_leaf(array.view(Watched), requires_grad=True)


def conv(stride, groups):
    return F.conv2d(draw(16, 32, 18, 18), draw(64, 32 // groups, 3, 3), draw(64), stride, 1, groups=groups)


CALLS = {
    **{f"conv-{s}-{g}": lambda s=s, g=g: conv(s, g) for s in (1, 2) for g in (1, 2)},
    **{f"sum-{axis}": lambda axis=axis: ops.summation(draw(300, 400), axis) for axis in (0, 1, None)},
    "sum-channels": lambda: ops.summation(draw(16, 3, 50, 50), (0, 2, 3)),
    "sum-batch": lambda: ops.summation(draw(20, 3, 30, 30), 0),
    "logsumexp": lambda: ops.logsumexp(draw(300, 400), 1),
    "softmax": lambda: ops.softmax(draw(300, 400), 1),
    "layer-norm": lambda: nn.LayerNorm(400)(draw(300, 400)),
    "batch-norm": lambda: nn.BatchNorm2d(32)(draw(16, 32, 20, 20)),
    "group-norm": lambda: nn.GroupNorm(4, 32)(draw(16, 32, 20, 20)),
    "matmul": lambda: draw(90, 100) @ draw(100, 200),
    "batched": lambda: draw(3, 90, 100) @ draw(100, 200),
    "vector": lambda: draw(300, 400) @ draw(400, 1),
    "dot": lambda: draw(1, 30000) @ draw(30000, 1),
    "einsum": lambda: ops.einsum("ij,kj->ik", draw(90, 100), draw(200, 100)),
    "linear": lambda: F.linear(draw(90, 100), draw(200, 100), draw(200)),
    "cross-entropy": lambda: F.cross_entropy(draw(90, 300), ndl.Tensor(np.arange(90), requires_grad=False)),
    "attention": lambda: F.scaled_dot_product_attention(draw(3, 90, 64), draw(3, 90, 64), draw(3, 90, 64)),
    "lstm": lambda: nn.LSTM(64, 100)(draw(5, 64, 64))[0],
    "bilinear": lambda: F.interpolate(draw(4, 8, 40, 40), scale_factor=2, mode="bilinear"),
    "cosine": lambda: F.cosine_similarity(draw(300, 400), draw(300, 400)),
}
ALGORITHMS = [None, *kernels.conv.dispatch.ALGORITHMS]


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [(name, algorithm) for name in CALLS for algorithm in (ALGORITHMS if name.startswith("conv") else [None])],
)
def test_products_are_computed_while_blas_is_limited(name, algorithm):
    SHARED.clear()
    with BLAS.limit(limits=2):
        if algorithm is None:
            CALLS[name]().sum().backward(create_graph=False)
        else:
            with kernels.conv_algorithm(algorithm):
                CALLS[name]().sum().backward(create_graph=False)
    assert SHARED == []


def test_a_product_outside_of_loops_is_noted():
    SHARED.clear()
    x = draw(90, 100).array
    _ = x @ draw(100, 200).array, np.tensordot(x, x, 2), x[:9] @ x.T
    assert SHARED == [((90, 100), (100, 200))]
