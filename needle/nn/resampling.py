"""Layers that resample images, and that exchange channels for positions."""

from __future__ import annotations

from collections.abc import Sequence

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.resampling import MODES
from needle.nn.module import Module

__all__ = ["PixelShuffle", "PixelUnshuffle", "Upsample"]


class Upsample(Module):
    """Resample x (N, C, *S), over 1 to 3 axes, to the sizes `size` or to floor(scale_factor · S): (N, C, *P).

    Pass either `size` or `scale_factor`, one number or one per axis. `mode` is "nearest", "nearest-exact",
    "linear", "bilinear" or "trilinear" (for one, two and three axes), "bicubic" or "area"; see `functional.interpolate`
    for what each computes, for `align_corners` and for `recompute_scale_factor`. The result has the dtype of x. Raises
    ValueError if shapes and options do not fit, TypeError if x is not floating-point.
    """

    def __init__(
        self, size: int | Sequence[int] | None = None, scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest", align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.size, self.align_corners, self.recompute_scale_factor = size, align_corners, recompute_scale_factor
        self.mode: str = check.one_of("Upsample", "mode", mode, MODES)
        if isinstance(scale_factor, tuple):
            scale_factor = tuple(map(float, scale_factor))
        elif scale_factor:
            scale_factor = float(scale_factor)
        self.scale_factor = scale_factor

    def forward(self, x: TensorLike) -> Tensor:
        return functional.interpolate(
            x, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
        )

    def extra_repr(self) -> str:
        sizes = f"size={self.size!r}" if self.scale_factor is None else f"scale_factor={self.scale_factor!r}"
        return f"{sizes}, mode={self.mode!r}"


class PixelShuffle(Module):
    """Spread channels over squares of r × r positions, r = upscale_factor: (…, C·r·r, H, W) -> (…, C, H·r, W·r).

    Any dtype. Raises ValueError if r·r does not divide the channels.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network" (2016), equation 4.
    """

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = check.integer("PixelShuffle", "upscale_factor", upscale_factor, least=1)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Gather squares of r × r positions into channels, r = downscale_factor: (…, C, H·r, W·r) -> (…, C·r·r, H, W).

    The inverse of `PixelShuffle`. Any dtype. Raises ValueError if r does not divide both sizes of x.
    """

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = check.integer("PixelUnshuffle", "downscale_factor", downscale_factor, least=1)

    def forward(self, x: TensorLike) -> Tensor:
        return functional.pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"
