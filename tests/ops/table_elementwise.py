"""Rows of the table of ops: trigonometry, powers, rounding, logic and bits. `tests/ops/table.py` imports this file."""

from __future__ import annotations

import operator

import numpy as np
import torch

from needle import ops
from tests.ops.table import anywhere, few, positive, row

BITS = np.array([[0b1100, -1, 7], [0, 5, -128]])
OTHER_BITS = np.array([0b1010, 3, -7])
PLACES = np.array([[2, 3, 1], [8, 64, 7]])
TRUTHS = np.array([[True, False, True], [False, False, True]])
EXTREMES = np.array([0.0, -0.0, 1.5, np.inf, -np.inf, np.nan])


def above_one(draws, shape):
    """Uniform draws from (1, 3)."""
    return draws.uniform(1.05, 3, shape)


def odd(draws, shape):
    """Odd multiples of 1/8: half of one is never a multiple of another, so no remainder is near a jump."""
    return draws.choice([-1, 1], shape) * (2 * draws.integers(1, 8, shape) + 1) / 8


# ---- smooth functions ------------------------------------------------------------------------------------------------

for op, draw in (
    ("sin", anywhere), ("cos", anywhere), ("tan", anywhere), ("atan", anywhere),
    ("sinh", anywhere), ("cosh", anywhere), ("asinh", anywhere), ("acosh", above_one),
    ("log1p", positive), ("log2", positive), ("log10", positive), ("reciprocal", positive), ("rsqrt", positive),
    ("square", few),
):  # fmt: skip
    for shape in ((2, 3), ()):
        row(op, shape, getattr(ops, op), getattr(torch, op), shape, draw=draw)
for op in ("asin", "acos", "atanh"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    row(op, "inside", lambda x, f=function: f(x / 8), lambda x, f=oracle: f(x / 8), (2, 3))
    row(op, "()", lambda x, f=function: f(x / 8), lambda x, f=oracle: f(x / 8), ())
for op in ("atan2", "hypot"):
    for pair in (((2, 3), (3,)), ((), (2, 1)), ((0, 3), (1, 3))):
        row(op, pair, getattr(ops, op), getattr(torch, op), *pair, draw=positive)
row("atan2", "zeros", ops.atan2, torch.atan2, (5, 6), (6,), draw=few, order=1)

# ---- rounding --------------------------------------------------------------------------------------------------------

for op in ("floor", "ceil", "trunc", "round"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    row(op, "halves", lambda x, f=function: f(x * 2.5), lambda x, f=oracle: f(x * 2.5), (4, 5), draw=few, constant=True)
    row(op, "()", function, oracle, (), constant=True)
for decimals in (1, 2, -1):
    row("round", decimals, lambda x, n=decimals: ops.round(x * 16, n),
        lambda x, n=decimals: torch.round(x * 16, decimals=n), (3, 4), constant=True)  # fmt: skip
for op in ("remainder", "fmod", "floor_divide"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    options = {"constant": op == "floor_divide", "draw": odd}
    for pair in (((2, 3), (3,)), ((), (2, 1)), ((0, 3), (1, 3))):
        row(op, pair, lambda a, b, f=function: f(a * 4.5, b), lambda a, b, f=oracle: f(a * 4.5, b), *pair, **options)
    row(op, "a number at the right", lambda x, f=function: f(x, -0.75), lambda x, f=oracle: f(x, -0.75), (4, 5),
        **options)  # fmt: skip
for symbol, constant in ((operator.floordiv, True), (operator.mod, False)):
    name = symbol.__name__
    options = {"constant": constant, "draw": odd}
    row(f"__{name}__", "x, 2", lambda x, f=symbol: f(x, 2), lambda x, f=symbol: f(x, 2), (4, 5), **options)
    row(f"__r{name}__", "2, x", lambda x, f=symbol: f(2, x * 0.375), lambda x, f=symbol: f(2 + 0 * x, x * 0.375),
        (4, 5), **options)  # fmt: skip

# ---- truth and bits --------------------------------------------------------------------------------------------------

for op in ("logical_and", "logical_or", "logical_xor"):
    row(op, "broadcast", getattr(ops, op), getattr(torch, op), (4, 5), (5,), draw=few, constant=True)
row("logical_not", "", ops.logical_not, torch.logical_not, (4, 5), draw=few, constant=True)
for op in ("isnan", "isinf", "isfinite"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    row(op, "extremes", lambda x, e, f=function: f(x + e.astype(x.dtype)), lambda x, e, f=oracle: f(x + e), (6,),
        EXTREMES, constant=True)  # fmt: skip
    row(op, "()", function, oracle, (), constant=True)
for op, symbol in (("and", operator.and_), ("or", operator.or_), ("xor", operator.xor)):
    name = f"bitwise_{op}"
    row(name, "integers", getattr(ops, name), getattr(torch, name), BITS, OTHER_BITS, constant=True)
    row(name, "bools", symbol, symbol, TRUTHS, TRUTHS[0], constant=True)
    row(f"__{op}__", "x, x", symbol, symbol, BITS, OTHER_BITS, constant=True)
    row(f"__r{op}__", "6, x", lambda x, f=symbol: f(6, x), lambda x, f=symbol: f(6, x), BITS, constant=True)
for op in ("bitwise_left_shift", "bitwise_right_shift"):
    function, oracle = getattr(ops, op), getattr(torch, op)
    row(op, "integers", function, oracle, BITS, PLACES, constant=True)
    for dtype in ("int8", "uint8", "int64"):  # torch lacks larger unsigned ones
        row(op, dtype, function, oracle, BITS.astype(dtype), PLACES.astype("int8").astype(dtype), constant=True)
row("bitwise_not", "integers", ops.bitwise_not, torch.bitwise_not, BITS, constant=True)
row("bitwise_not", "bools", operator.invert, operator.invert, TRUTHS, constant=True)
