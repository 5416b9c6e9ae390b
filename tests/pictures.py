"""Pictures for the tests: random pixels, the files that Pillow writes of them, and the floats that needle reads."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = (5, 4)


def colors(seed=0, size=SIDE, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def write(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.squeeze())
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def floats(pixels):
    """Pixels (H, W, C) as a needle image (C, H, W)."""
    return pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
