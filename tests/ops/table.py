"""The table of ops: one row for each op and setting, with the equivalent torch function.

`run` computes a row with either library by the same code: results, first and second derivatives. `each_row` runs
a test on every row: one case per op, one subtest per row.
"""

from __future__ import annotations

import inspect
import operator
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from torch.nn.functional import pad as torch_pad

from needle import Tensor, TensorTuple, ops
from needle.backend import cpu, to_host
from needle.kernels import Window
from needle.ops.conv import Correlate, RectifiedCorrelate
from needle.ops.fourier import Fourier
from needle.ops.linear import Linear, RectifiedLinear
from needle.ops.norm import standardized
from needle.ops.operand import floating
from tests.standin.device import STANDIN

# ---- rows ------------------------------------------------------------------------------------------------------------


def anywhere(draws, shape):
    """Normal draws."""
    return draws.normal(size=shape)


def positive(draws, shape):
    """Uniform draws from [0.5, 2)."""
    return draws.uniform(0.5, 2, shape)


def few(draws, shape):
    """Draws from -1, 0 and 1: ties, zeros and kinks."""
    return draws.choice([-1.0, 0.0, 1.0], shape)


def few_positive(draws, shape):
    """Draws from 0, 1 and 2: zeros, but nothing negative."""
    return draws.choice([0.0, 1.0, 2.0], shape)


@dataclass(frozen=True, eq=False)
class Row:
    """An op in one setting, and its oracle in torch."""

    op: str  # a name in needle.ops, or the name of a method in needle.ops.methods
    setting: str
    apply: Callable[..., Any]
    oracle: Callable[..., Any]
    inputs: tuple[Any, ...]  # a shape: the input is drawn; a host array: the input is this constant
    draw: Callable[..., Any] = anywhere
    constant: bool = False  # whether the result is a constant of the graph
    dtype: str | None = None  # of the result, if it differs from the dtype of the inputs
    order: int = 2  # the highest derivative to compare; torch's second derivatives are NaN at some singular points

    def __str__(self) -> str:
        return f"{self.op}-{self.setting}".replace(" ", "")

    def values(self) -> list[np.ndarray]:
        """The inputs on the host. Draws are float64, rounded to multiples of 1/64: exact in float16."""
        draws = self.stream()
        return [
            x if isinstance(x, np.ndarray) else np.asarray(np.round(self.draw(draws, x) * 64) / 64) for x in self.inputs
        ]

    def is_drawn(self) -> list[bool]:
        """For each input, whether it is drawn and therefore differentiated."""
        return [not isinstance(x, np.ndarray) for x in self.inputs]

    def stream(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(str(self).encode()))


ROWS: list[Row] = []


def row(op: str, setting: Any, apply: Any, oracle: Any, *inputs: Any, **options: Any) -> None:
    """Add a row. Lambdas in the loops below bind their loop variables as default arguments."""
    ROWS.append(Row(op, str(setting), apply, oracle, inputs, **options))


def each_row(rows: Iterable[Row]) -> Callable[[Callable[..., None]], Any]:
    """Run a test of a `row` on each of these rows: one case per op, with a subtest for each of its rows.

    The test names no fixture that keeps state from one row to the next.
    """
    by_op: dict[str, list[Row]] = {}
    for row in rows:
        by_op.setdefault(row.op, []).append(row)

    def decorate(test: Callable[..., None]) -> Any:
        @wraps(test)
        def run(op: str, subtests: pytest.Subtests, **fixtures: Any) -> None:
            for row in by_op[op]:
                with subtests.test(str(row)):
                    test(row, **fixtures)

        names = ["op", "subtests", *(name for name in inspect.signature(test).parameters if name != "row")]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        run.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        return pytest.mark.parametrize("op", by_op)(run)

    return decorate


# ---- running a row ---------------------------------------------------------------------------------------------------

Results = dict[str, list[Any]]


def run(row: Row, function: Any, inputs: Any, leaves: Any, direction: Any, gradients: Any) -> Results:
    """The results f(x); the gradients of s(x, v) = ⟨v, f(x)⟩ in x; the gradients of ⟨u, ∂s/∂x⟩ in x and v.

    `direction(shape, leaf)` makes the u (constants) and the v (leaves); `gradients(value, leaves)` differentiates.
    """
    result = function(*inputs)
    outputs = list(result) if isinstance(result, (tuple, list, TensorTuple)) else [result]
    if not leaves:
        return {"result": outputs}
    weights = [direction(tuple(y.shape), True) for y in outputs]
    first = gradients(sum((y * v).sum() for y, v in zip(outputs, weights, strict=True)), leaves)
    if row.order == 1:
        return {"result": outputs, "gradient": first}
    directions = [direction(tuple(x.shape), False) for x in leaves]
    slope = sum((grad * u).sum() for grad, u in zip(first, directions, strict=True))
    return {"result": outputs, "gradient": first, "second": gradients(slope, [*leaves, *weights])}


