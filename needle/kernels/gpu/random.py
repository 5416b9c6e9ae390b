"""Random numbers on GPUs, by key and place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from needle.backend import Device, device_of
from needle.kernels.dropout import Draws, drop
from needle.kernels.gpu.source import THREADS, Source, blocks, fits, generic, is_numbered, replaces
from needle.kernels.layout import Array, is_compact
from needle.kernels.window import Size

MOST_AXES = 6
KEY = np.dtype([("cell", "u8"), ("words", "u4", 2)], align=True)
WALK = np.dtype([("count", "i4"), ("axes", "i4"), ("start", "i4"), ("sizes", "i4", MOST_AXES - 1)]
                + [(name, "i4", MOST_AXES) for name in ("strides", "places")])  # fmt: skip

source = Source("random.cu")


@replaces(drop)
def drop_by_philox(x: Array, p: float, draws: Draws) -> Array:
    device = device_of(x)
    out = device.xp.empty_like(x)
    walk = walk_of(x.shape, x.strides, out.strides, draws) if fits(x) else None
    if walk is None:
        return generic(drop)(x, p, draws)
    most = np.uint32(math.ceil((1 - p) * 2**32) - 1)  # numbers up to this one are kept
    is_plain = walk["axes"] == 1 and walk["strides"][0] == walk["places"][0] == 1 and walk["start"] % 4 == 0
    by_four = is_plain and device.address(x) % 16 == 0  # in accesses of 16 bytes
    kernel, count = ("drop_4", -(-x.size // 4)) if by_four else ("drop_1", x.size)
    arguments = (x, out, walk, _key(device, draws.key), most, np.float32(1 - p))
    source.launch(x, kernel, blocks(count), (THREADS,), *arguments)
    return out


def _key(device: Device, key: Any) -> Any:
    """The structure of that name."""
    struct = np.zeros(1, KEY)
    if device.recognizes(key):
        struct["cell"] = device.address(key)
    else:
        struct["words"] = key & 0xFFFFFFFF, key >> 32
    return struct[0]


@lru_cache(maxsize=1024)
def _walk(shape: Size, strides: Size, out_strides: Size, places: Size, start: int) -> Any:
    """The structure of that name; None if the result has gaps, or x too many axes or elements too far apart."""
    order = sorted((axis for axis, n in enumerate(shape) if n > 1), key=lambda axis: -out_strides[axis])
    if not is_compact(order, shape, out_strides, 4) or any(step % 4 for step in strides):
        return None
    axes: list[tuple[int, int, int]] = []  # size, and strides in x and in the numbers
    for axis in order:
        n, step, place = shape[axis], strides[axis] // 4, places[axis]
        if axes and axes[-1][1:] == (n * step, n * place):  # adjacent in both: one axis
            axes[-1] = axes[-1][0] * n, step, place
        else:
            axes.append((n, step, place))
    axes = axes or [(1, 1, 1)]
    if len(axes) > MOST_AXES or sum((n - 1) * abs(step) for n, step, _ in axes) >= 2**31:
        return None
    rows = [_filled([n for n, _, _ in axes[1:]], 1, MOST_AXES - 1)]
    rows += [_filled([entry[i] for entry in axes], 0, MOST_AXES) for i in (1, 2)]
    return np.array([(math.prod(shape), len(axes), start, *rows)], WALK)[0]


def walk_of(shape: Size, strides: Size, out_strides: Size, draws: Draws) -> Any:
    """How `draws` are taken by x of that shape and strides."""
    if not is_numbered(math.prod(draws.shape)):
        return None
    sizes, places, start, place = draws.shape, [0] * len(shape), 0, 1
    for axis in reversed(range(len(sizes))):
        places[axis] = place if sizes[axis] > 1 else 0
        if draws.part is not None and axis == draws.part.axis:
            start = draws.part.start * place
        place *= sizes[axis]
    return _walk(shape, strides, out_strides, tuple(places), start)


def _filled(numbers: Sequence[int], rest: int, count: int) -> tuple[int, ...]:
    return (*numbers, *(rest,) * (count - len(numbers)))
