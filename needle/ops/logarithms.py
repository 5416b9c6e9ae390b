"""Logarithms other than the natural one."""

from __future__ import annotations

import math
from typing import Any

from needle.autograd import Tensor, TensorLike
from needle.backend import xp
from needle.ops.arithmetic import DIVIDE, AddScalar, MulScalar
from needle.ops.base import Array, Elementwise
from needle.ops.operand import floating

__all__ = ["log1p", "log2", "log10"]


class Log1p(Elementwise):
    """log(1 + x), exact for small x."""

    def compute(self, x: Array) -> Array:
        return xp(x).log1p(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(out_grad, AddScalar(1)(node.inputs[0]))


class LogBase(Elementwise):
    """The logarithm to base 2 or 10."""

    def __init__(self, base: int) -> None:
        self.base = base

    def compute(self, x: Array) -> Array:
        return xp(x).log2(x) if self.base == 2 else xp(x).log10(x)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return DIVIDE(MulScalar(1 / math.log(self.base))(out_grad), node.inputs[0])


# ---- functions -------------------------------------------------------------------------------------------------------


def log1p(x: TensorLike) -> Tensor:
    """log(1 + x): `(*S) -> (*S)`, with no cancellation for small x; NaN below -1. Dtypes and errors as in `exp`."""
    return Log1p()(floating("log1p", x))


def log2(x: TensorLike) -> Tensor:
    """The logarithm to base 2: `(*S) -> (*S)`; -infinity at 0, NaN below. Dtypes and errors as in `exp`."""
    return LogBase(2)(floating("log2", x))


def log10(x: TensorLike) -> Tensor:
    """The logarithm to base 10: `(*S) -> (*S)`; -infinity at 0, NaN below. Dtypes and errors as in `exp`."""
    return LogBase(10)(floating("log10", x))
