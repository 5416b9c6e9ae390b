"""Pictures in files, decoded by Pillow: of any mode and size, broken or hostile, to floats (C, H, W)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.files import Path, open_file

__all__ = ["read_image"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_GRAY = ("1", "L", "LA", "La")
_COLORED = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")


def read_image(path: Path, size: int | Sequence[int] | None = None, channels: int | None = None) -> HostArray:
    """Read a picture as float32 (C, H, W) in [0, 1]. Needs Pillow: `pip install 'needle-dl[data]'`.

    With `size`, (H, W) or the side, it is scaled until it covers that, and what is over is cut off on both sides.
    `channels` is 1 for gray or 3 for RGB; by default it is 1 if the picture is gray.

    The format is that of the content: PNG, JPEG, BMP, GIF, WebP, TIFF or PPM. A photograph is turned as its EXIF data
    say. Palettes are looked up, transparent pixels lie on white, 16-bit gray keeps its fine steps (of 16-bit colors
    Pillow reads the upper halves), CMYK and other color spaces are converted, and the first frame of an animation
    counts.

    Raises OSError (FileNotFoundError, …) if the file cannot be read, ImportError without Pillow, and ValueError, with
    the path, if it is in no such format or mode, is cut off or broken, or announces more pixels than Pillow's
    `Image.MAX_IMAGE_PIXELS`, 89 million; nothing is decoded then.
    """
    op = "read_image"
    shape = None if size is None else check.sizes(op, "size", size, 2, least=1)
    check.one_of(op, "channels", channels, (None, 1, 3))
    pixels = _pixels(op, path, shape, channels)
    image = np.divide(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), 255, dtype=np.float32, order="C")
    return np.repeat(image, 3, 0) if channels == 3 and len(image) == 1 else image  # from 16 bits


def _pixels(op: str, path: Path, shape: tuple[int, ...] | None, channels: int | None) -> HostArray:
    """The values of a picture in [0, 255], (H, W) or (H, W, 3): uint8, or float32 if it has 16 bits."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(f"{op}: pictures need Pillow, by pip install 'needle-dl[data]', but: {error}") from error
    image = _convert(op, path, *_decode(op, path), channels)
    if shape is not None:
        image = ImageOps.fit(image, shape[::-1], Image.Resampling.BILINEAR)  # it keeps values in their range
    return np.asarray(image)


def _decode(op: str, path: Path) -> tuple[Any, str | None]:
    """The first frame of a picture, turned upright, and its format. A file may lie, be cut off, or be a bomb."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    most = Image.MAX_IMAGE_PIXELS
    bombs = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    with open_file(op, path) as file:
        try:
            image = Image.open(cast(BinaryIO, _Bounded(file)), formats=_FORMATS)
            if most is not None and image.width * image.height > most:
                raise Image.DecompressionBombError
            image.load()
            return ImageOps.exif_transpose(image), image.format
        except UnidentifiedImageError as error:
            raise ValueError(f"{op}: a picture must be one of {', '.join(_FORMATS)}, but {path} is not") from error
        except bombs as error:  # a warning where the user made errors of warnings
            raise ValueError(f"{op}: a picture must have at most {most} pixels, but {path} has more") from error
        except Exception as error:  # a broken file may raise anything
            if isinstance(error, OSError) and error.errno is not None:  # the system's
                raise
            raise ValueError(f"{op}: a picture must be whole, but {path} is broken: {error!r:.200}") from error


class _Bounded:
    """A file of which no more is asked than is left. Pillow asks for what a file announces, and Python makes room."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.end = file, file.seek(0, os.SEEK_END)
        self.seek, self.tell = file.seek, file.tell
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        left = max(self.end - self.tell(), 0)
        return self.file.read(left if size < 0 else min(size, left))


def _convert(op: str, path: Path, image: Any, kind: str | None, channels: int | None) -> Any:
    """A picture in gray ("L", or "F" from 16 bits; values in [0, 255]) or in RGB."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray(np.asarray(image, np.float32) * np.float32(255 / 65535))
    if image.mode not in _GRAY + _COLORED:
        raise ValueError(f"{op}: a picture must be gray or RGB, or a form of these, but {path} has mode {image.mode}")
    is_gray = channels == 1 or image.mode in _GRAY
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_gray else "RGB")
