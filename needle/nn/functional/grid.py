"""Sampling of images at the points of a grid, and grids of affine maps, under torch's names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike, compute_dtype
from needle.kernels import Size
from needle.nn.functional.resampling import cubic_weight
from needle.ops import (
    abs,
    broadcast_to,
    clip,
    equal,
    floor,
    fmod,
    getitem,
    greater_equal,
    hardtanh,
    isfinite,
    isnan,
    less,
    less_equal,
    matmul,
    pad,
    permute,
    reshape,
    round,
    stack,
    where,
)
from needle.ops.arithmetic import as_dtype
from needle.ops.operand import tensor

__all__ = ["affine_grid", "grid_sample"]


def affine_grid(theta: TensorLike, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The points that affine maps theta (N, r, r + 1) give to the elements of images (N, C, *P): (N, *P, r).

    `size` is (N, C, *P), with r = 2 or 3 axes *P. The elements lie in [-1, 1] along each axis, their centers as in
    `grid_sample`; coordinates come in the order x, y, z, where x runs along the last axis.

    Raises `ValueError` if shapes do not fit together or a size is not positive, `TypeError` unless the dtype of theta
    is floating.

    Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks" (2015), equation 1.
    """
    op = "affine_grid"
    theta = tensor(op, theta)
    check.floats(op, theta=theta)
    check.instance(op, "size", size, Sequence)
    n, _, *points = check.sizes(op, "size", tuple(size), len(size), least=1) if len(size) in (4, 5) else (0, 0)
    rank = len(points)
    if not rank or theta.shape != (n, rank, rank + 1):
        raise ValueError(
            f"{op}: theta (N, r, r + 1) and a size of N, C and r = 2 or 3 axes are needed, but got {theta.shape} and "
            f"{tuple(size)}"
        )
    align_corners = check.instance(op, "align_corners", align_corners or False, bool)
    dtype = compute_dtype(theta.dtype)
    base = _base_grid(tuple(points), bool(align_corners), theta.device, dtype)
    grid = matmul(base, permute(as_dtype(theta, dtype), (0, 2, 1)))  # (N, P, r)
    return as_dtype(reshape(grid, (n, *points, rank)), theta.dtype)


@lru_cache(maxsize=16)
def _base_grid(points: Size, align_corners: bool, device: Device, dtype: DTypeLike) -> Tensor:
    """The centers of elements in [-1, 1] and a last coordinate of 1: (P, r + 1)."""
    rank, columns = len(points), []
    for axis, n in reversed(list(enumerate(points))):
        element = init.arange(n, device=device, dtype="float64")
        center = element * (2 / max(n - 1, 1)) - (n > 1) if align_corners else (element * 2 + 1) / n - 1
        column = reshape(center, (1,) * axis + (n,) + (1,) * (rank - 1 - axis))
        columns.append(reshape(broadcast_to(column, points), (-1,)))
    return stack([*columns, init.ones(math.prod(points), device=device, dtype="float64")], 1).astype(dtype)


