"""Random changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.transforms.base import ImageTransform, as_pixels, between, check_dtype

__all__ = ["ColorJitter"]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601, as in Pillow and torchvision


class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue of an image at random: (H, W, C) -> (H, W, C), in its dtype.

    A factor is drawn from [1 - b, 1 + b], at least 0, for b = `brightness`, and so for `contrast` and `saturation`;
    `hue`, at most 0.5, is the largest part of a turn of the color wheel. They are applied in this order: to the image;
    to its distance from the mean of its gray values; to each pixel's distance from its own gray value; and to its hue.
    Each result is limited to the range of values, [0, 1] for floats, [0, 255] for bytes, which are rounded at the end.
    torchvision applies them in a random order, and cuts bytes off at each.

    Images have 3 channels, or one: then saturation and hue change nothing.

    Raises ValueError if a number is not in [0, 100], `hue` not in [0, 0.5], or an image has another number of channels,
    TypeError if it is neither of floats nor of bytes.
    """

    draws = 4

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        op = "ColorJitter"
        self.brightness = check.number(op, "brightness", brightness, least=0, most=100)
        self.contrast = check.number(op, "contrast", contrast, least=0, most=100)
        self.saturation = check.number(op, "saturation", saturation, least=0, most=100)
        self.hue = check.number(op, "hue", hue, least=0, most=0.5)

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        check_dtype("ColorJitter", images)
        channels, dtype = images.shape[1], images.dtype
        if channels not in (1, 3):
            raise ValueError(f"ColorJitter: images must have 1 or 3 channels, but got {channels}")
        x = np.divide(images, 255, dtype=np.float32) if dtype == np.uint8 else images
        widths = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (
            between(max(0, 1 - width), 1 + width, numbers[:, i]).astype(x.dtype)[:, None, None, None]
            for i, width in enumerate(widths)
        )
        if self.brightness:
            x = (x * brightness).clip(0, 1)
        if self.contrast:
            gray = np.ascontiguousarray(_gray(x))  # so that the sum does not depend on the memory order
            mean = gray.sum((1, 2, 3), keepdims=True) / x.dtype.type(max(1, gray[:1].size))
            x = (mean + contrast * (x - mean)).clip(0, 1)
        if channels == 3 and self.saturation:
            gray = _gray(x)
            x = (gray + saturation * (x - gray)).clip(0, 1)
        if channels == 3 and self.hue:
            x = _turn_hue(x, between(-self.hue, self.hue, numbers[:, 3]).astype(x.dtype)[:, None, None])
        if x is images:
            return images
        return as_pixels(x * np.float32(255), dtype) if dtype == np.uint8 else x


def _gray(x: HostArray) -> HostArray:
    """The luma of images: (N, 3, H, W) -> (N, 1, H, W); gray images as they are."""
    if x.shape[1] == 1:
        return x
    red, green, blue = LUMA.astype(x.dtype)
    luma: HostArray = red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]
    return luma


def _turn_hue(x: HostArray, turn: HostArray) -> HostArray:
    """Turn the hue of images (N, 3, H, W) in [0, 1] by a part of a turn, in the hexagon of HSV: value, chroma stay."""
    red, green, blue = x[:, 0], x[:, 1], x[:, 2]
    value, least = x.max(1), x.min(1)
    chroma = value - least
    divisor = np.where(chroma > 0, chroma, 1)
    hue = np.where(
        value == red,
        (green - blue) / divisor,
        np.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixths = hue + 6 * turn
    # value - chroma · clip(min(k, 4 - k), 0, 1) with k = (n + sixths) mod 6, n = 5, 3, 1 for red, green and blue
    result = np.empty_like(x)
    for channel, n in enumerate((5, 3, 1)):
        k = (n + sixths) % 6
        result[:, channel] = value - chroma * np.minimum(k, 4 - k).clip(0, 1)
    return result
