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
from needle.ops import abs, broadcast_to, clip, getitem, maximum, minimum, permute, reshape
from needle.ops.operand import tensor

__all__ = ["interpolate", "pixel_shuffle", "pixel_unshuffle"]

LINEAR = ("linear", "bilinear", "trilinear")  # over one, two and three axes
MODES = ("nearest", "nearest-exact", *LINEAR, "area")
AREA = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)


def interpolate(
    x: TensorLike,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Resample x to other sizes: (N, C, *S) -> (N, C, *P), over one to three axes *S.

    Pass either `size` or `scale_factor`, one number for all axes or one per axis. `size` is P, and output p reads at
    input p·S / P; with `scale_factor`, P = floor(scale·S), and output p reads at input p / scale. The modes, if
    elements are unit squares:

    | mode | output |
    |---|---|
    | `"nearest"` | the element under the output's upper corner |
    | `"nearest-exact"` | the element under the output's center |
    | `"linear"`, `"bilinear"`, `"trilinear"` | linear between the nearest centers, over 1, 2, 3 axes |
    | `"area"` | adaptive average pooling |

    `align_corners=True`, for the linear modes, places output p at input p·(S - 1) / (P - 1): the centers of the
    outermost elements coincide.

    Raises `ValueError` if shapes and options do not fit, `TypeError` unless the dtype of x is floating.
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
    if align_corners is not None and mode not in LINEAR:
        raise ValueError(f"{op}: align_corners must be None in mode {mode!r}, but got {align_corners}")
    align_corners = check.instance(op, "align_corners", align_corners or False, bool)
    check.floats(op, x=x)
    output, scales = _output(op, x.shape[2:], size, scale_factor)
    if mode == "area":
        return AREA[rank - 1](x, output)
    for axis, (n, p, scale) in enumerate(zip(x.shape[2:], output, scales, strict=True), 2):
        step = 1 / scale if scale else n / p
        if mode in LINEAR:
            x = _linear(x, axis, p, step, bool(align_corners))
        else:
            x = _nearest(x, axis, p, step, 0.5 if mode == "nearest-exact" else 0.0)
    return x


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
        return _repeat(x, axis, p // n)
    if n % p == 0 and step == n // p:
        return getitem(x, at(axis, slice(int(offset * step), None, n // p)))
    return getitem(x, at(axis, _nearest_index(n, p, step, offset, x.device)))


@lru_cache(maxsize=32)
def _nearest_index(n: int, p: int, step: float, offset: float, device: Device) -> Tensor:
    """floor((i + offset)·step), at most n - 1, for i in [0, p)."""
    position = (init.arange(p, device=device, dtype="float64") + offset) * step
    return minimum(position.astype("float32").astype("int64"), n - 1)  # float32: torch's rounding


def _repeat(x: Tensor, axis: int, count: int) -> Tensor:
    """Each element `count` times along one axis, in batch-last order."""
    source = batch_last(x)  # (…, S, …, N); S is axis `axis` - 1
    before, after = source.shape[:axis], source.shape[axis:]
    repeated = broadcast_to(reshape(source, (*before, 1, *after)), (*before, count, *after))  # (…, S, count, …, N)
    return batch_first(reshape(repeated, (*before[:-1], before[-1] * count, *after)))  # (N, …, S·count, …)


def _linear(x: Tensor, axis: int, p: int, step: float, align_corners: bool) -> Tensor:
    """Along one axis, linear interpolation between elements."""
    n = x.shape[axis]
    if p == n:
        return x
    return matmul_along(x, _hats(n, p, step, align_corners, x.device, compute_dtype(x.dtype)), axis)


@lru_cache(maxsize=16)
def _hats(n: int, p: int, step: float, align_corners: bool, device: Device, dtype: DTypeLike) -> Tensor:
    """The matrix (n, p) whose columns interpolate between n elements: hats of width 2 around the output positions."""
    position = init.arange(p, device=device, dtype="float64")
    if align_corners:
        position = position * ((n - 1) / (p - 1) if p > 1 else 0.0)
    else:
        position = clip((position + 0.5) * step - 0.5, 0, n - 1)
    element = reshape(init.arange(n, device=device, dtype="float64"), (n, 1))
    return maximum(1 - abs(position - element), 0).astype(dtype)


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
    return reshape(squares, (*lead, c // (r * r), h * r, w * r))


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
    return reshape(squares, (*lead, c * r * r, h // r, w // r))


def _image(op: str, x: TensorLike) -> Tensor:
    x = tensor(op, x)
    if x.ndim < 3:
        raise ValueError(f"{op}: x must have at least 3 axes, (…, C, H, W), but got shape {x.shape}")
    return x