def grid_sample(
    x: TensorLike,
    grid: TensorLike,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The values of x (N, C, *S) at the points of grid (N, *P, r), over r = 2 or 3 axes: (N, C, *P).

    Coordinates come in the order x, y, z, where x runs along the last axis; -1 and 1 are the outer edges of the first
    and the last element, or their centers with `align_corners=True`. The modes:

    | mode | value |
    |---|---|
    | `"bilinear"` | linear between the 4, or 8, nearest centers |
    | `"nearest"` | the nearest element; of two, the one with the even index. No gradient flows into the grid |
    | `"bicubic"` | cubic through the 16 nearest centers, over 2 axes |

    Beyond the image there are zeros, or with the `padding_mode` `"border"` the elements at the border, with
    `"reflection"` the image reflected at its edges (their centers with `align_corners`).

    Raises `ValueError` if shapes or options do not fit together, `TypeError` unless both share one floating dtype.

    Jaderberg, Simonyan, Zisserman and Kavukcuoglu, "Spatial Transformer Networks" (2015), equations 3 to 7; Keys,
    "Cubic Convolution Interpolation for Digital Image Processing" (1981), equation 15 with a = -3/4.
    """
    op = "grid_sample"
    x = tensor(op, x)
    grid = tensor(op, grid, x)
    rank, size = x.ndim - 2, x.shape[2:]
    if rank not in (2, 3) or grid.ndim != x.ndim or grid.shape[0] != x.shape[0] or grid.shape[-1] != rank:
        raise ValueError(
            f"{op}: x (N, C, *S) and grid (N, *P, r), with r = 2 or 3 axes, are needed, but got {x.shape} and "
            f"{grid.shape}"
        )
    if 0 in size:
        raise ValueError(f"{op}: the sizes of x must be at least 1, but got {x.shape}")
    check.one_of(op, "mode", mode, ("bilinear", "nearest", "bicubic"))
    check.one_of(op, "padding_mode", padding_mode, ("zeros", "border", "reflection"))
    if mode == "bicubic" and rank != 2:
        raise ValueError(f"{op}: mode 'bicubic' needs an x with 4 axes, but got shape {x.shape}")
    align_corners = bool(check.instance(op, "align_corners", align_corners or False, bool))
    check.floats(op, x=x, grid=grid)
    return sampled(x, grid, mode, padding_mode, align_corners)


def sampled(x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    """`grid_sample` of checked arguments, over any number of axes; in the mode "nearest" x may be of any dtype."""
    size, (n, *points, rank) = x.shape[2:], grid.shape
    dtype = compute_dtype(x.dtype if x.dtype.kind == "f" else grid.dtype)
    wide = reshape(as_dtype(grid, dtype), (n, math.prod(points), rank))
    places = []
    for axis, s in enumerate(size):
        center = wide[:, :, rank - 1 - axis]
        places.append((center + 1) * ((s - 1) / 2) if align_corners else ((center + 1) * s - 1) * 0.5)
    return reshape(sampled_at(x, places, mode, padding_mode, align_corners), (*x.shape[:2], *points))


def sampled_at(
    x: Tensor,
    places: Sequence[Tensor],
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool = False,
) -> Tensor:
    """The values of x (N, C, *S) at places (N, P) along each axis, where element i has its center at i: (N, C, P)."""
    (n, c), size = x.shape[:2], x.shape[2:]
    taps = [_taps(place, s, mode, padding_mode, align_corners) for place, s in zip(places, size, strict=True)]
    area = math.prod(size)
    wide = reshape(as_dtype(x, compute_dtype(x.dtype)), (n * c, area))
    rows = reshape(pad(wide, ((0, 0), (0, 1))), (-1,))  # the last element stands for all outside
    start = reshape(init.arange(n * c, device=x.device) * (area + 1), (n, c, 1))
    terms = [_term(rows, start, size, tap) for tap in itertools.product(*taps)]
    return as_dtype(sum(terms[1:], terms[0]), x.dtype)


class _Tap(NamedTuple):
    """One of the elements along an axis that are read: its place (N, P), whether that is in the image, its weight."""

    place: Tensor
    inside: Tensor
    weight: Tensor | None


def _term(elements: Tensor, start: Tensor, size: Size, taps: tuple[_Tap, ...]) -> Tensor:
    """The elements at one tap of each axis times their weights: (N, C, P)."""
    index, inside, weight = taps[0]
    for (place, also_inside, also_weight), s in zip(taps[1:], size[1:], strict=True):
        index, inside = index * s + place, inside * also_inside
        if weight is not None and also_weight is not None:
            weight = weight * also_weight
    n, count = index.shape
    index = start + reshape(where(inside, index, math.prod(size)), (n, 1, count))
    values = reshape(getitem(elements, reshape(index, (-1,))), index.shape)  # NumPy adds faster at flat indices
    return values if weight is None else values * reshape(weight, (n, 1, count))


def _taps(place: Tensor, n: int, mode: str, padding_mode: str, align_corners: bool) -> list[_Tap]:
    """What is read along an axis of n elements at the places (N, P)."""
    if mode == "bicubic":
        place = _finite(place) if padding_mode == "reflection" else clip(place, -4, n + 3)
        first = floor(place.detach())
        around = ((first + i, cubic_weight(place - (first + i), -0.75)) for i in range(-1, 3))
        return [_tap(_padded(index, n, padding_mode, align_corners), n, weight) for index, weight in around]
    place = _padded(place, n, padding_mode, align_corners)
    if mode == "nearest":
        return [_tap(round(place.detach()), n, None)]
    first = floor(place.detach())
    return [_tap(first, n, first + 1 - place), _tap(first + 1, n, place - first)]


def _tap(index: Tensor, n: int, weight: Tensor | None) -> _Tap:
    inside = greater_equal(index, 0) * less_equal(index, n - 1)
    return _Tap(where(inside, index, 0.0).astype("int64"), inside, weight)


def _padded(place: Tensor, n: int, padding_mode: str, align_corners: bool) -> Tensor:
    """Places beyond the image as those whose values they take; for zeros, limited to where no value is read."""
    if padding_mode == "zeros":
        return clip(place, -4, n + 3)
    if padding_mode == "border":
        place = where(isnan(place), 0.0, place)
    else:
        place = _reflected(_finite(place), *((0.0, n - 1) if align_corners else (-0.5, n)))
    return hardtanh(place, 0, n - 1)


def _finite(place: Tensor) -> Tensor:
    return where(isfinite(place), place, 0.0)


def _reflected(place: Tensor, low: float, span: int) -> Tensor:
    """Places folded into [low, low + span] by reflections at both ends."""
    if not span:
        return place * 0
    fixed = place.detach()
    distance = abs(fixed - low)
    rest, is_odd = fmod(distance, span), equal(fmod(floor(distance / span), 2), 1)
    slope = (1 - 2 * as_dtype(less(fixed, low), place.dtype)) * (1 - 2 * as_dtype(is_odd, place.dtype))
    return slope * place + (where(is_odd, span - rest, rest) + low - slope * fixed)