def tensors(row: Row, arrays: list[Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs of a row as tensors that share the memory of raw arrays, and the leaves among them."""
    inputs = [
        Tensor.make_const(array, requires_grad=drawn and not row.constant)
        for array, drawn in zip(arrays, row.is_drawn(), strict=True)
    ]
    return inputs, [x for x in inputs if x.requires_grad]


def another_than(device: Any) -> Any:
    """A device of the suite other than `device`."""
    return STANDIN if device == cpu() else cpu()


def run_needle(row: Row, arrays: list[Any], device: Any, dtype: str) -> Results:
    """The row on raw arrays of a device."""
    draws = row.stream()

    def direction(shape, leaf):
        return Tensor(draws.normal(size=shape), device=device, dtype=dtype, requires_grad=leaf)

    def gradients(value, leaves):
        for x in leaves:
            x.grad = None
        if value.requires_grad:
            value.backward()
        zeros = [Tensor.make_const(device.xp.zeros_like(x.array)) for x in leaves]
        return [zero if x.grad is None else x.grad for x, zero in zip(leaves, zeros, strict=True)]

    return run(row, row.apply, *tensors(row, arrays), direction, gradients)


def run_torch(row: Row, values: list[np.ndarray]) -> Results:
    """The row in torch, on host arrays."""
    draws = row.stream()
    inputs = [
        torch.tensor(value, requires_grad=drawn and not row.constant)
        for value, drawn in zip(values, row.is_drawn(), strict=True)
    ]

    def direction(shape, leaf):
        return torch.tensor(draws.normal(size=shape), requires_grad=leaf)

    def gradients(value, leaves):
        if not value.requires_grad:
            return [torch.zeros_like(x) for x in leaves]
        return torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True, materialize_grads=True)

    return run(row, row.oracle, inputs, [x for x in inputs if x.requires_grad], direction, gradients)


@cache
def torch_results(row: Row) -> Results:
    """The row in torch on its own values, computed once for all tests."""
    return run_torch(row, row.values())


def on_host(x: Any) -> np.ndarray:
    """The values of a tensor of either library."""
    return x.numpy(force=True) if isinstance(x, torch.Tensor) else x.numpy()


def check_close(name: Any, actual: Results, expected: Results, tolerance: float) -> None:
    """Require the same shapes, and values that differ by at most `tolerance` of the largest in their array."""
    assert actual.keys() == expected.keys()
    for part, references in expected.items():
        count = len(actual[part])
        assert count == len(references), f"{name}: {count} arrays in {part}, not {len(references)}"
        for i, (a, b) in enumerate(zip(actual[part], references, strict=True)):
            a, b = on_host(a), on_host(b)
            assert a.shape == b.shape, f"{name}: {part} {i} has shape {a.shape}, not {b.shape}"
            assert a.dtype.kind == b.dtype.kind, f"{name}: {part} {i} has dtype {a.dtype}, not {b.dtype}"
            bound = tolerance * np.abs(b[np.isfinite(b)]).max(initial=1)
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=bound, err_msg=f"{name}: {part} {i}")


# ---- memory orders ---------------------------------------------------------------------------------------------------

ORDERS = ["column-major", "batch-last", "flipped", "strided", "repeated"]


def laid_out(device: Any, value: np.ndarray, order: str, dtype: Any = None) -> Any:
    """The elements of `value` as a raw array in a memory order; "repeated" has `value[0]` in every row, at stride 0."""
    if value.ndim == 0 or order == "row-major":
        return device.array(value, dtype)
    if order == "column-major":
        return device.array(value.T, dtype).T
    if order == "batch-last":
        return device.array(np.moveaxis(value, 0, -1), dtype).transpose((value.ndim - 1, *range(value.ndim - 1)))
    if order == "flipped":
        return device.array(np.flip(value), dtype)[(slice(None, None, -1),) * value.ndim]
    if order == "strided":
        return device.array(np.repeat(value, 2, axis=-1), dtype)[..., ::2]
    return device.xp.broadcast_to(device.array(value[:1], dtype), value.shape)


def inputs_of(row: Row, device: Any, order: str = "row-major", dtype: str = "float64") -> list[Any]:
    """The inputs of a row as raw arrays. Constants (indices, masks) stay row-major and keep their dtype."""
    return [
        laid_out(device, value, order, dtype) if drawn else device.array(value)
        for value, drawn in zip(row.values(), row.is_drawn(), strict=True)
    ]


def check_row(row: Row, device: Any, order: str = "row-major") -> None:
    """Compare results, first and second derivatives of a row in float64 with torch's."""
    arrays = inputs_of(row, device, order)
    values = [np.array(to_host(array)) for array in arrays]
    expected = run_torch(row, values) if order == "repeated" else torch_results(row)
    check_close(f"{row}, {order}", run_needle(row, arrays, device, "float64"), expected, 1e-11)
    for array, value in zip(arrays, values, strict=True):
        np.testing.assert_array_equal(to_host(array), value, err_msg=f"{row}, {order}: an input was written to")


# ---- arithmetic ------------------------------------------------------------------------------------------------------

BROADCASTS = [
    ((2, 3), (2, 3)),
    ((1, 3), (3,)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((2, 1), (1, 3)),
    ((4, 1, 3), (2, 1)),
    ((1,), (1, 1)),
    ((0, 3), (1, 3)),
    ((1, 3), (0, 1)),
    ((), ()),
]

for op, oracle, draw in (
    ("add", torch.add, anywhere),
    ("subtract", torch.sub, anywhere),
    ("multiply", torch.mul, anywhere),
    ("divide", torch.div, positive),
    ("power", torch.pow, positive),
    ("maximum", torch.maximum, anywhere),
    ("minimum", torch.minimum, anywhere),
):
    function = getattr(ops, op)
    for pair in BROADCASTS:
        row(op, pair, function, oracle, *pair, draw=draw)
    row(op, "x with itself", lambda x, f=function: f(x, x), lambda x, f=oracle: f(x, x), (2, 3), draw=draw)
    row(op, "a number at the right", lambda x, f=function: f(x, 2), lambda x, f=oracle: f(x, 0 * x + 2), (3,),
        draw=draw)  # fmt: skip
    row(op, "a number at the left", lambda x, f=function: f(2, x), lambda x, f=oracle: f(0 * x + 2, x), (3,),
        draw=draw)  # fmt: skip

for op in ("maximum", "minimum"):
    row(op, "ties", getattr(ops, op), getattr(torch, op), (5, 6), (5, 6), draw=few)
    row(op, "ties with broadcasting", getattr(ops, op), getattr(torch, op), (5, 6), (6,), draw=few)

for pair in (((6, 7), (6, 7)), ((6, 7), (7,)), ((6, 1), (7,))):
    row("power", f"zeros {pair}", ops.power, torch.pow, *pair, draw=few_positive, order=1)
WHOLE = np.array([0.0, 1.0, 2.0, 3.0])
for exponents, order in ((WHOLE, 1), (WHOLE[1:], 2)):
    row("power", f"zeros, exponents {exponents}", lambda x, n: ops.power(x, n.astype(x.dtype)), torch.pow,
        (9, exponents.size), exponents, draw=few, order=order)  # fmt: skip
row("power", "constant base with zero", lambda x, n: ops.power(n.astype(x.dtype), x), lambda x, n: torch.pow(n, x),
    (9, 4), WHOLE, draw=few_positive, order=1)  # fmt: skip

for scalar in (1.5, -2, 0, np.float64(0.5), np.array([3.0])):
    number = float(np.asarray(scalar).item())
    row("add_scalar", repr(scalar), lambda x, s=scalar: ops.add_scalar(x, s), lambda x, s=number: x + s, (2, 3))
    row("mul_scalar", repr(scalar), lambda x, s=scalar: ops.mul_scalar(x, s), lambda x, s=number: x * s, (2, 3))
    if number:
        row("divide_scalar", repr(scalar), lambda x, s=scalar: ops.divide_scalar(x, s), lambda x, s=number: x / s,
            (2, 3))  # fmt: skip

for scalar, draw in (
    (0, anywhere), (0, few), (0.0, few), (1, anywhere), (1, few), (2, anywhere), (2, few), (3, few), (2.0, few),
    (-1, positive), (-2, positive), (0.5, positive), (1.5, positive), (np.float64(2), anywhere), (np.int64(2), few),
):  # fmt: skip
    row("power_scalar", f"{scalar!r} {draw.__name__}", lambda x, s=scalar: ops.power_scalar(x, s),
        lambda x, s=scalar: x ** s.item() if isinstance(s, np.generic) else x**s, (2, 5), draw=draw)  # fmt: skip

row("negate", "", ops.negate, torch.neg, (2, 3))
row("negate", "()", ops.negate, torch.neg, ())
for dtype, oracle in (
    ("float32", torch.float32), ("float64", torch.float64), (np.float64, torch.float64),
    (np.dtype("float32"), torch.float32),
):  # fmt: skip
    row("astype", repr(dtype), lambda x, d=dtype: x.astype(d), lambda x, d=oracle: x.to(d), (2, 3),
        dtype=np.dtype(dtype).name)  # fmt: skip
row("astype", "int64", lambda x: x.astype("int64"), lambda x: x.long(), (2, 3), constant=True)

# ---- elementwise functions -------------------------------------------------------------------------------------------

for op, draw in (
    ("exp", anywhere), ("log", positive), ("sqrt", positive), ("tanh", anywhere), ("sigmoid", anywhere),
    ("relu", anywhere), ("relu", few), ("abs", anywhere), ("abs", few), ("erf", anywhere),
):  # fmt: skip
    for shape in ((2, 3), (), (0, 2)):
        row(op, f"{shape} {draw.__name__}", getattr(ops, op), getattr(torch, op), shape, draw=draw)
row("tanh", "large", lambda x: ops.tanh(x * 16), lambda x: torch.tanh(x * 16), (9,))
row("sigmoid", "large", lambda x: ops.sigmoid(x * 16), lambda x: torch.sigmoid(x * 16), (9,))

row("erf", "large", lambda x: ops.erf(x * 16), lambda x: torch.erf(x * 16), (9,))
row("expm1", "", ops.expm1, torch.expm1, (3, 4))
row("softplus", "", ops.softplus, lambda x: torch.nn.functional.softplus(x, threshold=1e9), (3, 4))
row("hardtanh", "", ops.hardtanh, torch.nn.functional.hardtanh, (3, 4))
row("clamped_log", "", ops.clamped_log, lambda x: x.log().clamp(min=-100), (3, 4), draw=positive)

row("sign", "", ops.sign, torch.sign, (2, 3), constant=True)
row("sign", "few", ops.sign, torch.sign, (2, 3), draw=few, constant=True)
for low, high in ((-0.5, 0.5), (None, 0.25), (-0.25, None), (0, 0), (np.float64(-0.5), 1)):
    row("clip", (low, high), lambda x, a=low, b=high: ops.clip(x, a, b), lambda x, a=low, b=high: x.clamp(a, b), (3, 4))
for low, high in ((-1, 0), (0, None), (None, 1)):
    row("clip", ("ends", low, high), lambda x, a=low, b=high: ops.clip(x, a, b),
        lambda x, a=low, b=high: x.clamp(a, b), (3, 4), draw=few)  # fmt: skip

# ---- choices ---------------------------------------------------------------------------------------------------------

MASK = np.array([[True, False, True], [False, False, True]])

for shapes in (((2, 3), (2, 3)), ((3,), (2, 1)), ((), (2, 3)), ((4, 2, 3), (1,))):
    row("where", shapes, ops.where, torch.where, MASK, *shapes)
row("where", "mask broadcasts", ops.where, torch.where, MASK[:, :1], (2, 3), (3,))
row("where", "mask ()", ops.where, torch.where, np.array(True), (2, 3), (2, 3))
row("where", "number at the right", lambda c, a: ops.where(c, a, 2), lambda c, a: torch.where(c, a, 2.0), MASK, (2, 3))
row("where", "number at the left", lambda c, b: ops.where(c, 2, b), lambda c, b: torch.where(c, 2.0, b), MASK, (3,))
row("where", "x twice", lambda c, x: ops.where(c, x, -x), lambda c, x: torch.where(c, x, -x), MASK, (2, 3))
row("where", "a comparison", lambda a, b: ops.where(a > b, a, b), lambda a, b: torch.where(a > b, a, b), (2, 3), (3,))

for op, oracle in (
    ("equal", torch.eq), ("not_equal", torch.ne), ("less", torch.lt), ("less_equal", torch.le), ("greater", torch.gt),
    ("greater_equal", torch.ge),
):  # fmt: skip
    function = getattr(ops, op)
    for pair in (((4, 5), (4, 5)), ((4, 1), (5,)), ((), ())):
        row(op, pair, function, oracle, *pair, draw=few, constant=True)
    row(op, "number at the right", lambda x, f=function: f(x, 1), lambda x, f=oracle: f(x, 1), (4, 5), draw=few,
        constant=True)  # fmt: skip
    row(op, "number at the left", lambda x, f=function: f(0, x), lambda x, f=oracle: f(0 * x, x), (4, 5), draw=few,
        constant=True)  # fmt: skip

# ---- reductions ------------------------------------------------------------------------------------------------------

AXES = [0, 1, -1, np.int64(1), (0, 2), (-1, 0), [1, 2], (0, 1, 2), (1,), None]


def every_axis(axes, ndim):
    """The axes as a tuple of integers, None for all."""
    if axes is None:
        return tuple(range(ndim))
    return tuple(int(axis) for axis in axes) if isinstance(axes, (tuple, list)) else (int(axes),)


for op, oracle in (
    ("summation", torch.sum), ("mean", torch.mean), ("max", torch.amax), ("min", torch.amin),
    ("logsumexp", torch.logsumexp),
):  # fmt: skip
    function = getattr(ops, op)
    for axes in AXES:
        for keepdims in (False, True):
            row(op, f"{axes!r} {'keepdims' * keepdims}", lambda x, f=function, a=axes, k=keepdims: f(x, a, k),
                lambda x, f=oracle, a=axes, k=keepdims: f(x, every_axis(a, x.ndim), k), (2, 3, 4))  # fmt: skip
    row(op, "no axis", lambda x, f=function: f(x, ()), lambda x: x * 1, (2, 3))
    row(op, "shape ()", function, lambda x: x * 1, ())
    row(op, "one element", lambda x, f=function: f(x, 1), lambda x, f=oracle: f(x, 1), (3, 1, 2))
    row(op, "defaults", function, lambda x, f=oracle: f(x, (0, 1)), (2, 3))
    row(op, "keywords", lambda x, f=function: f(x, axes=1, keepdims=True), lambda x, f=oracle: f(x, 1, True), (2, 3))
    row(op, "result without elements", lambda x, f=function: f(x, 1), lambda x, f=oracle: f(x, 1), (0, 3))
row("summation", "without elements", lambda x: ops.summation(x, 0), lambda x: x.sum(0), (0, 3))
for axes in (0, (0, 1), None):
    row("max", f"ties {axes!r}", lambda x, a=axes: ops.max(x, a), lambda x, a=axes: x.amax(every_axis(a, x.ndim)),
        (4, 5), draw=few)  # fmt: skip
    row("min", f"ties {axes!r}", lambda x, a=axes: ops.min(x, a), lambda x, a=axes: x.amin(every_axis(a, x.ndim)),
        (4, 5), draw=few)  # fmt: skip
for op, oracle in (
    ("summation", torch.sum), ("mean", torch.mean), ("max", torch.amax), ("min", torch.amin),
    ("logsumexp", torch.logsumexp), ("softmax", torch.softmax), ("logsoftmax", torch.log_softmax),
    ("flip", lambda x, axis: x.flip((axis,))),
):  # fmt: skip
    function = getattr(ops, op)
    for axis in (0, -1):
        row(op, f"() along {axis}", lambda x, f=function, a=axis: f(x, a), lambda x, f=oracle, a=axis: f(x, a), ())
    if op in ("summation", "softmax", "logsoftmax", "flip"):
        for shape in ((0,), (2, 0), (0, 3)):
            row(op, f"{shape} along the last", lambda x, f=function: f(x, -1), lambda x, f=oracle: f(x, -1), shape,
                order=1)  # fmt: skip
for axis in (None, 0, -1):
    row("argmax", f"() along {axis}", lambda x, a=axis: ops.argmax(x, a), lambda x, a=axis: x.argmax(a), (),
        constant=True)  # fmt: skip
row("clip", "bounds the wrong way round", lambda x: ops.clip(x, 0.5, -0.5), lambda x: x.clamp(0.5, -0.5), (3, 4))
row("logsumexp", "large", lambda x: ops.logsumexp(x * 1024, 1), lambda x: torch.logsumexp(x * 1024, 1), (3, 4))

for axis in (0, 1, -1):
    row("logsoftmax", axis, lambda x, a=axis: ops.logsoftmax(x, a), lambda x, a=axis: x.log_softmax(a), (3, 4, 2))
    row("softmax", axis, lambda x, a=axis: ops.softmax(x, a), lambda x, a=axis: x.softmax(a), (3, 4, 2))
row("softmax", "default", ops.softmax, lambda x: x.softmax(-1), (3, 4))
row("softmax", "large", lambda x: ops.softmax(x * 1024), lambda x: (x * 1024).softmax(-1), (3, 4))
row("logsoftmax", "default", ops.logsoftmax, lambda x: x.log_softmax(-1), (3, 4))
row("logsoftmax", "large", lambda x: ops.logsoftmax(x * 1024), lambda x: (x * 1024).log_softmax(-1), (3, 4))

for axis in (0, 1, -1, None):
    for keepdims in (False, True):
        for draw in (anywhere, few):
            row("argmax", f"{axis} {keepdims} {draw.__name__}", lambda x, a=axis, k=keepdims: ops.argmax(x, a, k),
                lambda x, a=axis, k=keepdims: x.argmax(a, k), (3, 4, 2), draw=draw, constant=True)  # fmt: skip
row("argmax", "()", ops.argmax, torch.argmax, (), constant=True)

# ---- shapes ----------------------------------------------------------------------------------------------------------

for shape in ((6, 4), (-1,), (2, -1), (4, 3, 2), (1, 2, 12, 1), -1, 24, [3, -1, 2], (np.int64(3), 8)):
    new = (shape,) if isinstance(shape, int) else tuple(map(int, shape))
    row("reshape", repr(shape), lambda x, s=shape: ops.reshape(x, s), lambda x, s=new: x.reshape(s), (2, 3, 4))
row("reshape", "to ()", lambda x: ops.reshape(x, ()), lambda x: x.reshape(()), (1, 1))
row("reshape", "from ()", lambda x: ops.reshape(x, (1, -1)), lambda x: x.reshape(1, -1), ())
row("reshape", "without elements", lambda x: ops.reshape(x, (3, -1)), lambda x: x.reshape(3, -1), (0, 3))
for axes in ((0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2), (-1, 0, -2, 1), [1, 2, 3, 0]):
    row("permute", axes, lambda x, a=axes: ops.permute(x, a), lambda x, a=axes: x.permute(a), (2, 3, 4, 5))
row("transpose", "default", ops.transpose, lambda x: x.transpose(-1, -2), (2, 3, 4))
for axes in ((0, 1), (-1, 0), (2, 1), [0, 2]):
    row("transpose", axes, lambda x, a=axes: ops.transpose(x, a), lambda x, a=axes: x.transpose(*a), (2, 3, 4))
for old, shape in (((3,), (2, 3)), ((1, 3), (4, 3)), ((), (2, 3)), ((2, 1), (5, 2, 3)), ((2, 3), (2, 3)), ((1,), (0,))):
    row("broadcast_to", (old, shape), lambda x, s=shape: ops.broadcast_to(x, s), lambda x, s=shape: x.expand(s), old)
    row("sum_to", (shape, old), lambda x, s=old: ops.sum_to(x, s), lambda x, s=old: x.sum_to_size(s), shape)
for axes in (0, -1, (0, 2), (1, -1), None):
    row("flip", axes, lambda x, a=axes: ops.flip(x, a), lambda x, a=axes: x.flip(every_axis(a, x.ndim)), (2, 3, 4))


def spread(x, axes, zeros):
    """x with zeros after every element along some axes."""
    for axis in axes:
        x = torch.stack([x, *[torch.zeros_like(x)] * zeros], axis + 1).flatten(axis, axis + 1)
    return x


def every(x, axes, step):
    """Every step-th element of x along some axes."""
    return x[tuple(slice(None, None, step if i in axes else None) for i in range(x.ndim))]


for axes, own in ((0, (0,)), ((0, 1), (0, 1)), ((1, 2), (1, 2)), ((-1,), (2,)), ((1, 5), (1,)), ((), ())):
    for zeros in (0, 1, 2):
        row("dilate", (axes, zeros), lambda x, a=axes, z=zeros: ops.dilate(x, a, z),
            lambda x, a=own, z=zeros: spread(x, a, z), (2, 3, 2))  # fmt: skip
        row("undilate", (axes, zeros), lambda x, a=axes, z=zeros: ops.undilate(x, a, z),
            lambda x, a=own, z=zeros: every(x, a, z + 1), (4, 5, 6))  # fmt: skip

for pairs in (
    ((0, 0), (0, 0)), ((1, 2), (0, 3)), ((-1, 0), (0, -2)), ((2, -1), (-1, 2)), ((-2, 1), (1, -3)), ((-1, -2), (0, 0)),
    ((0, -3), (1, 1)), ([1, 1], (np.int64(2), 0)), (1, -1),
):  # fmt: skip
    flat = [int(n) for pair in reversed(pairs) for n in ((pair, pair) if isinstance(pair, int) else pair)]
    for value in (0, 1.5):
        row("pad", (pairs, value), lambda x, p=pairs, v=value: ops.pad(x, p, v),
            lambda x, p=flat, v=value: torch_pad(x, p, value=v), (3, 4))  # fmt: skip
row("pad", "()", lambda x: ops.pad(x, ()), lambda x: x * 1, ())

for axis in (0, 1, -1):
    row("stack", axis, lambda *x, a=axis: ops.stack(x, a), lambda *x, a=axis: torch.stack(x, a), (2, 3), (2, 3), (2, 3))
    row("split", axis, lambda x, a=axis: ops.split(x, a), lambda x, a=axis: x.unbind(a), (2, 3, 4))
    row("concatenate", axis, lambda *x, a=axis: ops.concatenate(x, a), lambda *x, a=axis: torch.cat(x, a), (2, 3),
        (2, 3))  # fmt: skip
row("stack", "one of ()", lambda x: ops.stack([x]), lambda x: x[None], ())
row("stack", "a TensorTuple", lambda x: ops.stack(ops.split(x, 1)), lambda x: torch.stack(x.unbind(1)), (2, 3))
row("stack", "x twice", lambda x: ops.stack([x, x], 1), lambda x: torch.stack([x, x], 1), (2, 3))
row("split", "one part used", lambda x: ops.split(x, 1)[-1], lambda x: x.unbind(1)[-1], (2, 3))
row("concatenate", "sizes differ", lambda *x: ops.concatenate(x, 1), lambda *x: torch.cat(x, 1), (2, 3), (2, 0), (2, 1))
row("concatenate", "(0,) beside others", lambda *x: ops.concatenate(x), lambda *x: torch.cat(x), (0,), (2, 3), (0,),
    (1, 3))  # fmt: skip
row("concatenate", "(0,) alone", lambda *x: ops.concatenate(x), lambda *x: torch.cat(x), (0,), (0,))
row("concatenate", "one", lambda x: ops.concatenate([x]), lambda x: x * 1, (2, 3))
row("concatenate", "x twice", lambda x: ops.concatenate([x, x]), lambda x: torch.cat([x, x]), (2, 3))

# ---- indices ---------------------------------------------------------------------------------------------------------

SQUARE = np.array([[0, 2], [3, 0]])
ROW_MASK = np.array([True, False, True, True])
WHOLE_MASK = np.arange(60).reshape(4, 3, 5) % 3 == 0

for name, index in {
    "integer": 1,
    "negative integer": -1,
    "integers": (1, -2),
    "one element": (1, 2, 3),
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "empty slice": slice(2, 2),
    "slices": (slice(1, None), slice(None, -1), slice(0, 5, 3)),
    "None": None,
    "None between": (slice(None), None, 1),
    "Ellipsis": ...,
    "Ellipsis between": (1, ..., slice(0, 2)),
    "Ellipsis of no axis": (1, 0, ..., 2),
    "list": [0, 2, 3],
    "duplicates": [1, 1, 1, 0],
    "negative list": [-1, -4],
    "array": SQUARE,
    "lists": ([0, 0, 3], [1, 1, 2]),
    "lists that broadcast": (np.array([[0], [3]]), np.array([0, 2, 2])),
    "list and slice": ([2, 2], slice(0, 2)),
    "slice and list": (slice(None), [2, 2, 0]),
    "lists around a slice": ([0, 0], slice(None), [4, 4]),
    "list and None": ([2, 2], None),
    "Ellipsis and list": (..., [4, 4, 1]),
    "row mask": ROW_MASK,
    "whole mask": WHOLE_MASK,
    "mask in the middle": (slice(None), np.array([True, False, True])),
    "mask and list": (ROW_MASK, [0, 2, 2]),
    "no element of a mask": np.zeros(4, bool),
}.items():
    row("getitem", name, lambda x, i=index: ops.getitem(x, i), lambda x, i=index: x[i], (4, 3, 5))
for name, index, oracle in (
    ("negative step", slice(None, None, -1), lambda x: x.flip(0)),
    ("negative steps", (slice(3, 0, -2), ..., slice(None, None, -1)), lambda x: x.flip(2)[[3, 1]]),
    ("integer and list around a slice", (0, slice(None), [1, 2]), lambda x: x[[0], :, [1, 2]]),
    ("np.int64", np.int64(2), lambda x: x[2]),
    ("int8 array", np.array([1, 1], "int8"), lambda x: x[[1, 1]]),
    ("True", True, lambda x: x[None]),
    ("list of bools", [True, False, False, True], lambda x: x[[0, 3]]),
    ("no element", (), lambda x: x * 1),
):
    row("getitem", name, lambda x, i=index: ops.getitem(x, i), oracle, (4, 3, 5))
row("getitem", "tensor", lambda x, i: ops.getitem(x, i), lambda x, i: x[i], (4, 3), SQUARE)
row("getitem", "tensors", lambda x, i, j: x[i, j], lambda x, i, j: x[i, j], (4, 3), SQUARE, np.array([2, 2]))
row("getitem", "slice and tensor", lambda x, i: x[1:, i], lambda x, i: x[1:, i], (4, 5), SQUARE)
row("getitem", "mask tensor", lambda x, m: x[m], lambda x, m: x[m], (4, 3), ROW_MASK)
row("getitem", "tensor ()", lambda x, i: x[i], lambda x, i: x[i], (4, 3), np.array(2))
row("getitem", "x ()", lambda x: x[()], lambda x: x[()], ())
row("getitem", "a comparison", lambda x: x[x > 0], lambda x: x[x > 0], (4, 3))
row("getitem", "twice", lambda x: x[1:][[0, 0, 1]] * x[0], lambda x: x[1:][[0, 0, 1]] * x[0], (4, 3))

for dtype in ("int64", "uint8", "float32"):
    row("one_hot", dtype, lambda i: ops.one_hot(5, i), lambda i: one_hot(i.long(), 5).float(), SQUARE.astype(dtype),
        constant=True)  # fmt: skip
row("one_hot", "to int64", lambda i: ops.one_hot(4, i, "int64"), lambda i: one_hot(i, 4), np.array(3), constant=True)

# ---- matrix products -------------------------------------------------------------------------------------------------

for left, right in (
    ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((5, 1), (1, 4)), ((1, 3), (3, 1)),
    ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((0, 2, 3), (3, 4)),
):  # fmt: skip
    row("matmul", (left, right), ops.matmul, torch.matmul, left, right)
    row("__matmul__", (left, right), operator.matmul, torch.matmul, left, right)
for shape in ((3, 3), (2, 1, 4, 4), (1, 1)):
    row("det", shape, lambda x, y: ops.det(x + y), lambda x, y: torch.det(x + y), shape,
        4 * np.eye(shape[-1], dtype="int64"))  # fmt: skip
row("det", "without elements", ops.det, torch.det, (2, 0, 0), order=1)
row("det", "singular", lambda x, y: ops.det(ops.stack([x, x * 2, y])),
    lambda x, y: torch.linalg.cross(x, 2 * x, dim=0) @ y, (3,), (3,))  # fmt: skip
row("matmul", "x @ x.T", lambda x: x @ x.transpose(), lambda x: x @ x.T, (3, 4))
row("matmul", "x.T @ y", lambda x, y: x.transpose() @ y, lambda x, y: x.T @ y, (3, 4), (3, 5))
row("matmul", "x @ y.T", lambda x, y: x @ y.transpose(), lambda x, y: x @ y.T, (3, 4), (5, 4))
row("matmul", "x.T @ y.T", lambda x, y: x.transpose() @ y.transpose(), lambda x, y: x.T @ y.T, (3, 4), (5, 3))
row("__rmatmul__", "array @ x", lambda x: MASK @ x, lambda x: torch.tensor(MASK * 1.0) @ x, (3, 4))

# ---- tuples ----------------------------------------------------------------------------------------------------------

row("make_tuple", "one", lambda x: ops.make_tuple(x), lambda x: (x * 1,), (2, 3))
row("make_tuple", "three", lambda *x: ops.make_tuple(*x), lambda *x: tuple(y * 1 for y in x), (2, 3), (4,), ())
row("make_tuple", "x twice", lambda x: ops.make_tuple(x, x), lambda x: (x * 1, x * 1), (2, 3))
row("make_tuple", "sum", lambda a, b: ops.make_tuple(a, b) + ops.make_tuple(b, b), lambda a, b: (a + b, b + b), (3,),
    (3,))  # fmt: skip
def torch_standardize(x, axes, weight=1.0, bias=0.0):
    variance, average = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - average) / torch.sqrt(variance + 1e-5) * weight + bias


for axes, affine in (((0, 2), (1, 3, 1)), ((1, 2), (3, 5)), (2, (5,)), ((0, 1, 2), ()), ((0, 2), (4, 3, 5))):
    row("standardize", f"{axes} with {affine}", lambda x, w, b, a=axes: ops.standardize(x, a, w, b)[0],
        lambda x, w, b, a=axes: torch_standardize(x, a, w, b), (4, 3, 5), affine, affine)  # fmt: skip
row("standardize", "alone", lambda x: ops.standardize(x, 1)[0], lambda x: torch_standardize(x, 1), (3, 5))
row("standardize", "weight alone", lambda x, w: ops.standardize(x, 0, w)[0],
    lambda x, w: torch_standardize(x, 0, w), (3, 5), (5,))  # fmt: skip
row("standardize", "and relu",
    lambda x, w, b: standardized(floating("standardize", x), (0, 2), w, b, 1e-5, None, True)[0],
    lambda x, w, b: torch_standardize(x, (0, 2), w, b).relu(), (4, 3, 5), (1, 3, 1), (1, 3, 1))  # fmt: skip
row("standardize", "bias alone", lambda x, b: ops.standardize(x, 0, None, b)[0],
    lambda x, b: torch_standardize(x, 0, 1.0, b), (3, 5), (5,))  # fmt: skip
row("to", "its own device", lambda x: ops.to(x, x.device), lambda x: x * 1, (2, 3))
row("to", "another and back", lambda x: ops.to(ops.to(x, another_than(x.device)), x.device), lambda x: x * 1, (2, 3))
row("fused_add_scalars", "", lambda x: ops.fused_add_scalars(x, 2.0, -1), lambda x: (x + 2, x - 1), (2, 3))
row("tuple_get_item", "of make_tuple", lambda a, b: ops.tuple_get_item(ops.make_tuple(a, b), 1), lambda a, b: b * 1,
    (2,), (3,))  # fmt: skip
row("tuple_get_item", "of split", lambda x: ops.tuple_get_item(ops.split(x), -1), lambda x: x[-1], (2, 3))
row("tuple_get_item", "two of split", lambda x: x[0] * ops.split(x)[1] + ops.split(x)[1], lambda x: x[0] * x[1] + x[1],
    (2, 3))  # fmt: skip
row("tuple_get_item", "parts of one split", lambda x: ops.make_tuple(*ops.split(x, 1).tuple()[1:]),
    lambda x: x.unbind(1)[1:], (2, 3))  # fmt: skip

# ---- convolution with a bias in two windows; tests/ops/test_conv.py has the others -----------------------------------

LINE, PLANE = Window((2,), ((1, 0),), (1,)), Window((1, 2), ((1, 1), (0, 0)), (2, 1), 2)
row("Correlate", "bias, 1-d", lambda x, w, b: Correlate(LINE)(x, w, b),
    lambda x, w, b: torch.conv1d(torch_pad(x, (1, 0)), w, b, 2), (2, 3, 6), (4, 3, 3), (4,))  # fmt: skip
row("Correlate", "bias, 2-d", lambda x, w, b: Correlate(PLANE)(x, w, b),
    lambda x, w, b: torch.conv2d(x, w, b, (1, 2), (1, 0), (2, 1), 2), (2, 4, 5, 6), (4, 2, 2, 3), (4,))  # fmt: skip
row("RectifiedCorrelate", "", lambda x, w, b: RectifiedCorrelate(PLANE)(x, w, b),
    lambda x, w, b: torch.conv2d(x, w, b, (1, 2), (1, 0), (2, 1), 2).relu(), (2, 4, 5, 6), (4, 2, 2, 3), (4,)
    )  # fmt: skip
row("Correlate", "the bias alone", lambda x, w, b: Correlate(LINE)(x.detach() * 0, w.detach(), b),
    lambda x, w, b: 0 * torch.conv1d(torch_pad(x, (1, 0)), w, None, 2).detach() + b[:, None], (2, 3, 6), (4, 3, 3), (4,)
    )  # fmt: skip

# ---- linear layers ---------------------------------------------------------------------------------------------------

row("Linear", "", lambda x, w, b: Linear()(x, w, b), lambda x, w, b: x @ w + b, (3, 4), (4, 5), (1, 5))
row("Linear", "rows of rows", lambda x, w, b: Linear()(x, w, b), lambda x, w, b: x @ w + b, (2, 3, 4), (4, 5), (5,))
row("Linear", "no bias", lambda x, w: Linear()(x, w), lambda x, w: x @ w, (3, 4), (4, 5))
row("Linear", "batch-last", lambda x, w, b: Linear()(ops.transpose(x), w, b), lambda x, w, b: x.T @ w + b,
    (4, 3), (4, 5), (5,))  # fmt: skip
row("RectifiedLinear", "", lambda x, w, b: RectifiedLinear()(x, w, b), lambda x, w, b: (x @ w + b).relu(),
    (3, 4), (4, 5), (5,))  # fmt: skip

# ---- Fourier transforms: pairs of numbers ----------------------------------------------------------------------------

for inverse, oracle in ((False, torch.fft.fft), (True, torch.fft.ifft)):
    for axis in (0, 1):
        row("Fourier", f"{axis} {inverse}", lambda x, a=axis, i=inverse: Fourier(a, i)(floating("Fourier", x)),
            lambda x, a=axis, f=oracle: torch.view_as_real(f(torch.view_as_complex(x.contiguous()), dim=a)),
            (3, 4, 2))  # fmt: skip

# ---- other forms -----------------------------------------------------------------------------------------------------

for axes in (None, 0, 2, (0, 2), -3, [1, 2]):
    dim = tuple(range(3)) if axes is None else tuple(axes) if isinstance(axes, list) else axes
    row("squeeze", axes, lambda x, a=axes: ops.squeeze(x, a), lambda x, d=dim: torch.squeeze(x, d), (1, 3, 1))
row("squeeze", "no axes", lambda x: ops.squeeze(x, 0), lambda x: torch.squeeze(x, 0), ())
for axis in (0, 1, -1, -3):
    row("unsqueeze", axis, lambda x, a=axis: ops.unsqueeze(x, a), lambda x, a=axis: torch.unsqueeze(x, a), (2, 3))
for ends in ((), (1,), (0, 1), (-2, -1), (1, 1)):
    row("flatten", ends, lambda x, e=ends: ops.flatten(x, *e), lambda x, e=ends: torch.flatten(x, *e), (2, 3, 4))
row("flatten", "no axes", ops.flatten, torch.flatten, ())
for old, shape in (((1, 3), (4, -1, 3)), ((2, 1), (-1, 3)), ((3, 1, 4), (2, -1, 5, -1)), ((), (2, 3))):
    row("expand", shape, lambda x, s=shape: ops.expand(x, s), lambda x, s=shape: x.expand(s), old)
row("expand", "sizes", lambda x: ops.expand(x, 2, 3), lambda x: x.expand(2, 3), (1, 3))
row("clone", "x", ops.clone, torch.clone, (2, 3))
for function, oracle in (ops.any, torch.any), (ops.all, torch.all):
    name = function.__name__
    for axes in (0, (0, 2), -1):
        row(name, axes, lambda x, f=function, a=axes: f(x, a), lambda x, f=oracle, a=axes: f(x, a),
            (2, 3, 4), draw=few, constant=True, dtype="bool")  # fmt: skip
    row(name, "keepdims", lambda x, f=function: f(x, 1, True), lambda x, f=oracle: f(x, 1, True), (2, 3), draw=few,
        constant=True, dtype="bool")  # fmt: skip
    row(name, "no elements", function, oracle, (0, 2), constant=True, dtype="bool")

# ---- operators and methods of Tensor ---------------------------------------------------------------------------------

for name, function in (
    ("add", operator.add), ("sub", operator.sub), ("mul", operator.mul), ("truediv", operator.truediv),
    ("pow", operator.pow),
):  # fmt: skip
    forward, reflected = f"__{name}__", f"__r{name}__"
    row(forward, "x, y", function, function, (2, 3), (3,), draw=positive)
    for other in (2, 0.5, np.float32(1.5), np.int64(2)):
        python = other.item() if isinstance(other, np.generic) else other
        row(forward, f"x, {other!r}", lambda x, f=function, s=other: f(x, s), lambda x, f=function, s=python: f(x, s),
            (2, 3), draw=positive)  # fmt: skip
        row(reflected, f"{other!r}, x", lambda x, f=function, s=other: f(s, x), lambda x, f=function, s=python: f(s, x),
            (2, 3), draw=positive)  # fmt: skip
    for other in (np.array([[1], [2]], "int8"), [[1], [2]]):
        column = np.asarray(other, "float64")
        kind = type(other).__name__
        options = {"draw": positive}
        row(forward, f"x, {kind}", lambda x, f=function, s=other: f(x, s),
            lambda x, f=function, s=column: f(x, torch.tensor(s)), (2, 3), **options)  # fmt: skip
        row(reflected, f"{kind}, x", lambda x, f=function, s=other: f(s, x),
            lambda x, f=function, s=column: f(torch.tensor(s), x), (2, 3), **options)  # fmt: skip
for function in (operator.neg, operator.abs, operator.pos):
    row(f"__{function.__name__}__", "x", function, function, (2, 3))
for function in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
    name = f"__{function.__name__}__"
    row(name, "x, y", function, function, (4, 5), (5,), draw=few, constant=True)
    row(name, "x, 1", lambda x, f=function: f(x, 1), lambda x, f=function: f(x, 1), (4, 5), draw=few, constant=True)
    row(name, "1, x", lambda x, f=function: f(1, x), lambda x, f=function: f(1, x), (4, 5), draw=few, constant=True)
    for other in (np.array([0.0, 1.0, -1.0, 0.0, 1.0]), np.array([0, 1, -1, 0, 1])):  # NumPy leaves both to needle
        row(name, f"x, {other.dtype} array", lambda x, f=function, a=other: f(x, a),
            lambda x, f=function, a=other: f(x, torch.tensor(a)), (4, 5), draw=few, constant=True)  # fmt: skip
        row(name, f"{other.dtype} array, x", lambda x, f=function, a=other: f(a, x),
            lambda x, f=function, a=other: f(torch.tensor(a), x), (4, 5), draw=few, constant=True)  # fmt: skip

# ---- more rows -------------------------------------------------------------------------------------------------------

from tests.ops import table_elementwise, table_order  # noqa: E402, F401 (they add rows with `row`)
