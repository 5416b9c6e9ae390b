"""CUDA sources in this folder, how a kernel of them is launched, and how one takes a kernel's place on GPUs.

A source, `*.cu`, is CUDA C with `common.cu` before it and files of this folder that it includes. Arrays are float32, in
the memory order (C, *S, N).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

import numpy as np

from needle import tuning
from needle.backend import device_of
from needle.kernels.layout import Array, batch_last
from needle.kernels.window import Size, Window

__all__ = [
    "LAUNCHERS",
    "NULL",
    "THREADS",
    "Source",
    "blocks",
    "contiguous_batch_last",
    "fits",
    "generic",
    "is_numbered",
    "or_null",
    "replaces",
    "vector_width",
    "window_struct",
]

P = ParamSpec("P")
R = TypeVar("R")
Launcher: TypeAlias = Callable[..., Any]

LAUNCHERS: dict[str, Launcher] = {}  # name of a kernel -> what computes it on GPUs
FLOAT32 = np.dtype("float32")
THREADS = tuning.CUDA_BLOCK_THREADS
NULL = np.uint64(0)  # a pointer
MOST_ELEMENTS = 2**31 - 2**24  # so 32 bits hold the number of an element, and that of a loop's next one behind the last
INCLUDE = re.compile(r'^#include "(\w+\.cu)"\n', re.MULTILINE)  # of a file in this folder
WINDOW = np.dtype([(name, "i4", 3) for name in ("size", "kernel", "output", "stride", "padding", "dilation")])


class Source:
    """A CUDA source of this folder, compiled for a device at its first launch there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._functions: dict[tuple[str, str], Launcher] = {}

    @cached_property
    def text(self) -> str:
        """The source, after what all sources share."""
        return _read("common.cu") + INCLUDE.sub(lambda line: _read(line[1]), _read(self.name))

    def launch(self, like: Array, kernel: str, grid: Size, block: Size, *arguments: Any) -> None:
        """Launch a kernel on the device of `like`: `grid` blocks of `block` threads.

        Arguments are arrays of that device, or scalars of NumPy: `np.int32(3)`, a structure as `np.void`.
        """
        device: Any = device_of(like)
        try:
            function = self._functions[device.name, kernel]
        except KeyError:
            function = self._functions[device.name, kernel] = device.raw_module(self.text).get_function(kernel)
        function(grid, block, arguments)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def replaces(function: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a launcher that takes the place of an `overridable` kernel on GPUs.

    Where it does not serve the dtypes or sizes of its arguments, it calls `generic(function)`.
    """

    def register(launcher: Callable[P, R]) -> Callable[P, R]:
        LAUNCHERS[function.__name__] = launcher
        return launcher

    return register


def generic(function: Callable[P, R]) -> Callable[P, R]:
    """The kernel itself, without what devices put in its place."""
    return cast("Callable[P, R]", vars(function)["__wrapped__"])


def blocks(count: int, threads: int = THREADS) -> Size:
    """The grid of at least `count` threads in blocks of `threads`."""
    return (-(-count // threads),)


def is_numbered(count: int) -> bool:
    """Whether kernels number so many elements, of an array that they read or write; none need no launch."""
    return 0 < count <= MOST_ELEMENTS


def fits(*arrays: Array) -> bool:
    """Whether all are float32 with elements, so few that kernels number them: what most kernels serve."""
    return all(array.dtype == FLOAT32 and is_numbered(array.size) for array in arrays)


def or_null(array: Array | None) -> Any:
    """An array as an argument of a launch: NULL if there is none."""
    return NULL if array is None else array


def vector_width(batch: int) -> int:
    """How many images a thread takes at a time: 4, as one access of 16 bytes, or 1."""
    return 4 if batch % 4 == 0 else 1


def contiguous_batch_last(x: Array) -> Array:
    """x (N, C, *S) as a contiguous (C, *S, N): a view if it lies so in memory, else a copy."""
    source = batch_last(x)
    return source if source.flags.c_contiguous else device_of(x).xp.ascontiguousarray(source)


@lru_cache(maxsize=1024)
def window_struct(window: Window, size: Size, kernel: Size) -> np.void:
    """`Window` of common.cu for at most three axes *S, as one argument; the axes that lack come first."""
    rank = len(size)
    before = tuple(pair[0] for pair in window.padding)
    rows = (size, kernel, window.output(size, kernel), window.stride, before, window.dilation)
    lacking = (1, 1, 1, 1, 0, 1)
    fields = tuple((n,) * (3 - rank) + row for n, row in zip(lacking, rows, strict=True))
    struct: np.void = np.array([fields], WINDOW)[0]
    return struct
