"""Images of another size, and channels exchanged for positions, under torch's names."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check
from needle.nn.functional.pool import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from needle.ops import broadcast_to, getitem, permute, reshape
from needle.ops.conv import check_floats
from needle.ops.linalg import matmul_along
from needle.ops.operand import tensor

LINEAR = ("linear", "bilinear", "trilinear")  # over one, two and three axes
MODES = ("nearest", "nearest-exact", *LINEAR, "area")
AREA = (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)


def interpolate(x, size=None, scale_factor=None, mode="nearest", align_corners=None):
    """x resampled to other sizes: (N, C, *S) -> (N, C, *P).

    Either `size` or `scale_factor` is given, one for all axes or one for each; with `scale_factor`, P = floor(scale·S),
    and output p lies at input p / scale, or else at p·S / P. Elements are squares: "nearest" takes that of the output's
    upper corner, "nearest-exact" that of its centre, and the linear modes ("linear", "bilinear", "trilinear" for one,
    two, three axes) interpolate between centres, or, with `align_corners=True`, between the centres of the outermost
    elements, p·(S - 1) / (P - 1). "area" is adaptive average pooling.

    Raises ValueError where shapes and options do not fit, TypeError where x is not of floats.
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
    check_floats(op, x=x)
    output, scales = _output(op, x.shape[2:], size, scale_factor)
    if mode == "area":
        return AREA[rank - 1](x, output)
    for axis, (n, p, scale) in enumerate(zip(x.shape[2:], output, scales, strict=True), 2):
        step = 1 / scale if scale else n / p
        if mode in LINEAR:
            x = _linear(x, axis, p, step, align_corners)
        else:
            x = _nearest(x, axis, p, step, 0.5 if mode == "nearest-exact" else 0.0)
    return x


def _output(op, size, given, factor):
    """The sizes of the output, and the scale given for each axis, if any."""
    rank = len(size)
    if (given is None) == (factor is None):
        raise ValueError(f"{op}: either size or scale_factor must be given, but got {given} and {factor}")
    if factor is None:
        return check.sizes(op, "size", given, rank, least=1), (None,) * rank
    factors = tuple(factor) if isinstance(factor, Sequence) and not isinstance(factor, str) else (factor,) * rank
    if len(factors) != rank:
        raise ValueError(f"{op}: scale_factor must be one number or {rank}, but got {len(factors)}: {factors}")
    factors = tuple(check.number(op, "scale_factor", f, least=0) for f in factors)
    if not all(1 <= n * f < math.inf for n, f in zip(size, factors, strict=True)):
        raise ValueError(
            f"{op}: scale_factor must leave at least one element, and be finite, but got {factor} for {size}"
        )
    return tuple(int(n * f) for n, f in zip(size, factors, strict=True)), factors


def _nearest(x, axis, p, step, centre):
    """Along one axis the elements at floor((place + centre)·step); the sizes are mostly multiples of each other."""
    n, lead = x.shape[axis], (slice(None),) * axis
    if p % n == 0 and step == n / p:
        return _repeat(x, axis, p // n)
    if n % p == 0 and step == n // p:
        return getitem(x, (*lead, slice(int(centre * step), None, n // p)))
    places = (x.device.xp.arange(p) + centre) * step
    index = x.device.xp.minimum(places.astype("float32").astype("int64"), n - 1)  # float32, as torch rounds
    return getitem(x, (*lead, x.make_const(index)))


def _repeat(x, axis, count):
    """Each element `count` times along one axis, in batch-innermost order."""
    inner = permute(x, (*range(1, x.ndim), 0))
    before, after = inner.shape[:axis], inner.shape[axis:]
    wide = broadcast_to(reshape(inner, (*before, 1, *after)), (*before, count, *after))
    whole = reshape(wide, (*before[:-1], before[-1] * count, *after))
    return permute(whole, (x.ndim - 1, *range(x.ndim - 1)))


def _linear(x, axis, p, step, align_corners):
    """Along one axis a product with the matrix whose columns are hats of width 2 around the places of the output."""
    n = x.shape[axis]
    if p == n:
        return x
    places = x.device.xp.arange(p)
    if align_corners:
        places = places * ((n - 1) / (p - 1) if p > 1 else 0.0)
    else:
        places = x.device.xp.clip((places + 0.5) * step - 0.5, 0, n - 1)
    distance = x.device.xp.abs(places - x.device.xp.arange(n)[:, None])
    return matmul_along(x, x.device.xp.maximum(1 - distance, 0), axis)


def pixel_shuffle(x, upscale_factor):
    """Channels spread over squares of r × r positions, r = upscale_factor: (…, C·r·r, H, W) -> (…, C, H·r, W·r).

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (2016), equation 4. Raises ValueError where r·r does not divide the channels.
    """
    x, r = _image("pixel_shuffle", x), check.integer("pixel_shuffle", "upscale_factor", upscale_factor, least=1)
    *lead, c, h, w = x.shape
    if c % (r * r):
        raise ValueError(f"pixel_shuffle: channels must be a multiple of {r} * {r}, but got x {x.shape}")
    b = len(lead)
    squares = permute(reshape(x, (*lead, c // (r * r), r, r, h, w)), (*range(b), b, b + 3, b + 1, b + 4, b + 2))
    return reshape(squares, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(x, downscale_factor):
    """The inverse of `pixel_shuffle`, r = downscale_factor: (…, C, H·r, W·r) -> (…, C·r·r, H, W).

    Raises ValueError where r does not divide both sizes.
    """
    x, r = _image("pixel_unshuffle", x), check.integer("pixel_unshuffle", "downscale_factor", downscale_factor, least=1)
    *lead, c, h, w = x.shape
    if h % r or w % r:
        raise ValueError(f"pixel_unshuffle: both sizes must be multiples of {r}, but got x {x.shape}")
    b = len(lead)
    squares = permute(reshape(x, (*lead, c, h // r, r, w // r, r)), (*range(b), b, b + 2, b + 4, b + 1, b + 3))
    return reshape(squares, (*lead, c * r * r, h // r, w // r))


def _image(op, x):
    x = tensor(op, x)
    if x.ndim < 3:
        raise ValueError(f"{op}: x must have at least 3 axes, (…, C, H, W), but got shape {x.shape}")
    return x
