"""What the functions of `needle.ops` beyond the course's refuse, and points at which torch decides the result."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest
import torch

import needle as ndl
from needle import ops
from tests.nn.functional.alike import raises

X = ndl.ones(2, 3)
INTEGERS = ndl.Tensor([1, 2], requires_grad=False)
TRUTHS = ndl.Tensor([True, False], requires_grad=False)

ERRORS = [
    (lambda: ops.sin("a"), TypeError,
     "sin: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: ops.atan2(X, ndl.ones(2)), ValueError, "atan2: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: INTEGERS.hypot(TRUTHS), TypeError, "hypot: one operand must be of floats, but got dtypes int64 and bool"),
    *(
        (lambda name=name: getattr(ops, name)(TRUTHS), TypeError, f"{name}: x must be of numbers, but got dtype bool")
        for name in ("floor", "ceil", "trunc", "round")
    ),
    (lambda: X.round(309), ValueError, "round: decimals must lie in [-308, 308], but got 309"),
    *(
        (call, TypeError, f"{name}: keepdims must be a bool, but got int")
        for name in ("max", "min", "mean", "prod", "norm", "logsumexp", "argmax", "argmin", "any", "all", "std", "var")
        for call in [lambda name=name: getattr(ops, name)(X, axis=0, keepdim=1)]
    ),
    (lambda: X.sum(0, 1), TypeError, "summation: keepdims must be a bool, but got int"),
    (lambda: ops.allclose(X, X, rtol=-1), ValueError, "allclose: rtol must lie in [0, inf], but got -1"),
    (lambda: ops.allclose(X, X, equal_nan=1), TypeError, "allclose: equal_nan must be a bool, but got int"),
    (lambda: X.round(0.5), TypeError, "round: decimals must be an integer, but got 0.5"),
    (lambda: INTEGERS.round(1), TypeError, "round: x must have a floating dtype, but got int64"),
    (lambda: INTEGERS // 0, ValueError, "floor_divide: the divisor of integers must not be 0, but got 0"),
    (lambda: 5 % (INTEGERS - 1), ValueError, "remainder: the divisor of integers must not be 0, but got 0"),
    (lambda: TRUTHS % TRUTHS, TypeError, "remainder: one operand must not be of bools, but got two"),
    (lambda: INTEGERS.fmod(0), ValueError, "fmod: the divisor of integers must not be 0, but got 0"),
    (lambda: ops.logical_and(X, ndl.ones(2)), ValueError,
     "logical_and: shapes must broadcast, but got (2, 3) and (2,)"),
    *(
        (call, TypeError, f"{name}: operands must be of integers or bools, but got dtype float32")
        for name, call in (
            ("bitwise_and", lambda: X & X), ("bitwise_or", lambda: 1 | X), ("bitwise_xor", lambda: X ^ True),
            ("bitwise_not", lambda: ~X),
        )
    ),
    (lambda: X.argmin(2), ValueError, "argmin: axis must lie in [-2, 1], but got 2"),
    (lambda: ndl.ones(0).argmin(), ValueError,
     "argmin: axes must hold at least one element, but got axes (0,) of shape (0,)"),
    (lambda: X.sort(2), ValueError, "sort: axis must lie in [-2, 1], but got 2"),
    (lambda: X.argsort("a"), TypeError, "argsort: axis must be an integer, but got 'a'"),
    (lambda: X.topk(4), ValueError, "topk: k must be at most 3, the size of axis 1, but got 4"),
    (lambda: X.topk(-1), ValueError, "topk: k must be at least 0, but got -1"),
    (lambda: X.topk(1.0), TypeError, "topk: k must be an integer, but got 1.0"),
    (lambda: X.sort(0, 1), TypeError, "sort: descending must be a bool, but got int"),
    (lambda: X.argsort(descending="a"), TypeError, "argsort: descending must be a bool, but got str"),
    (lambda: X.topk(1, 0, 1), TypeError, "topk: largest must be a bool, but got int"),
    (lambda: X.cumprod(2), ValueError, "cumprod: axis must lie in [-2, 1], but got 2"),
    (lambda: X.det(), ValueError, "det: x must hold square matrices, but got shape (2, 3)"),
    (lambda: ops.bitwise_left_shift([True], [1]), TypeError,
     "bitwise_left_shift: operands must be of integers, but got dtypes bool and int64"),
    (lambda: X.cumsum(2), ValueError, "cumsum: axis must lie in [-2, 1], but got 2"),
    (lambda: X.prod((0, 0)), ValueError, "prod: axes must differ, but got (0, 0) for 2 dimensions"),
    (lambda: X.gather(0, [[2]]), IndexError, "gather: index must lie in [0, 1], but got 2 to 2"),
    (lambda: X.gather(0, [[0, -1]]), IndexError, "gather: index must lie in [0, 1], but got -1 to 0"),
    (lambda: X.gather(0, [[0.0]]), TypeError, "gather: index must be of integers, but got dtype float64"),
    (lambda: X.gather(0, [[True]]), TypeError, "gather: index must be of integers, but got dtype bool"),
    (lambda: X.gather(0, [0]), ValueError, "gather: x and index must agree in rank, but got 2 and 1"),
    (lambda: X.gather(1, [[0]] * 3), ValueError,
     "gather: index may be larger than x along axis 1 only, but got shapes (3, 1) and (2, 3)"),
    (lambda: X.scatter(0, [[0]], ndl.ones(1, 1, dtype="float64")), TypeError,
     "scatter: src must have the dtype float32 of x, but got float64"),
    (lambda: INTEGERS.scatter(0, [0], 1.5), TypeError,
     "scatter: src must have the dtype int64 of x, but got float32"),
    (lambda: X.scatter_add(0, [[0]], ndl.ones(1)), ValueError,
     "scatter_add: index and src must agree in rank, but got 2 and 1"),
    (lambda: X.scatter(0, [[0, 0]], ndl.ones(1, 1)), ValueError,
     "scatter: index must fit into src, but got shapes (1, 2) and (1, 1)"),
    (lambda: X.index_select(1, [3]), IndexError, "index_select: index must lie in [0, 2], but got 3 to 3"),
    (lambda: X.index_select(1, [[0]]), ValueError, "index_select: index must have 1 axis, but got shape (1, 1)"),
    (lambda: ndl.tensor(1.0).index_select(0, [0, 0]), ValueError,
     "index_select: index must have 1 element for x without axes, but got 2"),
    (lambda: X.take([-7]), IndexError, "take: index must lie in [-6, 5], but got -7 to -7"),
    (lambda: X.masked_fill(X, 0), TypeError, "masked_fill: mask must be of bools, but got dtype float32"),
    (lambda: X.masked_fill(X > 0, ndl.ones(1)), ValueError,
     "masked_fill: value must be a number or have no axes, but got shape (1,)"),
    (lambda: INTEGERS.masked_fill(TRUTHS, 1.5), TypeError, "masked_fill: value must fit dtype int64, but got float32"),
    (lambda: INTEGERS.to("int8").masked_fill(TRUTHS, ndl.tensor(300)), ValueError,
     "masked_fill: value must lie in [-128, 127], the range of int8, but got 300"),
    (lambda: X.half().masked_fill(X > 0, 1e6), ValueError,
     "masked_fill: value must lie in [-65504.0, 65504.0], the range of float16, but got 1000000.0"),
    (lambda: X.masked_fill(TRUTHS, 0), ValueError, "masked_fill: shapes must broadcast, but got (2, 3) and (2,)"),
    (lambda: ndl.ones(3).tril(), ValueError, "tril: x must have at least 2 axes, but got shape (3,)"),
    (lambda: X.triu(0.5), TypeError, "triu: diagonal must be an integer, but got 0.5"),
    (lambda: X.tile(-1), ValueError, "tile: reps must be at least 0, but got -1"),
    (lambda: X.tile("ab"), TypeError, "tile: reps must be an integer, but got 'a'"),
    (lambda: X.repeat(2), ValueError, "repeat: sizes must name each of the 2 axes of (2, 3), but got (2,)"),
    (lambda: X.repeat(2, 1.5), TypeError, "repeat: sizes must be an integer, but got 1.5"),
    (lambda: X.repeat_interleave(-1), ValueError, "repeat_interleave: repeats must be at least 0, but got -1"),
    (lambda: X.repeat_interleave([1.5]), TypeError,
     "repeat_interleave: repeats must be integers in at most 1 axis, but got [1.5]"),
    (lambda: X.repeat_interleave([1, 2], 1), ValueError, "repeat_interleave: repeats must be 1 number or 3, but got 2"),
    (lambda: INTEGERS.var(), TypeError, "var: x must have a floating dtype, but got int64"),
    (lambda: X.std(1, foo=True), TypeError,
     ("std: arguments must be among axes, keepdims, correction, unbiased, axis, dim, dims, keepdim, ddof, "
      "but got foo=True")),
    (lambda: X.std(2), ValueError, "std: axis must lie in [-2, 1], but got 2"),
    (lambda: X.std(correction="1"), TypeError, "std: correction must be a number, but got '1'"),
    (lambda: X.std(unbiased=0), TypeError, "std: unbiased must be a bool, but got int"),
    (lambda: INTEGERS.norm(), TypeError, "norm: x must have a floating dtype, but got int64"),
    (lambda: X.norm("nuc"), TypeError, "norm: p must be a number, but got 'nuc'"),
    (lambda: X.norm(float("nan")), ValueError, "norm: p must lie in [-inf, inf], but got nan"),
    (lambda: ndl.ones(2, 0).norm(-1, 1), ValueError,
     "norm: axes must hold at least one element for p=-1, but got (1,) of shape (2, 0)"),
    (lambda: ops.einsum(X, X), TypeError, "einsum: equation must be a str, but got Tensor"),
    (lambda: ops.einsum(""), ValueError, "einsum: equation must have a term for each of the 0 operands, but got ''"),
    (lambda: ops.einsum("ij,j->i", X), ValueError,
     "einsum: equation must have a term for each of the 1 operands, but got 'ij,j->i'"),
    (lambda: ops.einsum("i->i", X), ValueError,
     "einsum: a term must have a letter for each axis, but got 'i' for 2 axes"),
    (lambda: ops.einsum("ijk...->i", X), ValueError,
     "einsum: a term must have a letter for each axis, but got 'ijk...' for 2 axes"),
    (lambda: ops.einsum("i2->i", X), ValueError,
     "einsum: terms must be of letters and at most one ellipsis, but got 'i2->i'"),
    (lambda: ops.einsum("......->", X), ValueError,
     "einsum: terms must be of letters and at most one ellipsis, but got '......->'"),
    (lambda: ops.einsum("ij->ik", X), ValueError,
     "einsum: the result must have letters of the operands, each once, but got 'ij->ik'"),
    (lambda: ops.einsum("ij->ii", X), ValueError,
     "einsum: the result must have letters of the operands, each once, but got 'ij->ii'"),
    (lambda: ops.einsum("ij,jk", X, X), ValueError,
     "einsum: axes of one letter must agree in size, but got 3 and 2 in 'ij,jk'"),
    (lambda: ops.einsum("ii", X), ValueError,
     "einsum: axes of one letter must agree in size, but got 2 and 3 in 'ii'"),
    (lambda: ops.einsum("ii", ndl.ones(1, 3)), ValueError,
     "einsum: axes of one letter must agree in size, but got 1 and 3 in 'ii'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)


# ---- points at which torch decides -----------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan
POINTS = {
    "remainder": ([5, -5, 5, -5, 1, -1, INF, NAN, 5], [3, 3, -3, -3, INF, INF, 2, 2, 0]),
    "fmod": ([5, -5, 5, -5, 1, -1, INF, NAN, 5], [3, 3, -3, -3, INF, INF, 2, 2, 0]),
    "floor_divide": ([5, -5, 1, -1, INF, NAN, 5, 0, -5], [3, 3, INF, INF, 2, 2, 0, 0, 0]),
    "atan2": ([0, -0.0, 0, 1, INF, INF, NAN], [0, -1, 1, 0, INF, -1, 1]),
    "hypot": ([3, INF, NAN, 1e200], [4, NAN, 1, 1e200]),
    "logical_and": ([0, 0, 1, NAN], [0, 1, 2, 1]),
    "logical_xor": ([0, 0, 1, NAN], [0, 1, 2, 1]),
    "acosh": ([0.5, 1, 2, INF, NAN],),
    **{name: ([-INF, -2, -1, -0.0, 0, 0.5, 1, INF, NAN],) for name in (
        "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "atanh", "log1p", "log2",
        "log10", "reciprocal", "rsqrt", "square", "floor", "round",
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
def test_results_and_slopes_at_points(name, device):
    arrays = [np.array(values, "float64") for values in POINTS[name]]
    inputs = [ndl.Tensor(array, device=device) for array in arrays]
    torchs = [torch.tensor(array, requires_grad=True) for array in arrays]
    with np.errstate(all="ignore"):
        y, expected = getattr(ops, name)(*inputs), getattr(torch, name)(*torchs)
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-13)
        if y.requires_grad:
            y.sum().backward(create_graph=False)
            expected.sum().backward()
            for x, t in zip(inputs, torchs, strict=True):
                np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-12, err_msg=str(t))


@pytest.mark.parametrize("name", ["atan", "asinh", "acosh", "atan2", "hypot"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_square_overflows_in_a_slope(name, dtype, device):
    """Warnings are errors. Exact in float64."""
    large = np.array([300.0, 3000.0])
    slopes = []
    for kind in (dtype, "float64"):
        inputs = [ndl.Tensor(large * (i + 1), dtype=kind, device=device) for i in range(2 if name[-1] in "2t" else 1)]
        getattr(ops, name)(*inputs).sum().backward()
        slopes.append(inputs[0].grad.numpy())
    np.testing.assert_allclose(*slopes, rtol=2e-3, atol=1e-7)


def test_nan_is_the_largest_in_order(device):
    array = np.array([2.0, np.nan, -np.inf, 2.0, np.inf])
    x, t = ndl.Tensor(array, device=device), torch.tensor(array)
    for descending in (False, True):
        expected = t.sort(descending=descending, stable=True)
        result = x.sort(descending=descending)
        np.testing.assert_array_equal(result.values.numpy(), expected.values.numpy())
        np.testing.assert_array_equal(result.indices.numpy(), expected.indices.numpy())
        first = x.topk(3, largest=descending).indices.numpy()  # any of those that tie for the last place
        np.testing.assert_array_equal(array[first], expected.values.numpy()[:3])
    assert x.argmin().item() == t.argmin().item() == 1


@pytest.mark.parametrize(("dtype", "error"), [("float16", 1e-3), ("float32", 1e-7)])
def test_running_sums_lose_no_terms(dtype, error, device):
    x = ndl.Tensor(np.full((30_000, 1), 0.1 if dtype == "float32" else 1.0), dtype=dtype, device=device)
    expected = np.cumsum(x.numpy().astype("float64"), 0)
    np.testing.assert_allclose(x.cumsum(0).numpy().astype("float64"), expected, rtol=error)


def test_deviations_of_constant_and_of_far_rows(device):
    row = np.full((1, 1000), 1000.1, "float32")
    x = ndl.Tensor(np.concatenate([row, row + np.random.default_rng(0).normal(size=row.shape)]), device=device)
    x = x.astype("float32")
    exact = np.std(x.numpy().astype("float64"), axis=1, ddof=1)
    assert x.std(1).numpy()[0] == x.var(1).numpy()[0] == 0
    np.testing.assert_allclose(x.std(1).numpy()[1], exact[1], rtol=1e-6)
    half = ndl.Tensor(np.linspace(-300, 300, 601), dtype="float16", device=device)
    np.testing.assert_allclose(half.std().item(), np.std(half.numpy().astype("float64"), ddof=1), rtol=1e-3)


def test_a_second_argument_of_a_deviation_is_refused():
    """It is `unbiased` in torch, and would be `keepdims` elsewhere in needle."""
    for function in (ops.var, ops.std):
        with pytest.raises(TypeError, match="positional"):
            function(X, 1, False)


def test_without_degrees_of_freedom_the_variance_is_no_number(device):
    with np.errstate(all="ignore"):
        assert np.isnan(ndl.ones(1, device=device).var().item())
        assert ndl.Tensor([1.0, 2.0], device=device).var(correction=5).item() == np.inf


@pytest.mark.parametrize("p", [2, 3, -1])
def test_a_norm_neither_overflows_nor_vanishes(p, device):
    for scale in (1e-40, 1e30):
        x = ndl.Tensor(np.array([3.0, 4.0]) * scale, dtype="float64", device=device)
        np.testing.assert_allclose(x.norm(p).item(), np.linalg.norm([3.0, 4.0], p) * scale)
        half = ndl.Tensor([300.0, 400.0], dtype="float16", device=device)
        np.testing.assert_allclose(half.norm(p).item(), np.linalg.norm([300.0, 400.0], p), rtol=1e-3)


INTEGER_TYPES = ["int8", "uint8", "int32", "int64", "bool"]


@pytest.mark.parametrize("function", [operator.floordiv, operator.mod, operator.and_, operator.or_, operator.xor])
def test_integers_have_torchs_dtypes_and_values(function, device):
    for left, right in itertools.product(INTEGER_TYPES, INTEGER_TYPES):
        if left == right == "bool" and function in (operator.floordiv, operator.mod):
            continue  # refused
        a, b = np.array([0, 1, 7]).astype(left), np.array([1, 1, 3]).astype(right)
        expected = function(torch.tensor(a), torch.tensor(b)).numpy()
        y = function(ndl.Tensor(a, device=device), ndl.Tensor(b, device=device))
        np.testing.assert_array_equal(y.numpy(), expected, strict=True)


@pytest.mark.parametrize("name", ["floor", "round", "square", "isnan", "isfinite", "logical_not", "bitwise_not"])
def test_functions_of_integers_have_torchs_dtypes(name, device):
    for dtype in INTEGER_TYPES[: 4 if name in ("floor", "round") else 5]:  # those refuse bools
        values = np.array([0, 1, 7]).astype(dtype)
        y = getattr(ops, name)(ndl.Tensor(values, device=device))
        np.testing.assert_array_equal(y.numpy(), getattr(torch, name)(torch.tensor(values)).numpy(), strict=True)


def test_triangles_take_any_diagonal():
    x = ndl.randn(2, 3)
    for diagonal, all_below in ((2**70, True), (-(2**70), False)):
        assert (x.tril(diagonal) == x).all().item() is all_below
        assert (x.triu(diagonal) == x).all().item() is not all_below
        assert (ndl.init.tril(2, 3, diagonal) == all_below).all()


def test_masked_fill_takes_integers_that_fit():
    x = ndl.Tensor(np.array([1, 2], "uint8"), requires_grad=False)
    filled = x.masked_fill(x > 1, ndl.tensor(255))
    assert (filled.dtype, filled.tolist()) == ("uint8", [1, 255])


def test_float16_beside_a_number_that_it_does_not_hold():
    values = np.array([1e-3, 0, 5e-2], "float16")
    for function in (lambda x, lib: lib.mul(x, 1e6), lambda x, lib: lib.div(x, 1e5), lambda x, lib: x.mul(-70_000)):
        x, expected = ndl.Tensor(values), torch.tensor(values, requires_grad=True)
        y, z = function(x, ndl), function(expected, torch)
        np.testing.assert_allclose(y.numpy(), z.detach(), rtol=2e-3)
        with np.errstate(over="ignore"):  # the derivative is the number
            y.backward()
        z.backward(torch.ones(3, dtype=torch.half))
        np.testing.assert_allclose(x.grad.numpy(), expected.grad, rtol=2e-3)
        assert (y.dtype, x.grad.dtype) == ("float16", "float16")
    x = ndl.Tensor(np.array([6e2, 6e4], "float16"))
    np.testing.assert_allclose((1e6 / x).numpy(), [1666.67, 16.67], rtol=2e-3)
    np.testing.assert_allclose(x.div(1e6).numpy(), [6e-4, 6e-2], rtol=2e-3)
