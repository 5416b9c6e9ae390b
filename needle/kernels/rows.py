"""Arrays as rows that lie contiguous in memory, and elementwise work on stretches of the outermost axis, on threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

from needle.backend import device_of, xp
from needle.kernels.layout import Array, part_of

MANY_TERMS, LONGEST_SUM = 1 << 14, 1 << 16  # elements from which on BLAS sums them, and in a sum at most
SHARED_BYTES = 6 << 20  # of a result from which on threads share its making: below it a hand-over takes what it saves
BUFFER, WHOLE_BUFFER = 512, 8192  # elements in the buffer of NumPy's ufuncs: the one for short rows, and the default


class Rows:
    """Arrays seen as (R, M), whose rows lie one after the other in memory, each of them contiguous."""

    def __init__(self, shape: tuple[int, ...], order: list[int], kept: int) -> None:
        turned = tuple(shape[i] for i in order)
        self.shape, self.order, self.inverse = turned, order, [order.index(i) for i in range(len(order))]
        self.count, self.length = math.prod(turned[:kept]), math.prod(turned[kept:])
        self.form = tuple(n if i in order[:kept] else 1 for i, n in enumerate(shape))

    @staticmethod
    def of(x: Array, axes: tuple[int, ...]) -> Rows | None:
        """Those of x, one for each place on the axes that are not in `axes` (none negative); None if it lies not so.

        Arrays of integers and of halves have none: their sums are not for BLAS.
        """
        if x.dtype.kind != "f" or x.dtype.itemsize < 4:
            return None
        return _rows(x.shape, x.strides, x.itemsize, axes)

    def view(self, x: Array) -> Array:
        """The rows of an array, (R, M): a view if it lies in memory as that for which they were found."""
        return x.transpose(self.order).reshape(self.count, self.length)

    def column(self, x: Array) -> Array | None:
        """What broadcasts to the array as (R, 1), or None where it is not the same along each row."""
        if x.shape != self.form:
            whole = (1,) * (len(self.form) - x.ndim) + x.shape
            if any(n > m for n, m in zip(whole, self.form, strict=True)):
                return None
            x = xp(x).broadcast_to(x, self.form)
        return x.reshape(self.count, 1)

    def whole(self, rows: Array) -> Array:
        """The array of rows, a view."""
        return rows.reshape(self.shape).transpose(self.inverse)

    def apply(self, work: Callable[..., Sequence[Array]], arrays: Sequence[Array], columns: Sequence[Array]) -> Any:
        """What `work(*rows, *columns, out=rows)` gives, an array and then columns, done by stretches of rows.

        A stretch stays in cache for all passes over it, and from 1 MiB on threads share the stretches.
        """
        parts = [*map(self.view, arrays), *columns]
        out = xp(parts[0]).empty(parts[0].shape, parts[0].dtype)
        short = BUFFER <= self.length < WHOLE_BUFFER and hasattr(xp(out), "setbufsize")  # CuPy has no such buffer
        with _short_buffer(out) if short else nullcontext():
            found = self._apply(work, parts, out)
        return self.whole(out), *(column.reshape(self.form) for column in found)

    def _apply(self, work: Callable[..., Sequence[Array]], parts: Sequence[Array], out: Array) -> Iterable[Array]:
        device = device_of(out)
        stretches = device.chunks(self.count, out.nbytes // self.count, out.nbytes >= 1 << 20)
        results: dict[int, Sequence[Array]] = {}

        def make(stretch: slice) -> None:
            results[stretch.start] = work(*(part[stretch] for part in parts), out=out[stretch])[1:]

        device.parallel_for(make, stretches)
        if len(stretches) == 1:
            return results[0]
        return map(xp(out).concatenate, zip(*(results[stretch.start] for stretch in stretches), strict=True))


@contextmanager
def _short_buffer(x: Array) -> Iterator[None]:
    """NumPy's ufuncs with a buffer of `BUFFER` elements: they copy a column that rows shorter than it meet.

    With 2048 elements in a row an operation takes half the time; where a row is shorter than `BUFFER` it takes more.
    """
    namespace = xp(x)
    whole = namespace.setbufsize(BUFFER)
    try:
        yield
    finally:
        namespace.setbufsize(whole)


@lru_cache(maxsize=256)
def _rows(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, axes: tuple[int, ...]) -> Rows | None:
    outer = [i for i in range(len(shape)) if i not in axes]
    order = outer + sorted(axes, key=lambda i: strides[i], reverse=True)
    if 0 in shape or not _is_compact(order, shape, strides, itemsize):
        return None
    return Rows(shape, order, len(outer))


def _is_compact(order: list[int], shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    """Whether the axes of an array lie in memory in that order, without gaps."""
    for i in reversed(order):
        if shape[i] > 1 and strides[i] != itemsize:
            return False
        itemsize *= shape[i]
    return True


def row_sums(rows: Array) -> Array:
    """(R, M) -> (R, 1), by BLAS: in a third of the time of NumPy's sums, exact to a few units in the last place."""
    return rows @ xp(rows).ones((rows.shape[1], 1), rows.dtype)


