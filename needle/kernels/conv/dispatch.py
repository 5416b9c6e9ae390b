"""The three passes of a convolution, and which algorithm computes each.

⟨y, conv(x, w)⟩ is linear in x, in w and in y: a trilinear form. Each pass is its derivative in one of them; y is an
output or, in a backward pass, the gradient of one:

    correlate            forward          x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)
    correlate_transpose  backward_data    y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)
    correlate_weight     backward_weight  x (N, C, *S), y (N, O, *P)   -> w (O, C/G, *K)

The algorithm is chosen by shape, or by name within `conv_algorithm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import Any, NamedTuple

from needle import check, tuning
from needle.backend import device_of, overridable, xp
from needle.kernels.activation import rectify, relu_grad
from needle.kernels.conv import col2im, im2col, polyphase, reference, taps, toeplitz, winograd
from needle.kernels.layout import Array, batch_last, compact_kernel, copy_kernel
from needle.kernels.reduce import sums
from needle.kernels.window import Size, Window, check_conv

__all__ = [
    "conv_algorithm",
    "correlate",
    "correlate_backward",
    "correlate_gradients",
    "correlate_rectified",
    "correlate_transpose",
    "correlate_transpose_backward",
    "correlate_transpose_biased",
    "correlate_weight",
    "requested_algorithms",
]

Needed = Sequence[bool]


@overridable
def correlate(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    if x.dtype == "float16":
        return _in_float32(correlate, x, w, window, bias)
    requested = _requested.get().get("forward")
    dtypes, device = (x.dtype, w.dtype), device_of(x)
    plan = _plan("forward", requested, x.shape, w.shape, None, window, dtypes, device.strided_gemm)
    live_w = w[plan.live] if plan.live else w
    return ALGORITHMS[plan.algorithm].forward(x, live_w, plan.window, bias)


@overridable
def correlate_rectified(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """max(y, 0) of the y of `correlate`."""
    y = correlate(x, w, window, bias)
    return rectify(y, out=y if batch_last(y).flags.c_contiguous else None)


@overridable
def correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S), with S = `size`."""
    if y.dtype == "float16":
        return _in_float32(correlate_transpose, y, w, window, size)
    requested = _requested.get().get("backward_data")
    x_shape = (y.shape[0], w.shape[1] * window.groups, *size)
    dtypes, device = (y.dtype, w.dtype), device_of(y)
    plan = _plan("backward_data", requested, x_shape, w.shape, y.shape, window, dtypes, device.strided_gemm)
    live_w = w[plan.live] if plan.live else w
    return ALGORITHMS[plan.algorithm].backward_data(y, live_w, plan.window, size)


