"""The three products of one trilinear form: ⟨y, conv(x, w)⟩ is linear in x, in w and in y.

    correlate            x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)
    correlate_transpose  y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)
    correlate_weight     x (N, C, *S), y (N, O, *P)   -> w (O, C/G, *K)

Each has more than one algorithm, chosen by shape, or by name within `conv_algorithm`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple

from needle import check
from needle.backend import device_of, xp
from needle.kernels.conv import col2im, im2col, polyphase, reference, taps, winograd
from needle.kernels.layout import Array
from needle.kernels.window import Size, Window


def correlate(x: Array, w: Array, window: Window, bias: Array | None = None) -> Array:
    """Cross-correlate, and add a bias (O,): (N, C, *S), (O, C/G, *K) -> (N, O, *P)."""
    if x.dtype == "float16":
        return _in_single(correlate, x, w, window, bias)
    parts, window = window.without_dead_taps(x.shape[2:], w.shape[2:])
    w = w[(..., *parts)]
    name = _named("forward", window, w.shape) or ("winograd" if winograd.pays(x, w.shape, window) else "im2col")
    return _way(name, "forward")(x, w, window, bias)


def correlate_transpose(y: Array, w: Array, window: Window, size: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in x: (N, O, *P), (O, C/G, *K) -> (N, C, *S)."""
    if y.dtype == "float16":
        return _in_single(correlate_transpose, y, w, window, size)
    parts, window = window.without_dead_taps(size, w.shape[2:])
    w = w[(..., *parts)]
    name = _named("transpose", window, w.shape) or ("phases" if _phases_pay(y, w.shape, window, size) else "fold")
    return _way(name, "transpose")(y, w, window, size)


