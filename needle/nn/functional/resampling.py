"""Resizing images, and exchanging channels for positions, under torch's names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike, compute_dtype
from needle.kernels import at
from needle.nn.functional.linear import batch_first, batch_last, matmul_along
from needle.nn.functional.pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from needle.ops import (
    abs,
    broadcast_to,
    clip,
    equal,
    getitem,
    less,
    less_equal,
    maximum,
    minimum,
    permute,
    reshape,
    summation,
    where,
)
from needle.ops.arithmetic import as_dtype
from needle.ops.copies import apart
from needle.ops.operand import tensor

__all__ = ["interpolate", "pixel_shuffle", "pixel_unshuffle"]

LINEAR = ("linear", "bilinear", "trilinear")  # over one, two and three axes
INTERPOLATING = (*LINEAR, "bicubic")
NEAREST = ("nearest", "nearest-exact")
MODES = (*NEAREST, *INTERPOLATING, "area")
AREA = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)


def interpolate(
    x: TensorLike,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Resample x to other sizes: (N, C, *S) -> (N, C, *P), over one to three axes *S.

    Pass either `size` or `scale_factor`, one number for all axes or one per axis. `size` is P, and output p reads at
    input p·S / P; with `scale_factor`, P = floor(scale·S), and output p reads at input p / scale, or with
    `recompute_scale_factor` as if P had been passed. The modes, if elements are unit squares:

    | mode | output |
    |---|---|
    | `"nearest"` | the element under the output's upper corner; in images, an axis of size S or 2·S ignores the scale |
    | `"nearest-exact"` | the element under the output's center |
    | `"linear"`, `"bilinear"`, `"trilinear"` | linear between the nearest centers, over 1, 2, 3 axes |
    | `"bicubic"` | cubic through the 16 nearest centers, over 2 axes; elements at the border repeat |
    | `"area"` | adaptive average pooling |

    `align_corners=True`, for the linear modes and the cubic, places output p at input p·(S - 1) / (P - 1): the centers
    of the outermost elements coincide. `antialias=True`, for `"bilinear"` and `"bicubic"`, widens the weights by the
    factor by which an axis shrinks, and normalizes them at the border.

    Raises `ValueError` if shapes and options do not fit, `TypeError` unless the dtype of x is floating or, in
    the modes that only choose elements, uint8.

    Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), equation 15 with a = -3/4, and with
    `antialias` a = -1/2.
    """
    op = "interpolate"
    x = tensor(op, x)
    check.one_of(op, "mode", mode, MODES)
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or 0 in x.shape[1:]:
        raise ValueError(
            f"{op}: x must have 3 to 5 axes, (N, C, *S), of which only N may be 0, but got shape {x.shape}"
        )
    if mode in LINEAR and mode != LINEAR[rank - 1]:
        raise ValueError(f"{op}: mode {mode!r} needs an x with {LINEAR.index(mode) + 3} axes, but got shape {x.shape}")
    if mode == "bicubic" and rank != 2:
        raise ValueError(f"{op}: mode 'bicubic' needs an x with 4 axes, but got shape {x.shape}")
    if align_corners is not None and mode not in INTERPOLATING:
        raise ValueError(f"{op}: align_corners must be None in mode {mode!r}, but got {align_corners}")
    align_corners = check.instance(op, "align_corners", align_corners or False, bool)
    if check.instance(op, "antialias", antialias, bool) and mode not in ("bilinear", "bicubic"):
        raise ValueError(f"{op}: antialias needs the mode 'bilinear' or 'bicubic', but got {mode!r}")
    if mode not in NEAREST or x.dtype != "uint8":
        check.floats(op, x=x)
    output, scales = _output(op, x.shape[2:], size, scale_factor)
    if check.instance(op, "recompute_scale_factor", recompute_scale_factor or False, bool):
        if size is not None:
            raise ValueError(f"{op}: recompute_scale_factor needs a scale_factor, but got size {size}")
        scales = (None,) * rank
    if mode == "area":
        return AREA[rank - 1](x, output)
    weights = _antialiased if antialias else _cubics if mode == "bicubic" else _hats
    y = as_dtype(x, compute_dtype(x.dtype)) if mode in INTERPOLATING else x  # float16 is rounded once, at the end
    for axis, (n, p, scale) in enumerate(zip(x.shape[2:], output, scales, strict=True), 2):
        step = 1 / scale if scale else n / p
        if mode == "nearest" and rank == 2 and p in (n, 2 * n):
            step = n / p  # as in torch: of images, whatever the scale was
        if mode in INTERPOLATING:
            if p != n or (weights is _cubics and step != 1 and not align_corners):  # torch copies an axis otherwise
                options = (mode == "bicubic",) if weights is _antialiased else ()
                matrix = weights(n, p, step, bool(align_corners), x.device, y.dtype, *options)
                y = matmul_along(y, matrix, axis)
        else:
            y = _nearest(y, axis, p, step, 0.5 if mode == "nearest-exact" else 0.0)
    return apart(as_dtype(y, x.dtype), x)