@overridable
def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K), with K = `kernel`."""
    if x.dtype == "float16":
        return _in_float32(correlate_weight, x, y, window, kernel)
    requested = _requested.get().get("backward_weight")
    w_shape = (y.shape[1], x.shape[1] // window.groups, *kernel)
    dtypes, device = (x.dtype, y.dtype), device_of(x)
    plan = _plan("backward_weight", requested, x.shape, w_shape, y.shape, window, dtypes, device.strided_gemm)
    live_w = ALGORITHMS[plan.algorithm].backward_weight(x, y, plan.window, plan.kernel)
    return _with_dead_taps(live_w, w_shape, plan)


@overridable
def correlate_backward(
    out_grad: Array, x: Array, w: Array, window: Window, needed: Needed, output: Array | None = None
) -> tuple[Array | None, ...]:
    """The gradients of x, w and a bias, those that are `needed`: (N, C, *S), (O, C/G, *K) and (O,).

    `needed` has two entries where there is no bias. With `output`, the result of `correlate_rectified`, out_grad counts
    where that is positive.
    """
    if output is not None:
        out_grad = relu_grad(output, out_grad)
    x_grad = w_grad = None
    if needed[0] and needed[1]:
        x_grad, w_grad = correlate_gradients(x, w, out_grad, window)
    elif needed[0]:
        x_grad = correlate_transpose(out_grad, w, window, x.shape[2:])
    elif needed[1]:
        w_grad = correlate_weight(x, out_grad, window, w.shape[2:])
    if len(needed) == 2:
        return x_grad, w_grad
    return x_grad, w_grad, _channel_sums(out_grad) if needed[2] else None


@overridable
def correlate_transpose_biased(y: Array, w: Array, window: Window, size: Size, bias: Array) -> Array:
    """`correlate_transpose` and a bias (C,) added."""
    return correlate_transpose(y, w, window, size) + bias.reshape(1, -1, *(1,) * len(size))


@overridable
def correlate_transpose_backward(
    out_grad: Array, y: Array, w: Array, window: Window, needed: Needed
) -> tuple[Array | None, ...]:
    """The gradients of y, w and a bias (C,) of `correlate_transpose_biased`, those that are `needed`."""
    y_grad = correlate(out_grad, w, window) if needed[0] else None
    w_grad = correlate_weight(out_grad, y, window, w.shape[2:]) if needed[1] else None
    if len(needed) == 2:
        return y_grad, w_grad
    return y_grad, w_grad, _channel_sums(out_grad) if needed[2] else None


def _channel_sums(x: Array) -> Array:
    """The sums of the channels of (N, C, *S): (C,)."""
    return sums(x, (0, *range(2, x.ndim))).reshape(-1)


def correlate_gradients(x: Array, w: Array, y: Array, window: Window) -> tuple[Array, Array]:
    """`correlate_transpose` and `correlate_weight`: the gradients (N, C, *S) and (O, C/G, *K) for out_grad y.

    At stride 1 both read y as a convolution with the flipped kernel does, so one pass over y computes both. Otherwise
    small ones run side by side, one on each of two threads; large ones one after the other, each on all.
    """
    size, kernel, device = x.shape[2:], w.shape[2:], device_of(x)
    if not _requested.get() and not device.kernels and device.strided_gemm:
        plan = _gradients_plan(x.shape, w.shape, y.shape, window, (x.dtype, w.dtype, y.dtype))
        if plan:
            return _both_gradients(x, w, y, plan)
    backward_data = partial(correlate_transpose, y, w, window, size)
    backward_weight = partial(correlate_weight, x, y, window, kernel)
    macs = math.prod(w.shape) * y.size // y.shape[1]
    if not tuning.PARALLEL_GRADIENTS_MIN_MACS <= macs < tuning.PARALLEL_GRADIENTS_MAX_MACS:
        return backward_data(), backward_weight()
    results: dict[Any, Array] = {}

    def compute(backward: Callable[[], Array]) -> None:
        results[backward] = backward()

    device.parallel_for(compute, (backward_data, backward_weight))
    return results[backward_data], results[backward_weight]


def _both_gradients(x: Array, w: Array, y: Array, plan: Plan) -> tuple[Array, Array]:
    """The gradients of x and w by one pass over y: x_grad is a convolution of y, and x is the gradient of its result.

    ⟨y, conv(x, w)⟩ = ⟨x, conv(y, w')⟩, where w' is w with its taps reversed and its channels exchanged. So the
    derivative in w' is `correlate_weight(y, x)`, which reads y through the same windows as the derivative in x.
    """
    phase, groups = polyphase.only_phase(plan.window, x.shape[2:], y.shape[2:], plan.kernel), plan.window.groups
    flipped = polyphase.flip_taps(polyphase.swap_channels(w[plan.live] if plan.live else w, groups))
    both = ALGORITHMS[plan.algorithm].forward_and_weight
    x_grad, flipped_grad = both(y[phase.outputs], flipped, phase.window, x)
    live_grad = polyphase.swap_channels(polyphase.flip_taps(flipped_grad), groups)
    return x_grad, _with_dead_taps(live_grad, w.shape, plan)


def _with_dead_taps(live_w: Array, w_shape: Size, plan: Plan) -> Array:
    """A gradient of the live taps as one of the whole kernel: dead taps read padding only."""
    if not plan.live:
        return compact_kernel(live_w)
    w = xp(live_w).zeros(w_shape, live_w.dtype)
    copy_kernel(live_w, w[plan.live])
    return w


def _in_float32(correlation: Callable[..., Array], *arguments: Any) -> Array:
    """A pass over float16 arrays, computed in float32 and rounded once at the end."""
    wide = (argument.astype("float32") if hasattr(argument, "dtype") else argument for argument in arguments)
    return correlation(*wide).astype("float16")


# ---- the choice of an algorithm --------------------------------------------------------------------------------------


class Algorithm(NamedTuple):
    """The passes that an algorithm implements, and which windows and kernels (O, C/G, *K) it supports."""

    forward: Any = None  # (x, w, window, bias) -> y; None: not implemented
    backward_data: Any = None  # (y, w, window, size) -> x
    backward_weight: Any = None  # (x, y, window, kernel) -> w
    forward_and_weight: Any = None  # (x, w, window, y) -> forward(x, w), backward_weight(x, y)
    is_supported: Callable[[Window, Size], bool] = lambda window, w_shape: True


backward_data_by_polyphase = partial(polyphase.backward_data, correlate)
ALGORITHMS = {
    "im2col": Algorithm(im2col.forward, None, im2col.backward_weight, im2col.forward_and_weight),
    "winograd": Algorithm(
        winograd.forward,
        backward_data_by_polyphase,
        winograd.backward_weight,
        winograd.forward_and_weight,
        winograd.is_supported,
    ),
    "taps": Algorithm(taps.forward, None, taps.backward_weight),
    "toeplitz": Algorithm(toeplitz.forward, is_supported=toeplitz.is_supported),
    "tensordot": Algorithm(reference.forward),
    "polyphase": Algorithm(None, backward_data_by_polyphase),
    "col2im": Algorithm(None, col2im.backward_data),
    "convolution": Algorithm(None, reference.backward_data, reference.backward_weight),
}
FORMER_NAMES = {"contraction": "tensordot", "phases": "polyphase", "fold": "col2im"}
PASSES = ("forward", "backward_data", "backward_weight")

def requested_algorithms() -> dict[str, str]:
    """The algorithms that `conv_algorithm` asks for, by pass."""
    return _requested.get()


_requested: ContextVar[dict[str, str]] = ContextVar("conv_algorithm", default={})  # pass -> name  # noqa: B039 (frozen)


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Compute the convolutions of this thread by the algorithm `name` until the block ends.

    | name | forward | input gradient | weight gradient |
    | :-- | :-- | :-- | :-- |
    | im2col | columns, one matrix product | | columns, one matrix product |
    | winograd | fewer multiplications, at stride 1 and kernels up to 3 | polyphase, by winograd | the same |
    | taps | a 1x1 product per tap | | a 1x1 product per tap |
    | toeplitz | depthwise over two axes: a product with a banded matrix per row | | |
    | tensordot | a view of all windows, a tensordot | | |
    | polyphase | | convolutions at stride 1 by the forward algorithm | |
    | col2im | | one matrix product, columns added back | |
    | convolution | | one convolution, of the dilated gradient | one convolution, of the transposed pair |

    needle chooses by shape outside such a block, where a cell is empty, and for shapes that winograd or toeplitz do not
    support: the fastest in the measurements of docs/kernels.md. All results are equal to rounding; winograd rounds more
    coarsely, and both return NaN near an infinity. float16 is computed in float32 and rounded once.

    Raises `ValueError` for another name. The former names contraction, phases and fold stand for tensordot, polyphase
    and col2im. Sources: Chellapilla, Puri and Simard (2006) for im2col; Lavin and Gray (2016) for winograd; Vasudevan,
    Anderson and Gregg (2017) for taps, known as kn2row.
    """
    name = FORMER_NAMES.get(name, name) if isinstance(name, str) else name
    algorithm = ALGORITHMS[check.one_of("conv_algorithm", "name", name, list(ALGORITHMS))]
    passes = {direction: name for direction in PASSES if getattr(algorithm, direction) is not None}
    before = _requested.get()
    try:
        try:
            _requested.set(before | passes)
            yield
        finally:
            _requested.set(before)
    finally:  # once more: an interrupt may come before the line above
        _requested.set(before)


def is_requested() -> bool:
    """Whether this thread has asked for an algorithm by name."""
    return bool(_requested.get())


class Plan(NamedTuple):
    """How to compute one pass: the algorithm, and the convolution without dead taps."""

    algorithm: str
    live: tuple[Any, ...] | None  # the index of the live taps in a kernel (O, C/G, *K); None: all are
    kernel: Size  # their sizes
    window: Window


@lru_cache(maxsize=4096)
def _plan(
    direction: str,
    requested: str | None,
    x_shape: Size,
    w_shape: Size,
    y_shape: Size | None,
    window: Window,
    dtypes: tuple[Any, Any],
    strided_gemm: bool,
) -> Plan:
    """The plan of a pass for x (N, C, *S), w (O, C/G, *K) and, backward, y (N, O, *P); two of them are read.

    It depends on the thresholds in `tuning`. Raises ValueError for shapes that do not fit together, TypeError for two
    dtypes: the algorithms read through strides, which no array checks.
    """
    if dtypes[0] != dtypes[1]:
        raise TypeError(f"correlate: arrays must have one dtype, but got {dtypes[0]} and {dtypes[1]}")
    check_conv(x_shape, w_shape, y_shape, window)
    live, window = window.without_dead_taps(x_shape[2:], w_shape[2:])
    kernel = tuple(part.stop - part.start for part in live)
    live_shape = (*w_shape[:2], *kernel)
    if requested and ALGORITHMS[requested].is_supported(window, live_shape):
        algorithm = requested
    elif direction == "backward_data":
        algorithm = "polyphase" if _polyphase_is_faster(x_shape, live_shape, window) else "col2im"
    elif not strided_gemm:
        algorithm = "im2col"
    elif dtypes[0] == "float32" and winograd.is_faster(x_shape, live_shape, window):
        algorithm = "winograd"  # float64 keeps the plain sum, which is more exact
    elif direction == "forward" and dtypes[0] == "float32" and toeplitz.is_faster(x_shape, live_shape, window):
        algorithm = "toeplitz"
    elif direction == "backward_weight" and _taps_is_faster(x_shape, live_shape, window):
        algorithm = "taps"
    else:
        algorithm = "im2col"
    return Plan(algorithm, None if live_shape == w_shape else (..., *live), kernel, window)


@lru_cache(maxsize=4096)
def _gradients_plan(
    x_shape: Size, w_shape: Size, y_shape: Size, window: Window, dtypes: tuple[Any, Any, Any]
) -> Plan | None:
    """The plan of both gradients by one pass over y; None where that is not faster, or not possible.

    By im2col it pays where its rows overlap and the gradient in w goes by taps.
    """
    plan = _plan("backward_data", None, x_shape, w_shape, y_shape, window, dtypes[1:], True)
    if plan.algorithm != "polyphase" or set(window.stride) != {1} or dtypes[0] != dtypes[1] or dtypes[0] == "float16":
        return None
    phase = polyphase.only_phase(plan.window, x_shape[2:], y_shape[2:], plan.kernel)
    sizes = tuple(len(range(n)[cut]) for n, cut in zip(y_shape[2:], phase.outputs[1:], strict=True))
    source, groups = (*y_shape[:2], *sizes), window.groups
    flipped_shape = (x_shape[1], w_shape[0] // groups, *plan.kernel)
    if phase.is_empty:
        return None
    inner = _plan("forward", None, source, flipped_shape, None, phase.window, dtypes[1:], True)
    if inner.algorithm == "toeplitz":
        return None
    if inner.algorithm == "winograd" and not inner.live:
        return plan._replace(algorithm="winograd")
    columns = im2col.columns_for(
        source, flipped_shape, phase.window, dtypes[0].itemsize, True, tuning.OVERLAP_MIN_ROW_FORWARD
    )
    has_long_rows = columns.overlap and columns.lanes == 1 and columns.row >= tuning.TAPS_MIN_ROW
    if has_long_rows and _taps_is_faster(source, flipped_shape, phase.window):
        return plan._replace(algorithm="im2col")
    return None


def _polyphase_is_faster(x_shape: Size, w_shape: Size, window: Window) -> bool:
    """Whether the input gradient by polyphase is faster than by col2im.

    It is slower where most phases read padding or are small. Adding columns back takes longer than their matrix product
    where y has few channels.
    """
    macs_per_position = math.prod(w_shape) * x_shape[0]
    col2im_macs = macs_per_position * math.prod(window.output(x_shape[2:], w_shape[2:]))
    polyphase_macs = macs_per_position * math.prod(x_shape[2:]) // math.prod(window.stride)
    is_depthwise = w_shape[0] <= window.groups  # one out-channel per group: then there is no flat product
    return (
        (w_shape[1] >= tuning.POLYPHASE_MIN_IN_CHANNELS or is_depthwise)
        and polyphase_macs <= tuning.POLYPHASE_MAX_EXTRA_MACS * col2im_macs
        and (set(window.stride) == {1} or col2im_macs >= tuning.POLYPHASE_MIN_MACS)
    )


def _taps_is_faster(x_shape: Size, w_shape: Size, window: Window) -> bool:
    """Whether the weight gradient by taps is faster than by im2col.

    It is with about 10 to 100 channels and a small matmul, or depthwise; it is slower where output rows are short.
    """
    out_per_group, in_per_group = w_shape[0] // window.groups, w_shape[1]
    is_depthwise = in_per_group * out_per_group == 1 < window.groups
    row = window.output(x_shape[2:], w_shape[2:])[-1] * x_shape[0]
    return (
        window.stride[-1] == 1
        and row >= tuning.TAPS_MIN_ROW
        and math.prod(w_shape[2:]) > 1
        and (
            is_depthwise
            or (
                min(in_per_group, out_per_group) >= tuning.TAPS_MIN_CHANNELS
                and in_per_group * out_per_group <= tuning.TAPS_MAX_CHANNEL_PAIRS
            )
        )
    )
