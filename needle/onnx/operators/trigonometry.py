"""Trigonometric and hyperbolic operators and their inverses."""

from __future__ import annotations

from needle import ops
from needle.onnx.operators.arguments import elementwise

__all__: list[str] = []

elementwise({
    "Acos": ops.acos, "Acosh": ops.acosh, "Asin": ops.asin, "Asinh": ops.asinh, "Atan": ops.atan, "Atanh": ops.atanh,
    "Cos": ops.cos, "Cosh": ops.cosh, "Sin": ops.sin, "Sinh": ops.sinh, "Tan": ops.tan,
})  # fmt: skip