def correlate_weight(x: Array, y: Array, window: Window, kernel: Size) -> Array:
    """The derivative of ⟨y, correlate(x, w)⟩ in w: (N, C, *S), (N, O, *P) -> (O, C/G, *K)."""
    if x.dtype == "float16":
        return _in_single(correlate_weight, x, y, window, kernel)
    parts, window = window.without_dead_taps(x.shape[2:], kernel)
    useful = tuple(len(range(k)[part]) for part, k in zip(parts, kernel, strict=True))
    w_shape = (y.shape[1], x.shape[1] // window.groups, *useful)
    name = _named("weight", window, w_shape)
    if name is None and winograd.pays(x, w_shape, window):
        name = "winograd"
    elif name is None:
        name = "taps" if _taps_pay(x, y, w_shape, window) else "im2col"
    w = _way(name, "weight")(x, y, window, useful)
    if useful == kernel:
        return w
    whole = xp(w).zeros((*w.shape[:2], *kernel), w.dtype)
    whole[(..., *parts)] = w
    return whole


def correlate_gradients(x: Array, w: Array, y: Array, window: Window) -> tuple[Array, Array]:
    """Both derivatives, in x and in w: side by side where neither is worth sharing, else one after another."""
    transpose = partial(correlate_transpose, y, w, window, x.shape[2:])
    weight = partial(correlate_weight, x, y, window, w.shape[2:])
    if math.prod(w.shape) * y.size // y.shape[1] >= PAIRED:
        return transpose(), weight()
    found: dict[Any, Array] = {}

    def derive(way: Callable[[], Array]) -> None:
        found[way] = way()

    device_of(x).parallel_for(derive, (transpose, weight))
    return found[transpose], found[weight]


def _named(stage: str, window: Window, w_shape: Size) -> str | None:
    """The algorithm that `conv_algorithm` names for a stage, if it fits."""
    name = _choice.get().get(stage)
    return name if name and ALGORITHMS[name].fits(window, w_shape) else None


def _way(name: str, stage: str) -> Callable[..., Array]:
    """The product of an algorithm."""
    way: Callable[..., Array] = getattr(ALGORITHMS[name], stage)
    return way


class Algorithm(NamedTuple):
    """A way to some of the three products, and whether it is one for a window and a kernel (O, C/G, *K)."""

    forward: Callable[..., Array] | None = None
    transpose: Callable[..., Array] | None = None
    weight: Callable[..., Array] | None = None
    fits: Callable[[Window, Size], bool] = lambda window, w_shape: True


by_phases = partial(polyphase.transpose_by_phases, correlate)
ALGORITHMS = {
    "im2col": Algorithm(im2col.correlate, None, im2col.correlate_weight),
    "winograd": Algorithm(winograd.correlate, by_phases, winograd.correlate_weight, winograd.fits),
    "taps": Algorithm(taps.correlate_by_taps, None, taps.weight_by_taps),
    "contraction": Algorithm(reference.correlate_by_contraction),
    "phases": Algorithm(None, by_phases),
    "fold": Algorithm(None, col2im.transpose_by_fold),
    "convolution": Algorithm(None, reference.transpose_by_convolution, reference.weight_by_convolution),
}


_choice: ContextVar[dict[str, str]] = ContextVar("conv_algorithm", default={})  # noqa: B039 (never changed)
STAGES = ("forward", "transpose", "weight")
ROW = 256  # elements of an output row, of all images, from which on its products with those of x are worth it
FEW, MANY = 8, 1024  # channels on one side; channels on both sides, multiplied
PAIRED = 1 << 26  # multiplications up to which two threads take a derivative each
LARGE = 1 << 24  # multiplications from which on several phases are worth their calls


@contextmanager
def conv_algorithm(name: str) -> Iterator[None]:
    """Compute convolutions of this thread by the algorithm of that name until the block ends.

    | name | forward | input gradient | weight gradient |
    | :-- | :-- | :-- | :-- |
    | im2col | columns, one matrix product | | columns, one matrix product |
    | winograd | fewer multiplications, at stride 1 and kernels up to 3 | the same | the same |
    | taps | a 1x1 product per kernel position | | a 1x1 product per kernel position |
    | contraction | a view of all windows, a tensor contraction | | |
    | phases | | convolutions at stride 1 by the forward algorithm | |
    | fold | | one matrix product, columns added back | |
    | convolution | | one convolution, of the dilated gradient | one convolution, of the transposed pair |

    Where a cell is empty, where winograd does not fit, and without a name, the choice is by shape: what was faster in
    the measurements of docs/convolution.md. All give the same results to rounding; only winograd's is coarser, and near
    an infinity it makes NaN. Raises ValueError for another name.
    """
    algorithm = ALGORITHMS[check.one_of("conv_algorithm", "name", name, list(ALGORITHMS))]
    named = {stage: name for stage in STAGES if getattr(algorithm, stage) is not None}
    token = _choice.set(_choice.get() | named)
    try:
        yield
    finally:
        _choice.reset(token)


def _phases_pay(y: Array, w_shape: Size, window: Window, size: Size) -> bool:
    """Whether the input gradient by phases is faster than by folding: not where most phases meet padding, or are small.

    Folding adds K columns back, which takes longer than the product where there are few channels y.
    """
    products = math.prod(w_shape) * y.shape[0]
    by_fold = products * math.prod(y.shape[2:])
    by_phases = products * math.prod(size) // math.prod(window.stride)
    few = w_shape[1] < FEW and w_shape[0] > window.groups  # BLAS is slow at flat products; depthwise has none
    return not few and by_phases <= 1.25 * by_fold and (set(window.stride) == {1} or by_fold >= LARGE)


def _taps_pay(x: Array, y: Array, w_shape: Size, window: Window) -> bool:
    """Whether the weight gradient by taps is faster than by columns.

    By a quarter with 16 to 32 channels on each side, by half with one in each group; not where rows are short.
    """
    outs, share = w_shape[0] // window.groups, w_shape[1]
    return (
        device_of(x).strided_gemm
        and window.stride[-1] == 1
        and y.shape[-1] * y.shape[0] >= ROW
        and math.prod(w_shape[2:]) > 1
        and (share * outs == 1 < window.groups or (min(share, outs) > FEW and share * outs <= MANY))
    )


def _in_single(product: Callable[..., Array], *arguments: Any) -> Array:
    """A product of float16 arrays, computed in float32."""
    wide = (given.astype("float32") if hasattr(given, "dtype") else given for given in arguments)
    return product(*wide).astype("float16")
