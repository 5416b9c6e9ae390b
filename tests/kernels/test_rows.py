"""Work by rows and by stretches gives what the plain call gives, in every memory order, on one thread and on two."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import needle as ndl
from needle import kernels, ops
from needle.kernels.layout import batch_first
from needle.ops import arithmetic, elementwise

ORDERS = {
    "row-major": lambda x: x,
    "batch innermost": lambda x: batch_first(np.ascontiguousarray(np.moveaxis(x, 0, -1))),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}
every_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)


@pytest.fixture(params=[1, 2])
def threads(request):
    """BLAS, and so needle, with that number of threads."""
    with ThreadpoolController().limit(limits=request.param, user_api="blas"):
        yield request.param


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---- elementwise work ------------------------------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("other", [(6, 5, 4, 7), (5, 1, 1), (1, 5, 4, 1), (6, 1, 1, 1), (7,), ()], ids=str)
@pytest.mark.parametrize("given", ["float32", "float64"])
def test_elementwise_work_gives_what_the_plain_call_gives(order, other, given, threads):
    x, y = order(draw(6, 5, 4, 7)), draw(*other, dtype=given, seed=1)
    for a, b in ((x, y), (y, x), (x, order(draw(6, 5, 4, 7, seed=2)))):
        found, expected = kernels.elementwise(np.add, a, b), a + b
        np.testing.assert_array_equal(found, expected, strict=True)
        if expected.shape == x.shape and a is x:
            assert found.strides == expected.strides


@every_order
def test_ops_give_the_same_bits_below_and_above(order, threads, monkeypatch):
    x, y = (ndl.Tensor.make_const(order(draw(3, 5, 4, 7)) + shift) for shift in (0, 0.5))
    x.array[0, 0, 0] = [0, -0.0, np.nan, np.inf, -np.inf, 1, -1]
    results = []
    for least in (0, 1 << 40):
        for holder in (arithmetic, elementwise):
            monkeypatch.setattr(holder, "SHARED_BYTES", least)
        results.append([ops.relu(x), ops.elementwise.ReLUGrad()(y, x), x + y, x * y])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found.numpy().view("int32"), expected.numpy().view("int32"))


def test_big_results_are_made_by_as_many_threads_as_there_are(threads):
    calls = []

    def work(x, out=None):
        calls.append(x.shape)
        return np.negative(x, out=out)

    x = draw(64, 2048)
    np.testing.assert_array_equal(kernels.elementwise(work, x), -x)
    assert len(calls) == threads


# ---- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "axes", "count"),
    [
        ("batch innermost", (0, 2, 3), 5),
        ("batch innermost", (0, 3), 20),
        ("row-major", (2, 3), 30),
        ("row-major", (1, 2, 3), 6),
        ("row-major", (0, 1, 2, 3), 1),
        ("row-major", (0, 2, 3), None),
        ("batch innermost", (2, 3), None),
        ("strided", (1, 2, 3), None),
    ],
)
def test_rows_are_views_where_there_are_any(order, axes, count):
    x = ORDERS[order](draw(6, 5, 4, 7))
    rows = kernels.Rows.of(x, axes)
    assert (rows is None) == (count is None)
    if rows:
        view = rows.view(x)
        assert view.shape == (count, x.size // count)
        assert view.base is not None
        assert np.shares_memory(view, x)
        np.testing.assert_array_equal(rows.whole(view), x)
        np.testing.assert_allclose(kernels.row_sums(view).reshape(rows.form), x.sum(axes, keepdims=True), atol=1e-5)


def test_halves_and_integers_have_no_rows():
    assert kernels.Rows.of(np.ones((3, 4), "float16"), (1,)) is None
    assert kernels.Rows.of(np.ones((3, 4), "int64"), (1,)) is None
    assert kernels.Rows.of(np.ones((3, 0), "float32"), (1,)) is None


@pytest.mark.parametrize("length", [100, 700, 5000, 50000])
def test_sums_of_rows_are_as_exact_as_those_of_numpy(length):
    a, b = draw(8, length) + 1, draw(8, length, seed=1) + 2
    exact = a.astype("float64"), a.astype("float64") * b
    for found, terms in zip((kernels.row_sums(a), kernels.row_products(a, b)), exact, strict=True):
        np.testing.assert_allclose(found[:, 0], terms.sum(1), rtol=1e-6)


# ---- what is computed by rows ----------------------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (32, 6, 5, 5), (64, 40, 16, 16)], ids=str)
def test_batch_norm_is_that_of_the_formula(order, shape, threads):
    x, grad = order(draw(*shape) + 3), draw(*shape, seed=1)
    weight, bias = draw(1, shape[1], 1, 1, seed=2), draw(1, shape[1], 1, 1, seed=3)
    op = ops.norm.Standardize((0, 2, 3), 1e-5, True, True)
    y, average, variance = op.compute(x, weight, bias)
    exact = x.astype("float64")
    mean, var = exact.mean((0, 2, 3), keepdims=True), exact.var((0, 2, 3), keepdims=True)
    unit = (exact - mean) / np.sqrt(var + 1e-5)
    for found, expected in (average, mean), (variance, var), (y, unit * weight + bias):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert found.dtype == "float32"
    assert y.strides == (np.empty_like(x).strides)
    slope = grad - grad.mean((0, 2, 3), keepdims=True) - unit * (grad * unit).mean((0, 2, 3), keepdims=True)
    expected = slope * weight / np.sqrt(var + 1e-5), (grad * unit).sum((0, 2, 3)), grad.sum((0, 2, 3))
    found = op.compute_gradient((order(grad),), (y, average, variance), x, weight, bias, needed=[True] * 3)
    for part, formula in zip(found, expected, strict=True):
        np.testing.assert_allclose(part.reshape(formula.shape), formula, rtol=1e-4, atol=1e-4 * np.abs(formula).max())
    again = op.compute_gradient((grad,), (y, average, variance), x, weight, bias, needed=[True] * 3)
    for part, formula in zip(again, found, strict=True):
        np.testing.assert_allclose(part, formula, rtol=1e-4, atol=1e-4 * np.abs(formula).max())


def test_batch_norm_gives_the_same_bits_again(threads):
    x = ORDERS["batch innermost"](draw(64, 40, 16, 16))
    op = ops.norm.Standardize((0, 2, 3), 1e-5, False, False)
    first, second = op.compute(x)[0], op.compute(x)[0]
    np.testing.assert_array_equal(first.view("int32"), second.view("int32"))


@every_order
@pytest.mark.parametrize("shape", [(2, 3, 2, 2), (64, 5, 8, 8)], ids=str)
@pytest.mark.parametrize("kept", [(1, None, 1, 1), (None, 1, 1, 1), (None, None, 1, 1), (None, 1, 1), (1, 1, 1, None)])
def test_sums_over_what_was_broadcast(order, shape, kept, threads):
    x = order(draw(*shape))
    lead = len(shape) - len(kept)
    target = tuple(n or m for n, m in zip(kept, shape[lead:], strict=True))
    axes = (*range(lead), *(i + lead for i, n in enumerate(kept) if n))
    found = ops.shape.SumTo(target).compute(x)
    assert found.shape == target
    np.testing.assert_allclose(found.ravel(), x.astype("float64").sum(axes).ravel(), rtol=1e-5, atol=1e-4)


def test_the_buffer_of_numpy_is_as_it_was():
    before = np.getbufsize()
    ops.norm.Standardize((1,), 1e-5, False, False).compute(draw(4, 2048))
    assert np.getbufsize() == before
