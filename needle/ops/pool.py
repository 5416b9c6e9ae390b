"""Pooling over windows of the spatial axes: (N, C, *S) -> (N, C, *P), or the same without N."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeAlias

from needle import check, kernels
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import compute_dtype, cpu, xp
from needle.graph import Spec
from needle.kernels import Size, Window
from needle.ops.arithmetic import ADD, DIVIDE, NEGATE, DivScalar, as_dtype
from needle.ops.base import Array, FixedShape, Gradients
from needle.ops.index import getitem
from needle.ops.operand import are_plain, batched, check_fit, constant, pool_window, scalar_like, unbatched
from needle.ops.rounding import FloorDivide, Fmod

Pooled: TypeAlias = Tensor | tuple[Tensor, Tensor]  # with indices: a pair
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


class MaxPool(TensorOp):
    """The largest element of each window: (N, C, *S) -> (N, C, *P); the first of tied elements takes the gradient."""

    saves_output = True

    def __init__(self, kernel: Size, window: Window) -> None:
        self.kernel, self.window = kernel, window

    def compute(self, x: Array) -> Array:
        return kernels.max_windows(x, self.kernel, self.window)

    def infer(self, x: Any) -> Spec:
        return Spec((*x.shape[:2], *self.window.output(x.shape[2:], self.kernel)), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return ScatterToMax(self.kernel, self.window)(out_grad, constant(node.inputs[0]), constant(node))


class LocateMax(TensorOp):
    """The row-major index in *S of each window's largest element, the first if tied. A constant."""

    differentiable = False

    def __init__(self, kernel: Size, window: Window) -> None:
        self.kernel, self.window = kernel, window

    def compute(self, x: Array, best: Array) -> Array:
        return kernels.locate_max(x, best, self.kernel, self.window)

    def infer(self, x: Any, best: Any) -> Spec:
        return Spec(best.shape, cpu().xp.dtype("int64"))


