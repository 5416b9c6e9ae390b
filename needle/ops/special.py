"""Special functions: the error function."""

from __future__ import annotations

import math
from typing import Any

from needle import kernels
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.ops.arithmetic import MULTIPLY, NEGATE, MulScalar
from needle.ops.base import Array, Elementwise
from needle.ops.elementwise import Clip, Exp
from needle.ops.operand import floating

__all__ = ["erf"]


class Erf(Elementwise):
    """The error function."""

    def compute(self, x: Array) -> Array:
        return kernels.erf(x.astype(compute_dtype(x.dtype), copy=False)).astype(x.dtype, copy=False)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        x = Clip(-30, 30)(node.inputs[0])  # beyond, exp(-x ** 2) is 0, and x ** 2 might overflow
        return MULTIPLY(out_grad, MulScalar(2 / math.sqrt(math.pi))(Exp()(NEGATE(MULTIPLY(x, x)))))


def erf(x: TensorLike) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t ** 2) from 0 to x: `(*S) -> (*S)`, in [-1, 1].

    Within 2.5 units of the last place. Dtypes and errors as in `exp`.
    """
    return Erf()(floating("erf", x))
