"""Operators of arithmetic: sums to powers, remainders, rounding, extremes and limits."""

from __future__ import annotations

from functools import reduce
from typing import Any

from needle import ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import elementwise, pairwise
from needle.onnx.registry import Node, operator

__all__: list[str] = []


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """a / b; of integers rounded towards 0."""
    return ops.divide(a, b) if a.dtype.kind == "f" else ops.floor_divide(ops.subtract(a, ops.fmod(a, b)), b)


def _power(a: Tensor, b: Tensor) -> Tensor:
    """a ** b in the dtype of a, whatever that of b; integers to a float are computed in float64.

    A single exponent is read as a number: squares of a tensor to a tensor would take many times as long.
    """
    if a.dtype.kind == "f":
        is_number = b.size == 1 and b.ndim <= a.ndim and not b.requires_grad
        return (ops.power_scalar(a, b.item()) if is_number else ops.power(a, b)).astype(a.dtype)
    wide = "float64" if b.dtype.kind == "f" else "int64"
    return ops.power(a.astype(wide), b.astype(wide)).astype(a.dtype)


def _erf(x: Tensor) -> Tensor:
    return ops.erf(x).astype(x.dtype)


def _add_all(*terms: Tensor) -> Tensor:
    return reduce(ops.add, terms)


pairwise({"Add": ops.add, "Sub": ops.subtract, "Mul": ops.multiply, "Div": _divide})
pairwise({"Pow": _power}, buffers=(1,))  # the derivative in the exponent of a negative number is NaN
elementwise({
    "Abs": ops.abs, "Ceil": ops.ceil, "Erf": _erf, "Exp": ops.exp, "Floor": ops.floor, "Log": ops.log,
    "Neg": ops.negate, "Reciprocal": ops.reciprocal, "Round": ops.round, "Sign": ops.sign, "Sqrt": ops.sqrt,
    "Sum": _add_all,
    "Max": lambda *terms: reduce(ops.maximum, terms),
    "Min": lambda *terms: reduce(ops.minimum, terms),
    "Mean": lambda *terms: ops.divide_scalar(_add_all(*terms), len(terms)),
})  # fmt: skip


@operator("Mod")
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return (ops.fmod if node["fmod"] else ops.remainder)(a, b)


@operator("Clip")
def clip_by_attributes(node: Node, x: Tensor) -> Tensor:
    """x limited to [min, max], of which the defaults are the largest numbers of float32, beyond those of float16."""
    largest = float(x.device.xp.finfo(x.dtype).max)
    low, high = (None if bound is None or abs(bound) > largest else bound for bound in (node["min"], node["max"]))
    return x if low is None and high is None else ops.clip(x, low, high)


@operator("Clip", since=11, buffers=(1, 2))
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """x limited to [low, high], of which one that is left out is the largest finite number, so that infinities go.

    Bounds that require a gradient are chosen where x exceeds them: the derivative in x is 1 inside, ends included.
    """
    largest = float(x.device.xp.finfo(x.dtype).max) if x.dtype.kind == "f" else None
    ends = (None, None) if largest is None else (-largest, largest)
    bounds: list[Any] = [
        end if bound is None else bound if bound.requires_grad else bound.item()
        for bound, end in zip((low, high), ends, strict=True)
    ]
    if not any(isinstance(bound, Tensor) for bound in bounds):
        return x if bounds == [None, None] else ops.clip(x, *bounds)
    for exceeds, bound in zip((ops.less, ops.greater), bounds, strict=True):
        x = ops.where(exceeds(x, bound), bound, x)
    return x