def row_products(a: Array, b: Array) -> Array:
    """The sum of a * b of each row: (R, M), (R, M) -> (R, 1), by BLAS and without the product in memory."""
    return (a[:, None, :] @ b[:, :, None])[:, :, 0]


def sums(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over `axes`, which stay with size 1; by BLAS where the axes lie together in memory.

    A product with ones takes a third of the time of NumPy's sum along rows, and a tenth of that across them. It adds in
    another order, in which NumPy's pairwise sum along rows is more exact where these are longer than `LONGEST_SUM`.
    """
    if x.size < MANY_TERMS or x.dtype.kind != "f" or x.dtype.itemsize < 4:
        return x.sum(axis=axes, keepdims=True)
    layers = _layers(x.shape, x.strides, x.itemsize, axes)
    if layers is None or layers[1][1] > LONGEST_SUM:
        return x.sum(axis=axes, keepdims=True)
    order, (before, length, after) = layers
    parts, ones = x.transpose(order).reshape(before, length, after), xp(x).ones((1, length), x.dtype)
    found = xp(x).empty((before, 1, after), x.dtype)

    def work(part: slice) -> None:
        if after == 1:
            xp(x).matmul(parts[part, :, 0], ones[0], out=found[part, 0, 0])
        else:
            xp(x).matmul(ones, parts[part], out=found[part])

    device = device_of(x)
    device.parallel_for(work, device.chunks(before, x.nbytes // before))
    found = found.reshape([1 if i in axes else x.shape[i] for i in order])
    return found.transpose([order.index(i) for i in range(x.ndim)])


@lru_cache(maxsize=4096)
def _layers(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, axes: tuple[int, ...]
) -> tuple[list[int], tuple[int, int, int]] | None:
    """The axes in the order of memory, and (A, L, B), where that is how they lie: `axes` are L, together."""
    order = sorted(range(len(shape)), key=lambda i: (strides[i], shape[i] == 1), reverse=True)
    summed = [i for i in order if i in axes]
    first = order.index(summed[0]) if summed else 0
    together = summed and order[first : first + len(summed)] == summed
    if not together or not _is_compact(order, shape, strides, itemsize):
        return None
    sizes = [shape[i] for i in order]
    last = first + len(summed)
    return order, (math.prod(sizes[:first]), math.prod(sizes[first:last]), math.prod(sizes[last:]))


def elementwise(work: Callable[..., Array], x: Array, *others: Array) -> Array:
    """work(x, *others), into `out` where that is given: elementwise work on operands that broadcast.

    Results like x are made by stretches of the outermost axis in memory, which threads share. From 8 MiB on that takes
    half to two thirds of the time; who asks for less than `SHARED_BYTES` does better to work at once.
    """
    if device_of(x).worker_count() == 1 or not _alike(x, others):
        return work(x, *others)
    return _elementwise(work, x, others)


def _alike(x: Array, others: tuple[Array, ...]) -> bool:
    """Whether elementwise work on the operands makes an array of the shape, the dtype and the memory order of x."""
    return all(
        x.dtype == other.dtype
        and (
            x.strides == other.strides
            if x.shape == other.shape
            else xp(x).broadcast_shapes(x.shape, other.shape) == x.shape
        )
        for other in others
    )


def _elementwise(work: Callable[..., Array], x: Array, others: tuple[Array, ...]) -> Array:
    axis = max(range(x.ndim), key=lambda i: (x.shape[i] > 1, x.strides[i])) - x.ndim
    out, length, device = xp(x).empty_like(x), x.shape[axis], device_of(x)

    def make(stretch: slice) -> None:
        work(*(part_of(array, axis, stretch) for array in (x, *others)), out=part_of(out, axis, stretch))

    device.parallel_for(make, device.chunks(length, x.nbytes // length, True), uses_blas=False)
    return out
