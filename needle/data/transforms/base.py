"""What transforms have in common: random numbers come from outside, and one class serves a batch and one image.

A loader draws `random((N, draws))` for a batch of N, row by row, and hands each transform its columns. So a result
depends on images and numbers alone: a batch is moved as its images would be, one by one in their order, and a part of a
batch as in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import Transform, check_transforms, is_channels_first

__all__ = ["BatchTransform", "Compose", "ImageTransform"]

Fields = tuple[HostArray, ...]  # of a batch: images (N, C, H, W), and labels or masks
Generator = np.random.Generator


class BatchTransform:
    """A transform of the fields of a batch: a subclass defines `apply`, and `draws`, the random numbers per item."""

    draws: int = 0
    mixes: bool = False  # whether an item depends on others of its batch, so that no part can be transformed alone

    def apply(self, fields: Fields, numbers: HostArray) -> Fields:
        """The fields of a batch after the transform; `numbers` (N, draws) lie in [0, 1). Must not write into fields."""
        raise NotImplementedError(f"{type(self).__name__}: a transform must define apply")

    def batch(self, images: HostArray, *others: HostArray, generator: Generator | None = None) -> Any:
        """Transform a batch: images (N, C, H, W), and labels, or masks (N, H, W) that are moved with their images.

        Draws `random((N, draws))` from `generator`, NumPy's global one by default. Returns as many arrays as it gets.
        """
        fields = (images, *others)
        for number, field in enumerate(fields):
            check.instance(type(self).__name__, f"field {number}", field, np.ndarray)
        return _as_given(self.apply(fields, draw(self.draws, len(images), generator)))

    def __call__(self, image: HostArray, *masks: HostArray, generator: Generator | None = None) -> Any:
        """Transform one image; only an `ImageTransform` does."""
        raise TypeError(f"{type(self).__name__}: one image must have a batch around it; give this to a DataLoader")


class ImageTransform(BatchTransform):
    """A transform of each image by itself: a subclass defines `compute`, and `move_masks` if it moves pixels.

    It is called with one image (H, W, C), or with an image and its masks, (H, W) or (H, W, C): `crop(image, mask)`. One
    draw moves them all, and as many are returned. `batch` does the same to images (N, C, H, W). In a batch, a field
    (N, H, W) or (N, C, H, W) of the images' size is a mask, and others, such as labels, stay as they are.

    An image whose first axis can only be channels, such as (3, 32, 32), is refused: it would be flipped upside down. So
    is a batch (N, H, W, C).

    >>> class Negative(ImageTransform):
    ...     def compute(self, images, numbers):
    ...         return 255 - images
    >>> Negative()(np.zeros((1, 2, 1), "uint8")).ravel()
    array([255, 255], dtype=uint8)
    """

    def compute(self, images: HostArray, numbers: HostArray) -> HostArray:
        """Transform images (N, C, H, W) by numbers (N, draws) in [0, 1), without writing into them."""
        raise NotImplementedError(f"{type(self).__name__}: a transform must define compute")

    def move_masks(self, masks: HostArray, numbers: HostArray) -> HostArray:
        """Move masks (N, C, H, W) as their images: values are kept, or 0 from outside."""
        return masks

    def apply(self, fields: Fields, numbers: HostArray) -> Fields:
        images, *others = fields
        op, shape = type(self).__name__, images.shape
        if len(shape) != 4 or is_channels_first(shape[:0:-1]):
            hint = ", N x H x W x C" if len(shape) == 4 else ""
            raise ValueError(f"{op}: images must be N x C x H x W, but got shape {shape}{hint}")
        moved = [
            self._move(field, numbers) if field.ndim in (3, 4) and field.shape[-2:] == shape[2:] else field
            for field in others
        ]
        return self.compute(images, numbers), *moved

    def _move(self, masks: HostArray, numbers: HostArray) -> HostArray:
        """Move masks (N, H, W) or (N, C, H, W)."""
        return self.move_masks(masks, numbers) if masks.ndim == 4 else self.move_masks(masks[:, None], numbers)[:, 0]

    def __call__(self, image: HostArray, *masks: HostArray, generator: Generator | None = None) -> Any:
        shape = _check_image(type(self).__name__, image, *masks)
        numbers = self._draw_globally(shape) if generator is None else draw(self.draws, 1, generator)
        moved = self.compute(image.transpose(2, 0, 1)[None], numbers)[0].transpose(1, 2, 0)
        others = (self.move_masks(np.moveaxis(mask.reshape(*shape[:2], -1), -1, 0)[None], numbers)[0] for mask in masks)
        return _as_given(
            (
                moved,
                *(
                    np.moveaxis(other, 0, -1).reshape(*other.shape[1:], *mask.shape[2:])
                    for other, mask in zip(others, masks, strict=True)
                ),
            )
        )

    def _draw_globally(self, shape: tuple[int, ...]) -> HostArray:
        """The numbers for one image (H, W, C), from NumPy's global generator."""
        return draw(self.draws, 1, None)


