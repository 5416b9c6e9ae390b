"""Questions about all elements: whether any is true, whether all are, whether two tensors are close."""

from __future__ import annotations

from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import cpu, to_host, xp
from needle.graph import Spec
from needle.ops.base import Array
from needle.ops.operand import pair, tensor
from needle.ops.reduce import Reduction
from needle.words import Axes, ReductionWords, respelled

__all__ = ["all", "allclose", "any"]


class Truth(Reduction):
    """Whether any element is other than 0, or whether all are; a constant."""

    differentiable = False

    def __init__(self, name: str, axes: Axes, keepdims: bool) -> None:
        super().__init__(axes, keepdims)
        self.name = name

    def compute(self, x: Array) -> Array:
        return getattr(x, self.name)(axis=self.normalized_axes(x), keepdims=self.keepdims)

    def infer(self, x: Any) -> Spec:
        return Spec(super().infer(x).shape, cpu().xp.dtype(bool))


def any(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """Whether an element of x `(*S)` over `axes` is other than 0: bools, a constant. NaN is; of no elements, none is.

    Axes, shapes and errors as in `summation`.
    """
    if words:
        return respelled(any, words, x, axes=axes, keepdims=keepdims)
    x = tensor("any", x)
    return Truth("any", check.reduced_axes("any", axes, x.ndim, keepdims), keepdims)(x)


def all(x: TensorLike, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Tensor:
    """Whether all elements of x `(*S)` over `axes` are other than 0: bools, a constant. Of no elements, all are.

    Axes, shapes and errors as in `summation`.
    """
    if words:
        return respelled(all, words, x, axes=axes, keepdims=keepdims)
    x = tensor("all", x)
    return Truth("all", check.reduced_axes("all", axes, x.ndim, keepdims), keepdims)(x)


def allclose(a: TensorLike, b: TensorLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |a - b| <= atol + rtol · |b| for all elements; infinities equal themselves, NaN too with `equal_nan`.

    Broadcasting and errors as in `add`. The answer waits for the device.
    """
    a, b = pair("allclose", a, b)
    rtol, atol = check.number("allclose", "rtol", rtol, least=0), check.number("allclose", "atol", atol, least=0)
    check.instance("allclose", "equal_nan", equal_nan, bool)
    return bool(to_host(xp(a.array).isclose(a.array, b.array, rtol, atol, equal_nan).all()))
