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
    *(
        (lambda name=name: getattr(ops, name)(TRUTHS), TypeError, f"{name}: x must be of numbers, but got dtype bool")
        for name in ("floor", "ceil", "trunc", "round")
    ),
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
