"""A folder of pictures by class as datasets: FOLDER/cat/*.jpg, FOLDER/dog/*.png … Needs Pillow (.[apps]).

Or the folder is divided: FOLDER/train/cat/…, and FOLDER/val/cat/… and FOLDER/test/cat/…, one of them or both.

Pictures are read at once, so that a broken one is named before a run begins, and held as float32. Every mode becomes
gray or RGB: palettes are looked up, transparent pixels lie on white, 16-bit gray keeps its fine steps, CMYK and other
color spaces are converted, the first frame of an animation counts, and a photograph is turned as its EXIF data say.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

import errors
from needle.data import ImageDataset

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError as error:
    errors.leave(f"image_folder: Pillow must be installed, by pip install -e '.[apps]', but: {error}", 2)

__all__ = ["ImageSets", "read_folder", "read_image"]

LARGEST = 2**32  # bytes of a set; 7,000 RGB pictures of 224x224 take this
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
GRAY = ("1", "L", "LA", "La")
COLORED = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
SETS = ("train", "val", "test")
OP = "image_folder"
Size = int | tuple[int, int]
Array = np.ndarray


class ImageSets(NamedTuple):
    """The sets of a folder: images (N, C, H, W) in [0, 1] and int64 labels; and the names of the classes, in order.

    `val` and `test` are None where the folder has none.
    """

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None
    classes: tuple[str, ...]


# ---- folders ---------------------------------------------------------------------------------------------------------


def read_folder(folder: Path | str, size: Size | None = None, channels: int | None = None) -> ImageSets:
    """Read all pictures of a folder. Classes are in the order of their names, and so are the pictures of a class.

    All pictures must have one size; with `size`, (H, W) or the side, each is scaled until it covers that, and what is
    over is cut off on both sides. `channels` is 1 for gray or 3 for RGB; by default it is 1 if all pictures are gray.
    Other files in the folder of a class are ignored, and so are names that begin with a dot.

    Raises OSError if a folder or a file cannot be read, and ValueError, with its name, if a picture is broken or has
    too many pixels, if pictures differ in size, if there are fewer than two classes, a class without pictures or other
    classes in another set, and if a set takes more memory than 4 GiB.
    """
    folder = Path(folder)
    names = _folders(folder)
    is_divided = "train" in names and {*names} <= {*SETS}
    roots = {name: folder / name for name in SETS if name in names} if is_divided else {"train": folder}
    classes = _classes(roots)
    sets, first = {}, None
    for name, root in roots.items():
        paths, labels = _pictures(root, classes)
        images = []
        for path in paths:
            images.append(_pixels(path, size, channels))
            first = first or (path, images[0].shape[1:])
            height, width = images[-1].shape[1:]
            _check_fit(path, (channels or len(images[-1]), height, width), first, root, len(paths))
        sets[name] = images, np.array(labels)
    count = channels or max(len(image) for images, _ in sets.values() for image in images)
    made = {name: ImageDataset(_floats(images, count), labels) for name, (images, labels) in sets.items()}
    return ImageSets(made["train"], made.get("val"), made.get("test"), classes)


def _folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted."""
    return [path.name for path in _entries(folder) if path.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden entries."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise type(error)(f"{OP}: folder must be one that can be read, but {folder}: {error.strerror}") from error


def _classes(roots: dict[str, Path]) -> tuple[str, ...]:
    """The names of the classes, the same in all sets."""
    classes = _folders(roots["train"])
    if len(classes) < 2:
        found = f"one, {classes[0]}" if classes else "none"
        raise ValueError(
            f"{OP}: a set must have at least two classes, a folder of pictures each, but {roots['train']} has {found}"
        )
    for root in roots.values():
        if differing := {*_folders(root)} ^ {*classes}:
            raise ValueError(
                f"{OP}: sets must have the same classes, but {roots['train']} and {root} differ in "
                f"{', '.join(sorted(differing)):.200}"
            )
    return tuple(classes)


def _pictures(root: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    """The paths of the pictures of a set, and the number of each one's class."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        entries = _entries(root / name)
        for path in entries:
            if path.is_dir():
                raise ValueError(f"{OP}: the folder of a class must hold pictures only, but {path} is a folder")
        found = [path for path in entries if path.suffix.lower() in SUFFIXES]
        if not found:
            raise ValueError(
                f"{OP}: a class must have at least one picture ({' '.join(SUFFIXES)}), but {root / name} has none"
            )
        paths += found
        labels += [label] * len(found)
    return paths, labels


def _check_fit(path: Path, shape: tuple[int, ...], first: tuple[Path, tuple[int, ...]], root: Path, count: int) -> None:
    """Check that a picture (C, H, W) has the size of the first one, and that `count` such pictures fit into memory."""
    if shape[1:] != first[1]:
        (height, width), (first_height, first_width) = shape[1:], first[1]
        raise ValueError(
            f"{OP}: pictures must have one size, or a size must be given to scale them to, "
            f"but {first[0]} is {first_height}x{first_width} and {path} {height}x{width} (height x width)"
        )
    if 4 * count * math.prod(shape) > LARGEST:
        raise ValueError(
            f"{OP}: a set must take at most {LARGEST >> 20} MiB, but {root} holds {count} pictures of "
            f"{'x'.join(map(str, shape))} and takes {4 * count * math.prod(shape) >> 20}; a smaller size takes less"
        )


# ---- pictures --------------------------------------------------------------------------------------------------------


def read_image(path: Path | str, size: Size | None = None, channels: int | None = None) -> Array:
    """Read a picture as float32 (C, H, W) in [0, 1]. Arguments and errors as in `read_folder`."""
    pixels = _pixels(Path(path), size, channels)
    return _floats([pixels], channels or len(pixels))[0]


def _floats(images: list[Array], channels: int) -> Array:
    """Stack pictures of values in [0, 255] and divide by 255: float32 (N, C, H, W); `images` is emptied."""
    result = np.empty((len(images), channels, *images[0].shape[1:]), np.float32)
    for position in reversed(range(len(images))):
        np.divide(images.pop(), 255, out=result[position], dtype=np.float32)  # gray is written to all channels
    return result


def _pixels(path: Path, size: Size | None, channels: int | None) -> Array:
    """The values of a picture in [0, 255], (1, H, W) or (3, H, W): uint8, or float32 if it has 16 bits."""
    height, width = (size, size) if isinstance(size, int) else size or (1, 1)
    if min(height, width) < 1 or channels not in (None, 1, 3):
        raise ValueError(f"{OP}: size must be at least 1 and channels 1 or 3, but got size={size}, channels={channels}")
    image = _convert(path, *_decode(path), channels)
    if size is not None:
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)  # it keeps values in their range
    pixels: Array = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _decode(path: Path) -> tuple[Image.Image, str | None]:
    """The first frame of a picture, turned upright, and its format. A file may lie, be cut off, or be a bomb."""
    if not path.is_file():  # a FIFO would be waited for
        raise OSError(f"{OP}: a picture must be a file, but {path} is none")
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow says of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(file, formats=FORMATS)
            image.load()
            return ImageOps.exif_transpose(image), image.format
        except UnidentifiedImageError as error:
            raise ValueError(f"{OP}: a picture must be one of {', '.join(FORMATS)}, but {path} is not") from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            most = Image.MAX_IMAGE_PIXELS
            raise ValueError(f"{OP}: a picture must have at most {most} pixels, but {path} has more") from error
        except Exception as error:  # a broken file may raise anything
            if isinstance(error, OSError) and error.errno is not None:  # the system's
                raise
            raise ValueError(f"{OP}: a picture must be whole, but {path} is broken: {error!r:.200}") from error


def _convert(path: Path, image: Image.Image, kind: str | None, channels: int | None) -> Image.Image:
    """A picture in gray ("L", or "F" from 16 bits; values in [0, 255]) or in RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return Image.fromarray(np.asarray(image, np.float32) * np.float32(255 / 65535))
    if image.mode not in GRAY + COLORED:
        raise ValueError(f"{OP}: a picture must be gray or RGB, or a form of these, but {path} has mode {image.mode}")
    is_gray = channels == 1 or image.mode in GRAY
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_gray else "RGB")