class ScatterToMax(TensorOp):
    """Each y added at the first largest element of its window in x: (N, C, *P) -> (N, C, *S)."""

    saved_inputs = (1, 2)

    def __init__(self, kernel: Size, window: Window) -> None:
        self.kernel, self.window = kernel, window

    def compute(self, y: Array, x: Array, best: Array) -> Array:
        return kernels.scatter_to_max(y, x, best, self.kernel, self.window)

    def infer(self, y: Any, x: Any, best: Any) -> Spec:
        return Spec(x.shape, y.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return GatherAtMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class GatherAtMax(TensorOp):
    """The elements of g where x has the first largest element of each window: (N, C, *S) -> (N, C, *P)."""

    saved_inputs = (1, 2)

    def __init__(self, kernel: Size, window: Window) -> None:
        self.kernel, self.window = kernel, window

    def compute(self, g: Array, x: Array, best: Array) -> Array:
        return kernels.gather_at_max(g, x, best, self.kernel, self.window)

    def infer(self, g: Any, x: Any, best: Any) -> Spec:
        return Spec(best.shape, g.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return ScatterToMax(self.kernel, self.window)(out_grad, *node.inputs[1:]), None, None


class SumPool(TensorOp):
    """The sum of each window: (N, C, *S) -> (N, C, *P)."""

    saved_inputs = ()

    def __init__(self, kernel: Size, window: Window) -> None:
        self.kernel, self.window = kernel, window

    def compute(self, x: Array) -> Array:
        return kernels.sum_windows(x, self.kernel, self.window)

    def infer(self, x: Any) -> Spec:
        return Spec((*x.shape[:2], *self.window.output(x.shape[2:], self.kernel)), x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return SpreadPool(self.kernel, self.window, node.inputs[0].shape[2:])(out_grad)


class SpreadPool(TensorOp):
    """The transpose of SumPool: each y added to every element of its window: (N, C, *P) -> (N, C, *S)."""

    saved_inputs = ()

    def __init__(self, kernel: Size, window: Window, size: Size) -> None:
        self.kernel, self.window, self.size = kernel, window, size

    def compute(self, y: Array) -> Array:
        return kernels.spread_windows(y, self.kernel, self.window, self.size)

    def infer(self, y: Any) -> Spec:
        return Spec((*y.shape[:2], *self.size), y.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return SumPool(self.kernel, self.window)(out_grad)


class MaxUnpool(FixedShape):
    """Zeros of `shape` (n,) with x written at int64 positions; of several at one place the last stays, as in torch.

    So they are of equal maxima in windows that overlap; each takes the gradient.
    """

    saved_inputs = (1,)

    def __init__(self, shape: Size) -> None:
        self.shape = shape

    def compute(self, x: Array, position: Array) -> Array:
        y = xp(x).zeros(self.shape, x.dtype)
        y[position] = x
        return y

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return getitem(out_grad, node.inputs[1]), None


# ---- functions -------------------------------------------------------------------------------------------------------


def max_pool(
    op: str, x: TensorLike, rank: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Pooled:  # fmt: skip
    """The largest element of each window over `rank` axes; see `functional.max_pool2d`."""
    check.instance(op, "return_indices", return_indices, bool)
    check.instance(op, "ceil_mode", ceil_mode, bool)
    x, had_batch = pool_operand(op, x, rank, INTEGERS)
    options = (kernel_size, kernel_size if stride is None else stride, padding, dilation)
    fitting = _fitting_window_cached if are_plain(options) else _fitting_window
    best, index = largest(x, *fitting(op, x.shape, *options, ceil_mode), return_indices)
    best = unbatched(best, had_batch)
    return best if index is None else (best, unbatched(index, had_batch))


def _fitting_window(
    op: str, x_shape: Size, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> tuple[Size, Window]:
    """The kernel and the window of a pooling of x (N, C, *S), if they fit into it."""
    kernel, window = pool_window(op, len(x_shape) - 2, kernel_size, stride, padding, dilation)
    if ceil_mode:
        window = window.with_ceil_mode(x_shape[2:], kernel)
    check_fit(op, x_shape, kernel, window)
    return kernel, window


_fitting_window_cached = lru_cache(maxsize=1024)(_fitting_window)  # a network asks for the same ones in every step


def largest(x: Tensor, kernel: Size, window: Window, return_indices: bool) -> tuple[Tensor, Tensor | None]:
    """The largest element of each window, and its index or None: `max_pool` of checked arguments."""
    best = MaxPool(kernel, window)(x)
    return best, LocateMax(kernel, window)(x, best) if return_indices else None


def avg_pool(
    op: str, x: TensorLike, rank: int, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window over `rank` axes; see `functional.avg_pool2d`. float16 accumulates in float32."""
    check.instance(op, "count_include_pad", count_include_pad, bool)
    x, had_batch = pool_operand(op, x, rank, ("int64",))
    kernel, window = pool_window(op, rank, kernel_size, stride, padding)
    sides = zip(x.shape[2:], window.padding, strict=True)
    counted = [(0, n + sum(pair)) if count_include_pad else (pair[0], pair[0] + n) for n, pair in sides]
    if check.instance(op, "ceil_mode", ceil_mode, bool):
        window = window.with_ceil_mode(x.shape[2:], kernel)
    check_fit(op, x.shape, kernel, window)
    if divisor_override is not None and not check.integer(op, "divisor_override", divisor_override):
        raise ValueError(f"{op}: divisor_override must not be zero, but got {divisor_override}")
    total = SumPool(kernel, window)(as_dtype(x, compute_dtype(x.dtype)))
    windows = list(zip(kernel, window.stride, total.shape[2:], counted, strict=True))
    counts = [[min(i * s + k, end) - max(i * s, start) for i in range(p)] for k, s, p, (start, end) in windows]
    if divisor_override is not None:
        mean = _divided(total, divisor_override)
    elif all(len(set(axis)) == 1 for axis in counts):
        mean = _divided(total, math.prod(axis[0] for axis in counts))
    else:
        mean = _divided(total, x.make_const(_counts(x.device.xp, windows).astype(total.dtype)))
    return unbatched(as_dtype(mean, x.dtype), had_batch)


def _divided(total: Tensor, divisor: int | Tensor) -> Tensor:
    """Sums by a divisor; those of integers are cut off towards zero."""
    if total.dtype.kind == "f":
        return DIVIDE(total, divisor) if isinstance(divisor, Tensor) else DivScalar(divisor)(total)
    whole = divisor if isinstance(divisor, Tensor) else scalar_like(divisor, total)
    return FloorDivide()(ADD(total, NEGATE(Fmod()(total, whole))), whole)


def average(x: Tensor, kernel: Size, window: Window) -> Tensor:
    """`avg_pool` of checked arguments, for a window without padding."""
    total = SumPool(kernel, window)(as_dtype(x, compute_dtype(x.dtype)))
    return as_dtype(DivScalar(math.prod(kernel))(total), x.dtype)


def pool_operand(op: str, x: TensorLike, rank: int, integers: tuple[str, ...] = ()) -> tuple[Tensor, bool]:
    """x as (N, C, *S), of which only N may be 0, of floats or of `integers`, and whether it had the axis N."""
    x, had_batch = batched(op, x, rank, nonempty=True)
    if x.dtype.kind != "f" and x.dtype.name not in integers:  # the name of a dtype takes a microsecond
        check.floats(op, x=x)
    return x, had_batch


def _counts(xp: Any, windows: list[Any]) -> Array:
    """The number of counted elements in each window, the product of the counts along each axis: (*P), a raw array."""
    counts = xp.ones((), "int64")
    for k, s, p, (start, end) in windows:
        first = xp.arange(p) * s
        counts = counts[..., None] * (xp.minimum(first + k, end) - xp.maximum(first, start))
    return counts
