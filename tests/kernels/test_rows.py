"""Arrays as contiguous rows, and batch normalization on such rows, on one thread and on two."""

from __future__ import annotations

import numpy as np
import pytest

from needle import kernels, tuning
from needle.ops.norm import Standardize
from tests.interrupts import interrupt_everywhere
from tests.kernels.memory_orders import ORDERS, draw, every_order


@pytest.mark.parametrize(
    ("order", "axes", "count"),
    [
        ("batch-last", (0, 2, 3), 5),
        ("batch-last", (0, 3), 20),
        ("row-major", (2, 3), 30),
        ("row-major", (1, 2, 3), 6),
        ("row-major", (0, 1, 2, 3), 1),
        ("row-major", (0, 2, 3), None),
        ("batch-last", (2, 3), None),
        ("strided", (1, 2, 3), None),
    ],
)
def test_rows_are_views_if_the_layout_has_rows(order, axes, count):
    x = ORDERS[order](draw(6, 5, 4, 7))
    rows = kernels.Rows.of(x, axes)
    assert (rows is None) == (count is None)
    if rows:
        view = rows.view(x)
        assert view.shape == (count, x.size // count)
        assert view.base is not None
        assert np.shares_memory(view, x)
        np.testing.assert_array_equal(rows.unview(view), x)
        np.testing.assert_allclose(
            kernels.row_sums(view).reshape(rows.column_shape), x.sum(axes, keepdims=True), atol=1e-5
        )


def test_float16_and_integers_have_no_rows():
    assert kernels.Rows.of(np.ones((3, 4), "float16"), (1,)) is None
    assert kernels.Rows.of(np.ones((3, 4), "int64"), (1,)) is None
    assert kernels.Rows.of(np.ones((3, 0), "float32"), (1,)) is None


# ---- batch normalization --------------------------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (32, 6, 5, 5), (64, 40, 16, 16)], ids=str)
def test_batch_norm_matches_the_formula(order, shape, threads):
    x, grad = order(draw(*shape) + 3), draw(*shape, seed=1)
    weight, bias = draw(1, shape[1], 1, 1, seed=2), draw(1, shape[1], 1, 1, seed=3)
    op = Standardize((0, 2, 3), 1e-5, True, True)
    y, average, variance = op.compute(x, weight, bias)
    exact = x.astype("float64")
    mean, var = exact.mean((0, 2, 3), keepdims=True), exact.var((0, 2, 3), keepdims=True)
    unit = (exact - mean) / np.sqrt(var + 1e-5)
    for result, expected in (average, mean), (variance, var), (y, unit * weight + bias):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
        assert result.dtype == ("float32" if result is y else "float64")
    assert y.strides == (np.empty_like(x).strides)
    slope = grad - grad.mean((0, 2, 3), keepdims=True) - unit * (grad * unit).mean((0, 2, 3), keepdims=True)
    expected = slope * weight / np.sqrt(var + 1e-5), (grad * unit).sum((0, 2, 3)), grad.sum((0, 2, 3))
    result = op.compute_gradient((order(grad),), (y, average, variance), x, weight, bias, needed=[True] * 3)
    for part, formula in zip(result, expected, strict=True):
        np.testing.assert_allclose(part.reshape(formula.shape), formula, rtol=1e-4, atol=1e-4 * np.abs(formula).max())
    again = op.compute_gradient((grad,), (y, average, variance), x, weight, bias, needed=[True] * 3)
    for part, formula in zip(again, result, strict=True):
        np.testing.assert_allclose(part, formula, rtol=1e-4, atol=1e-4 * np.abs(formula).max())


def test_batch_norm_gives_the_same_bits_again(threads):
    x = ORDERS["batch-last"](draw(64, 40, 16, 16))
    op = Standardize((0, 2, 3), 1e-5, False, False)
    first, second = op.compute(x)[0], op.compute(x)[0]
    np.testing.assert_array_equal(first.view("int32"), second.view("int32"))


def test_numpys_buffer_is_short_for_short_rows_only_meanwhile(threads):
    def work(rows, out):
        sizes.append(np.getbufsize())
        return (np.copyto(out, rows),)

    x, sizes = draw(640, 600), []
    assert next(iter(kernels.Rows.of(x, (1,)).apply(work, [x], []))).tolist() == x.tolist()
    assert set(sizes) == {tuning.SHORT_UFUNC_BUFFER}
    assert len(sizes) >= threads
    op = Standardize((1,), 1e-5, False, False)
    after = {np.getbufsize() for _ in interrupt_everywhere(lambda: op.compute(x[:4]), kernels.rows)}
    assert after == {kernels.rows.UFUNC_BUFFER}
