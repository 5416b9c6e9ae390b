"""Special functions: the error function."""

from __future__ import annotations

import math
from typing import Any

from needle import kernels
from needle.autograd import Tensor, TensorLike
from needle.backend import xp
from needle.ops.arithmetic import MULTIPLY, NEGATE, MulScalar, as_dtype
from needle.ops.base import Array, Elementwise
from needle.ops.elementwise import Clip, Exp
from needle.ops.operand import tensor

__all__ = ["erf"]


class Erf(Elementwise):
    """The error function."""

    def compute(self, x: Array) -> Array:
        wide = x.astype(xp(x).result_type(x.dtype, "float32"), copy=False)
        y = kernels.erf(wide)
        return y.astype(x.dtype) if x.dtype.kind == "f" else y

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        x = Clip(-30, 30)(as_dtype(node.inputs[0], node.dtype))  # beyond, exp(-x ** 2) is 0, and x ** 2 might overflow
        return MULTIPLY(out_grad, MulScalar(2 / math.sqrt(math.pi))(Exp()(NEGATE(MULTIPLY(x, x)))))


def erf(x: TensorLike) -> Tensor:
    """The error function, 2 / sqrt(pi) times the integral of exp(-t ** 2) from 0 to x: `(*S) -> (*S)`, in [-1, 1].

    Within 2.5 units of the last place. Floats stay in their dtype; bools and integers of 8 or 16 bits become float32,
    other integers float64. Raises `TypeError` if x is not a tensor, array, list or number.
    """
    return Erf()(tensor("erf", x))