def _output(
    op: str,
    input_size: tuple[int, ...],
    size: int | Sequence[int] | None,
    scale_factor: float | Sequence[float] | None,
) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
    """The sizes of the output, and the scale of each axis (None if sizes were passed)."""
    rank = len(input_size)
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{op}: either size or scale_factor must be given, but got {size} and {scale_factor}")
    if scale_factor is None:
        return check.sizes(op, "size", size, rank, least=1), (None,) * rank
    if isinstance(scale_factor, Sequence) and not isinstance(scale_factor, str):
        factors = tuple(scale_factor)
    else:
        factors = (scale_factor,) * rank
    if len(factors) != rank:
        raise ValueError(f"{op}: scale_factor must be one number or {rank}, but got {len(factors)}: {factors}")
    scales = tuple(check.number(op, "scale_factor", factor, least=0) for factor in factors)
    if not all(1 <= n * scale < math.inf for n, scale in zip(input_size, scales, strict=True)):
        raise ValueError(
            f"{op}: scale_factor must leave at least one element, and be finite, but got {scale_factor} for "
            f"{input_size}"
        )
    return tuple(int(n * scale) for n, scale in zip(input_size, scales, strict=True)), scales


def _nearest(x: Tensor, axis: int, p: int, step: float, offset: float) -> Tensor:
    """Along one axis, the elements at floor((i + offset)·step) for i in [0, p)."""
    n = x.shape[axis]
    if p % n == 0 and step == n / p:
        return repeat(x, axis, p // n)
    if n % p == 0 and step == n // p:
        return getitem(x, at(axis, slice(int(offset * step), None, n // p)))
    return getitem(x, at(axis, _nearest_index(n, p, step, offset, x.device)))


@lru_cache(maxsize=32)
def _nearest_index(n: int, p: int, step: float, offset: float, device: Device) -> Tensor:
    """floor((i + offset)·step), at most n - 1, for i in [0, p)."""
    position = (init.arange(p, device=device, dtype="float64") + offset) * step
    return minimum(position.astype("float32").astype("int64"), n - 1)  # float32: torch's rounding


def repeat(x: Tensor, axis: int, count: int) -> Tensor:
    """Each element `count` times along one axis, in batch-last order."""
    source = batch_last(x)  # (…, S, …, N); S is axis `axis` - 1
    before, after = source.shape[:axis], source.shape[axis:]
    repeated = broadcast_to(reshape(source, (*before, 1, *after)), (*before, count, *after))  # (…, S, count, …, N)
    return batch_first(reshape(repeated, (*before[:-1], before[-1] * count, *after)))  # (N, …, S·count, …)


@lru_cache(maxsize=16)
def _hats(n: int, p: int, step: float, align_corners: bool, device: Device, dtype: DTypeLike) -> Tensor:
    """The matrix (n, p) whose columns interpolate between n elements: hats of width 2 around the output positions."""
    position, element = _positions(n, p, step, align_corners, device)
    return _hat(clip(position, 0, n - 1) - element).astype(dtype)


@lru_cache(maxsize=16)
def _cubics(n: int, p: int, step: float, align_corners: bool, device: Device, dtype: DTypeLike) -> Tensor:
    """The matrix (n, p) of cubic interpolation; positions beyond the border read the element there."""
    position, element = _positions(n, p, step, align_corners, device)
    first = (position + 1).astype("int64") - 1  # floor, since positions are at least -1
    weights = init.zeros(n, p, device=device, dtype="float64")
    for tap in range(-1, 3):
        place = first + tap
        weights = weights + equal(clip(place, 0, n - 1), element) * cubic_weight(position - place, -0.75)
    return weights.astype(dtype)


@lru_cache(maxsize=16)
def _antialiased(
    n: int, p: int, step: float, align_corners: bool, device: Device, dtype: DTypeLike, is_cubic: bool
) -> Tensor:
    """The matrix (n, p) of interpolation whose weights are as wide as `step`, if that is above 1; columns sum to 1."""
    if align_corners:
        step = (n - 1) / (p - 1) if p > 1 else 0.0
    center = (init.arange(p, device=device, dtype="float64") + 0.5) * step
    distance = (reshape(init.arange(n, device=device, dtype="float64"), (n, 1)) + 0.5 - center) / max(step, 1.0)
    weights = cubic_weight(distance, -0.5) if is_cubic else _hat(distance)
    return (weights / summation(weights, 0)).astype(dtype)


def _positions(n: int, p: int, step: float, align_corners: bool, device: Device) -> tuple[Tensor, Tensor]:
    """Where p outputs read, in units of elements (p,), and the n elements (n, 1)."""
    position = init.arange(p, device=device, dtype="float64")
    first, step = (0.0, (n - 1) / (p - 1) if p > 1 else 0.0) if align_corners else (0.5, step)
    return (position + first) * step - first, reshape(init.arange(n, device=device, dtype="float64"), (n, 1))


def _hat(distance: Tensor) -> Tensor:
    """The weight of linear interpolation at a distance."""
    return maximum(1 - abs(distance), 0)


def cubic_weight(distance: Tensor, a: float) -> Tensor:
    """The weight of cubic interpolation at a distance; `a` is its slope at 1."""
    d = abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = (((d - 5) * d + 8) * d - 4) * a
    return where(less_equal(d, 1), near, where(less(d, 2), far, 0.0))


def pixel_shuffle(x: TensorLike, upscale_factor: int) -> Tensor:
    """Move channels into squares of r × r positions, r = upscale_factor: (…, C·r·r, H, W) -> (…, C, H·r, W·r).

    Raises `ValueError` if r·r does not divide the channels or x has fewer than 3 axes. Any real dtype is allowed.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (2016), equation 4.
    """
    x, r = _image("pixel_shuffle", x), check.integer("pixel_shuffle", "upscale_factor", upscale_factor, least=1)
    *lead, c, h, w = x.shape
    if c % (r * r):
        raise ValueError(f"pixel_shuffle: channels must be a multiple of {r} * {r}, but got x {x.shape}")
    b = len(lead)
    squares = reshape(x, (*lead, c // (r * r), r, r, h, w))
    squares = permute(squares, (*range(b), b, b + 3, b + 1, b + 4, b + 2))  # (…, C, H, r, W, r)
    return apart(reshape(squares, (*lead, c // (r * r), h * r, w * r)), x)


def pixel_unshuffle(x: TensorLike, downscale_factor: int) -> Tensor:
    """The inverse of `pixel_shuffle`, r = downscale_factor: (…, C, H·r, W·r) -> (…, C·r·r, H, W).

    Raises `ValueError` if r does not divide both sizes or x has fewer than 3 axes. Any real dtype is allowed.
    """
    x, r = _image("pixel_unshuffle", x), check.integer("pixel_unshuffle", "downscale_factor", downscale_factor, least=1)
    *lead, c, h, w = x.shape
    if h % r or w % r:
        raise ValueError(f"pixel_unshuffle: both sizes must be multiples of {r}, but got x {x.shape}")
    b = len(lead)
    squares = reshape(x, (*lead, c, h // r, r, w // r, r))
    squares = permute(squares, (*range(b), b, b + 2, b + 4, b + 1, b + 3))  # (…, C, r, r, H, W)
    return apart(reshape(squares, (*lead, c * r * r, h // r, w // r)), x)


def _image(op: str, x: TensorLike) -> Tensor:
    x = tensor(op, x)
    if x.ndim < 3:
        raise ValueError(f"{op}: x must have at least 3 axes, (…, C, H, W), but got shape {x.shape}")
    return x
