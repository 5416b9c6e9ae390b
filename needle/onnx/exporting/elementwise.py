"""How elementwise ops are written: arithmetic, comparisons, logic, rounding, functions of one argument."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from needle.graph import Op
from needle.onnx.exporting.graph import Graph, Made, onnx_dtype, writes
from needle.ops.arithmetic import (
    AddScalar,
    Cast,
    EWiseDiv,
    MulScalar,
    Negate,
    PowerScalar,
)
from needle.ops.bits import Bitwise, Predicate
from needle.ops.elementwise import (
    Abs,
    ClampedLog,
    Clip,
    Exp,
    Expm1,
    HardTanh,
    Log,
    Maximum,
    Minimum,
    ReLU,
    Sigmoid,
    Sign,
    Softplus,
    Sqrt,
    Tanh,
)
from needle.ops.logarithms import Log1p, LogBase
from needle.ops.logic import Compare, Where
from needle.ops.powers import EWisePow
from needle.ops.rounding import FloorDivide, Fmod, Remainder, Rounded
from needle.ops.special import Erf
from needle.ops.statistics import Root
from needle.ops.trigonometry import Acos, Acosh, Asin, Asinh, Atan, Atanh, Cos, Cosh, Sin, Sinh, Tan

__all__ = ["binary", "operands", "with_scalar"]


def operands(graph: Graph, made: Made, names: tuple[str, ...], dtype: Any = None) -> list[str]:
    """The inputs in one dtype, by default that of the result."""
    dtype = made.dtype if dtype is None else np.dtype(dtype)
    return [graph.cast(name, spec, dtype) for name, spec in zip(names, made.inputs, strict=True)]


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def binary(kind: str, of_bools: str | None = None) -> Any:
    """A writer of an operator on operands of one dtype."""

    def write(graph: Graph, made: Made, *names: str) -> str:
        return graph.node(of_bools if of_bools and made.dtype == bool else kind, *operands(graph, made, names))

    return write


writes(EWiseDiv)(binary("Div"))
writes(EWisePow)(binary("Pow"))
writes(Maximum)(binary("Max", "Or"))
writes(Minimum)(binary("Min", "And"))


@writes(AddScalar, MulScalar, PowerScalar)
def with_scalar(graph: Graph, made: Made, x: str) -> str:
    kind = {"AddScalar": "Add", "MulScalar": "Mul", "DivScalar": "Div", "PowerScalar": "Pow"}[type(made.op).__name__]
    half = made.dtype == np.float16 and kind in ("Mul", "Div")  # the number may be infinite in float16
    dtype = np.dtype("float32") if half else made.dtype
    y = graph.node(kind, *operands(graph, made, (x,), dtype), graph.number(made.op.scalar, dtype))
    return graph.node("Cast", y, to=onnx_dtype(made.dtype)) if half else y


@writes(Cast)
def cast(graph: Graph, made: Made, x: str) -> str:
    return graph.node("Cast", x, to=onnx_dtype(made.dtype))


@writes(Clip, HardTanh)
def clip(graph: Graph, made: Made, x: str) -> str:
    bounds = (None if end is None else graph.constant(end, made.dtype) for end in (made.op.low, made.op.high))
    return graph.node("Clip", *operands(graph, made, (x,)), *bounds)


# ---- functions of one argument ---------------------------------------------------------------------------------------


def unary(kind: str) -> Any:
    """A writer of an operator with one operand, of the dtype of the result."""

    def write(graph: Graph, made: Made, x: str) -> str:
        return graph.node(kind, *operands(graph, made, (x,)))

    return write


SAME_NAME: tuple[type[Op], ...] = (Abs, Acos, Acosh, Asin, Asinh, Atan, Atanh, Cos, Cosh, Erf, Exp, Log, Sigmoid, Sign)
for op_class in (*SAME_NAME, Sin, Sinh, Softplus, Sqrt, Tan, Tanh):
    writes(op_class)(unary(op_class.__name__))
writes(Negate)(unary("Neg"))
writes(ReLU)(unary("Relu"))
writes(Root)(unary("Sqrt"))


@writes(Expm1)
def expm1(graph: Graph, made: Made, x: str) -> str:
    """(e ** x + 1) · tanh(x / 2), exact for small x."""
    one, two = graph.constant(1, made.dtype), graph.constant(2, made.dtype)
    half = graph.node("Tanh", graph.node("Div", x, two))
    return graph.node("Mul", graph.node("Add", graph.node("Exp", x), one), half)


@writes(Log1p)
def log1p(graph: Graph, made: Made, x: str) -> str:
    """2 · atanh(x / (x + 2)) for small x, which is exact, and log(x + 1) for others."""
    one, two, small = (graph.constant(value, made.dtype) for value in (1, 2, 0.5))
    exact = graph.node("Mul", graph.node("Atanh", graph.node("Div", x, graph.node("Add", x, two))), two)
    is_small = graph.node("Less", graph.node("Abs", x), small)
    return graph.node("Where", is_small, exact, graph.node("Log", graph.node("Add", x, one)))


@writes(LogBase)
def log_base(graph: Graph, made: Made, x: str) -> str:
    return graph.node("Div", graph.node("Log", x), graph.constant(math.log(made.op.base), made.dtype))


@writes(ClampedLog)
def clamped_log(graph: Graph, made: Made, x: str) -> str:
    return graph.node("Clip", graph.node("Log", x), graph.constant(-100, made.dtype))


# ---- logic -----------------------------------------------------------------------------------------------------------


@writes(Where)
def where(graph: Graph, made: Made, condition: str, a: str, b: str) -> str:
    if a == b:
        return a
    a, b = (graph.cast(name, spec, made.dtype) for name, spec in zip((a, b), made.inputs[1:], strict=True))
    return graph.node("Where", condition, a, b)


COMPARISONS = {"equal": "Equal", "not_equal": "Equal", "less": "Less", "less_equal": "LessOrEqual"}
COMPARISONS |= {"greater": "Greater", "greater_equal": "GreaterOrEqual"}
LOGIC = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}


@writes(Compare)
def compare(graph: Graph, made: Made, a: str, b: str) -> str:
    name = made.op.name
    if name in LOGIC:
        return graph.node(LOGIC[name], *operands(graph, made, (a, b), bool))
    dtype = np.result_type(*(spec.dtype for spec in made.inputs))
    if dtype.kind == "b" and name not in ("equal", "not_equal"):
        dtype = np.dtype("int32")  # bools have no order in ONNX
    y = graph.node(COMPARISONS[name], *operands(graph, made, (a, b), dtype))
    return graph.node("Not", y) if name == "not_equal" else y


@writes(Predicate)
def predicate(graph: Graph, made: Made, x: str) -> str:
    name, (spec,) = made.op.name, made.inputs
    if name == "logical_not":
        return graph.node("Not", graph.cast(x, spec, np.dtype(bool)))
    if spec.dtype.kind != "f" or spec.dtype.itemsize == 2:  # IsInf has no others in old opsets
        x = graph.cast(x, spec, np.dtype("float32"))
    is_nan, is_inf = graph.node("IsNaN", x), graph.node("IsInf", x)
    if name == "isfinite":
        return graph.node("Not", graph.node("Or", is_nan, is_inf))
    return is_nan if name == "isnan" else is_inf


@writes(Bitwise)
def bitwise(graph: Graph, made: Made, *names: str) -> str:
    kind = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor", "invert": "Not"}[made.op.name]
    kind = kind if made.dtype == bool else f"Bitwise{kind}"  # from opset 18 on
    return graph.node(kind, *operands(graph, made, names))


# ---- rounding --------------------------------------------------------------------------------------------------------


@writes(Rounded)
def rounded(graph: Graph, made: Made, x: str) -> str:
    if made.op.name == "trunc":
        return graph.node("Mul", graph.node("Sign", x), graph.node("Floor", graph.node("Abs", x)))
    return graph.node({"floor": "Floor", "ceil": "Ceil", "rint": "Round"}[made.op.name], x)


@writes(Fmod)
def fmod(graph: Graph, made: Made, a: str, b: str) -> str:
    return graph.node("Mod", *operands(graph, made, (a, b)), fmod=1)


@writes(Remainder)
def remainder(graph: Graph, made: Made, a: str, b: str) -> str:
    a, b = operands(graph, made, (a, b))
    return _remainder(graph, a, b, made.dtype)


def _remainder(graph: Graph, a: str, b: str, dtype: Any) -> str:
    """Mod has the sign of the divisor for integers only."""
    if dtype.kind != "f":
        return graph.node("Mod", a, b)
    zero, rest = graph.constant(0, dtype), graph.node("Mod", a, b, fmod=1)
    differ = graph.node("Xor", graph.node("Less", rest, zero), graph.node("Less", b, zero))
    is_zero = graph.node("Equal", rest, zero)
    moved = graph.node("And", graph.node("Not", is_zero), differ)
    return graph.node("Where", moved, graph.node("Add", rest, b), rest)


@writes(FloorDivide)
def floor_divide(graph: Graph, made: Made, a: str, b: str) -> str:
    """The quotient of what the remainder leaves, which is whole but for rounding."""
    a, b = operands(graph, made, (a, b))
    whole = graph.node("Div", graph.node("Sub", a, _remainder(graph, a, b, made.dtype)), b)
    return graph.node("Round", whole) if made.dtype.kind == "f" else whole
