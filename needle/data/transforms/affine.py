"""Rotations and other affine maps of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import ImageTransform, as_pixels, between, channels_of, check_dtype, per_channel

__all__ = ["RandomAffine"]

MODES = ("bilinear", "nearest")
Range = float | tuple[float, float]
BLOCK_PIXELS = 1 << 15  # of the images that are moved at a time, so that what belongs to them stays in the cache


class RandomAffine(ImageTransform):
    """Rotate, shift, scale and shear an image about its center: (H, W, C) -> (H, W, C), in the same dtype.

    `degrees` of the rotation, counterclockwise as of `np.rot90`: a number d for [-d, d], or a range (low, high); so is
    `shear`, in degrees, which moves the rows above the center to the right. `translate` is the largest shift, as a part
    of the sides: a number, or (down, right). `scale` is a factor, or a range. Each is drawn uniformly, for each image;
    scaling and shearing come before the rotation, and shifting after it.

    The center of an image lies at ((H - 1) / 2, (W - 1) / 2). Between pixels `mode` interpolates, "bilinear" or
    "nearest". Outside of the image lies `fill`, a number or one per channel; a mask has 0 there, and keeps its values.
    Bytes are rounded.

    torchvision's `rotate` turns the same way; its `affine` and `RandomAffine` turn clockwise, round shifts to whole
    pixels, and take (right, down).

    Raises ValueError if a range is not one, an angle above 360 degrees, a shear not below 90, `translate` not in [0, 1]
    or `scale` not above 0, or if the images' dtype does not hold `fill`; TypeError if images are neither bytes nor
    floats.

    >>> turn = RandomAffine(degrees=(90, 90))
    >>> turn(np.arange(4, dtype="uint8").reshape(2, 2, 1))[..., 0]
    array([[1, 3],
           [0, 2]], dtype=uint8)
    """

    draws = 5

    def __init__(
        self,
        degrees: Range = 0.0,
        translate: float | tuple[float, float] = 0.0,
        scale: float | tuple[float, float] = 1.0,
        shear: Range = 0.0,
        *,
        mode: str = "bilinear",
        fill: float | Sequence[float] | HostArray = 0,
    ) -> None:
        op = "RandomAffine"
        self.degrees, self.shear = _range("degrees", degrees, most=360), _range("shear", shear, below=90)
        self.scale = _range("scale", (scale, scale) if isinstance(scale, int | float) else scale)
        shifts = translate if isinstance(translate, tuple) else (translate, translate)
        if len(shifts) != 2:
            raise ValueError(f"{op}: translate must be one number or two, but got {len(shifts)}")
        self.translate = tuple(check.number(op, "translate", shift, least=0, most=1) for shift in shifts)
        check.number(op, "scale", self.scale[0], above=0)
        self.mode = check.one_of(op, "mode", mode, MODES)
        self.fill = per_channel(op, "fill", fill)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        fill = channels_of("RandomAffine", "fill", self.fill, images, images.dtype)
        if self.mode == "bilinear":
            check_dtype("RandomAffine", images)
        return sample(images, self._matrices(images, numbers), fill, self.mode)

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        return sample(masks, self._matrices(masks, numbers), 0, "nearest")

    def _matrices(self, images: HostArray, numbers: HostArray) -> HostArray:
        """For each image the map (2, 3) from (row, column, 1) of a new pixel to the place that it comes from."""
        angle = np.radians(between(*self.degrees, numbers[:, 0]))
        shear = np.radians(between(*self.shear, numbers[:, 4]))
        scale = between(*self.scale, numbers[:, 3])
        middle = (np.array(images.shape[2:]) - 1) / 2
        reach = np.array(self.translate) * images.shape[2:]
        shift = between(-reach, reach, numbers[:, 1:3])
        # a point (row, column) goes to scale · turn · (row, column - tan(shear) row); this is the inverse
        cos, sin, tan = np.cos(angle) / scale, np.sin(angle) / scale, np.tan(shear)
        inverse = np.stack([np.stack([cos, sin], -1), np.stack([tan * cos - sin, tan * sin + cos], -1)], 1)
        offset = middle - (inverse @ (middle + shift)[..., None])[..., 0]
        return np.concatenate([inverse, offset[..., None]], -1)


def sample(images: HostArray, matrices: HostArray, fill: HostArray | int, mode: str) -> HostArray:
    """For each pixel of images (N, C, H, W) the value at the place that a matrix (N, 2, 3) maps it to."""
    result = np.empty(images.shape, images.dtype)
    height, width = images.shape[2:]
    step = max(1, BLOCK_PIXELS // max(1, height * width))
    for start in range(0, len(images), step):
        block = slice(start, start + step)
        rows, columns = _places(matrices[block], height, width)
        framed = _framed(images[block], fill)
        if mode == "bilinear":
            result[block] = as_pixels(_interpolate(framed, rows, columns), images.dtype)
        else:
            result[block] = _nearest(framed, rows, columns)
    return result


def _places(matrices: HostArray, height: int, width: int) -> tuple[HostArray, HostArray]:
    """Rows and columns (N, H, W), float32, of the places in `_framed` images; those outside lie on the frame.

    Integers and halves, as of quarter turns, are exact.
    """
    scales = matrices.astype(np.float32)[..., None, None]
    row, column = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    rows, columns = (
        (scales[:, i, 0] * row + (scales[:, i, 2] + np.float32(1))) + scales[:, i, 1] * column for i in (0, 1)
    )
    return np.clip(rows, 0, height + 1, out=rows), np.clip(columns, 0, width + 1, out=columns)


def _framed(images: HostArray, fill: HostArray | int) -> HostArray:
    """Images with a frame of `fill`: one pixel above and left, two below and right."""
    count, channels, height, width = images.shape
    framed = np.empty((count, channels, height + 3, width + 3), images.dtype)
    framed[...] = fill
    framed[:, :, 1:-2, 1:-2] = images
    return framed


def _nearest(framed: HostArray, rows: HostArray, columns: HostArray) -> HostArray:
    """The pixels nearest to the places; of two the lower or right one."""
    half = np.float32(0.5)
    return _at(framed, (rows + half).astype(np.int32), (columns + half).astype(np.int32))(0)


def _interpolate(framed: HostArray, rows: HostArray, columns: HostArray) -> HostArray:
    """Bilinear interpolation of the four pixels around the places."""
    top, left = rows.astype(np.int32), columns.astype(np.int32)  # no place is negative
    down = np.subtract(rows, top, dtype=np.float32)[:, None]
    right = np.subtract(columns, left, dtype=np.float32)[:, None]
    values, width, dtype = _at(framed, top, left), framed.shape[3], np.result_type(framed, np.float32)

    def between(first: int) -> HostArray:
        """Along a row."""
        one = values(first).astype(dtype, copy=False)
        change: HostArray = values(first + 1) - one
        change *= right
        change += one
        return change

    upper, result = between(0), between(width)
    result -= upper
    result *= down
    result += upper
    return result


def _at(framed: HostArray, rows: HostArray, columns: HostArray) -> Callable[[int], HostArray]:
    """A function of an offset in memory, which returns the pixels (N, C, H, W) that lie so far behind the places."""
    count, channels, height, width = framed.shape
    images = np.arange(count * channels).reshape(count, channels, 1, 1) * (height * width)
    places = images + (rows * width + columns)[:, None]
    flat = framed.ravel()
    return lambda offset: flat[offset:].take(places)


def _range(name: str, value: Range, **limits: float) -> tuple[float, float]:
    """A number d as the range from -d to d, or a range as it is, of numbers up to a limit in either direction."""
    op = "RandomAffine"
    if not isinstance(value, tuple | list):
        most = check.number(op, name, value, least=0, **limits)
        return -most, most
    opposite = {{"most": "least", "below": "above"}[limit]: -end for limit, end in limits.items()}
    ends = [check.number(op, name, end, **limits, **opposite) for end in value]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError(f"{op}: {name} must be a number or a range (low, high), but got {value}")
    return ends[0], ends[1]
