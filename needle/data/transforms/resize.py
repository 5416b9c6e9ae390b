"""Scaling images to another size."""

from __future__ import annotations

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import ImageTransform, as_pixels, check_dtype

__all__ = ["Resize"]

MODES = ("bilinear", "nearest")


class Resize(ImageTransform):
    """Scale an image to `size`, (H', W') or a side: (H, W, C) -> (H', W', C), in the same dtype.

    `mode` is "bilinear" or "nearest"; masks are scaled by "nearest". Shrinking bilinearly weighs all pixels that a new
    one covers, by a triangle, as Pillow does; without `antialias` it interpolates between the nearest two along each
    axis. Pixels are squares: the centers of new ones lie at (i + 1/2) H / H' - 1/2. Bytes are rounded, once.

    These are torch's `interpolate(mode="bilinear", antialias=…)` and `mode="nearest-exact"`. Both sides are given: in
    torchvision one number is the shorter side.

    Raises ValueError if `size` is less than 1 or `mode` another, TypeError if bilinear images are neither of bytes nor
    of floats.
    """

    def __init__(self, size: int | tuple[int, int], mode: str = "bilinear", antialias: bool = True) -> None:
        self.size = check.sizes("Resize", "size", size, 2, least=1)
        self.mode = check.one_of("Resize", "mode", mode, MODES)
        self.antialias = check.instance("Resize", "antialias", antialias, bool)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        if self.mode == "nearest":
            return self.move_masks(images, numbers)
        check_dtype("Resize", images)
        result = images
        for axis, n in enumerate(self.size, 2):
            if n != images.shape[axis]:
                result = _interpolate(result, axis, n, self.antialias)
        return result if result is images else as_pixels(result, images.dtype)

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        (height, width), (rows, columns) = masks.shape[2:], self.size
        return masks[:, :, _nearest(height, rows)[:, None], _nearest(width, columns)]


def _nearest(old: int, new: int) -> HostArray:
    """The pixels of `old` in which the centers of `new` lie."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _interpolate(images: HostArray, axis: int, new: int, antialias: bool) -> HostArray:
    """Weighted sums of pixels along one axis: float32, or float64 for float64."""
    old = images.shape[axis]
    dtype = np.float64 if images.dtype == np.float64 else np.float32
    scale = old / new
    reach = max(scale, 1) if antialias else 1.0
    center = (np.arange(new) + 0.5) * scale - 0.5
    first = np.floor(center - reach).astype(np.intp) + 1
    taps = first + np.arange(int(np.ceil(2 * reach)))[:, None]  # (taps, new)
    weights = np.maximum(0, 1 - abs(taps - center) / reach) * ((taps >= 0) & (taps < old))
    weights /= weights.sum(0)
    shape = [1] * images.ndim
    shape[axis] = new
    result: HostArray | None = None
    for tap, weight in zip(taps, weights.astype(dtype), strict=True):
        if weight.any():
            term = np.take(images, tap.clip(0, old - 1), axis) * weight.reshape(shape)
            result = term if result is None else np.add(result, term, out=result)
    assert result is not None
    return result