class Compose(BatchTransform):
    """Several transforms in order, as one. For a batch, all must be transforms of batches.

    Raises TypeError if `transforms` is not a sequence of callables, or for a batch if one is no `BatchTransform`.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms: Any = check_transforms("Compose", transforms)

    def __call__(self, image: HostArray, *masks: HostArray, generator: Generator | None = None) -> Any:
        options = {} if generator is None else {"generator": generator}
        arrays: tuple[Any, ...] = (image, *masks)
        for transform in self.transforms:
            result = transform(*arrays, **options)
            arrays = result if isinstance(result, tuple) else (result,)
        return _as_given(arrays)

    @property
    def draws(self) -> int:  # type: ignore[override]
        """The random numbers per item of all transforms together."""
        return sum(transform.draws for transform in self._of_batches())

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """Whether one of them mixes the items of a batch."""
        return any(transform.mixes for transform in self._of_batches())

    def apply(self, fields: Fields, numbers: HostArray) -> Fields:
        start = 0
        for transform in self._of_batches():
            fields = transform.apply(fields, numbers[:, start : start + transform.draws])
            start += transform.draws
        return fields

    def _of_batches(self) -> tuple[BatchTransform, ...]:
        return check_batch_transforms("Compose", self.transforms)


def check_batch_transforms(op: str, transforms: Sequence[Any]) -> tuple[BatchTransform, ...]:
    """A sequence of transforms of batches as a tuple."""
    for transform in check_transforms(op, transforms):
        if not isinstance(transform, BatchTransform):
            raise TypeError(f"{op}: transforms of batches must be BatchTransforms, but got {transform!r:.100}")
        if isinstance(transform, Compose):
            check_batch_transforms(op, transform.transforms)
    return tuple(transforms)


def draw(draws: int, count: int, generator: Generator | None) -> HostArray:
    """Numbers (count, draws) in [0, 1); from NumPy's global generator without another."""
    return (generator or np.random).random((count, draws))


def between(low: float, high: float, numbers: HostArray) -> HostArray:
    """Numbers in [0, 1) as numbers in [low, high)."""
    return low + (high - low) * numbers


def steps(count: int, numbers: HostArray) -> HostArray:
    """Numbers in [0, 1) as integers from 0 to `count` - 1."""
    return (numbers * count).astype(np.intp)


def per_channel(op: str, name: str, value: Any) -> HostArray:
    """A number, or one number per channel: shape () or (C,)."""
    array = np.asarray(value)
    if array.ndim > 1 or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{op}: {name} must be a number or one per channel, but got {value!r:.100}")
    return array


def channels_of(op: str, name: str, value: HostArray, images: HostArray, dtype: Any) -> HostArray:
    """A number, or one per channel, to broadcast against images (N, C, H, W)."""
    if value.ndim and len(value) != images.shape[1]:
        channels, *size = images.shape[1:]
        raise ValueError(
            f"{op}: {name} must be numbers or have one for each channel of image {(*size, channels)}, "
            f"but got {len(value)}"
        )
    for entry in value.ravel().tolist():
        check.fits(op, name, entry, np.dtype(dtype))
        if np.dtype(dtype).kind in "iu" and entry % 1:
            raise ValueError(f"{op}: {name} must be an integer for images of {dtype}, but got {entry}")
    return value.astype(dtype)[..., None, None]


def check_dtype(op: str, images: HostArray) -> None:
    """Require images of bytes or floats, whose values can be computed with."""
    if images.dtype.kind != "f" and images.dtype != np.uint8:
        raise TypeError(f"{op}: images must be of uint8 or floats, but got {images.dtype}")


def as_pixels(values: HostArray, dtype: Any) -> HostArray:
    """Computed floats as images of this dtype: rounded for bytes, in [0, 255]."""
    if dtype == np.uint8:
        return np.rint(values, out=values).clip(0, 255).astype(np.uint8)
    return values.astype(dtype, copy=False)


def _as_given(arrays: tuple[Any, ...]) -> Any:
    """An image alone, or the tuple of an image and its masks."""
    return arrays if len(arrays) > 1 else arrays[0]


def _check_image(op: str, image: HostArray, *masks: HostArray) -> tuple[int, ...]:
    """Check that an image has 3 axes with the channels last, and masks of its size; return its shape (H, W, C)."""
    for array in (image, *masks):
        check.instance(op, "an image and its masks", array, np.ndarray)
    shape: tuple[int, ...] = image.shape
    if len(shape) != 3:
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}")
    if is_channels_first(shape):
        raise ValueError(f"{op}: image must be H x W x C, but got shape {shape}, C x H x W; use ImageDataset")
    for mask in masks:
        if mask.shape[:2] != shape[:2]:
            raise ValueError(f"{op}: masks must have the size of the image {shape}, but got shape {mask.shape}")
    return shape
