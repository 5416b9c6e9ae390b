"""Arrays seen as contiguous rows, one for each mean and variance of a normalization."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from functools import lru_cache
from typing import Any

from needle import tuning
from needle.backend import device_of, xp
from needle.kernels.layout import Array, is_compact

__all__ = ["Rows"]

UFUNC_BUFFER = 8192  # elements: NumPy's default


class Rows:
    """A view (R, M) of arrays that share one memory order: M elements over the reduced axes, R over the others.

    Rows lie one after the other in memory, and each is contiguous. A column (R, 1) holds one value per row.
    """

    def __init__(self, shape: tuple[int, ...], order: list[int], kept: int) -> None:
        """`order` lists the axes by memory order; the first `kept` of them are not reduced."""
        self.shape = tuple(shape[axis] for axis in order)
        self.order, self.inverse = order, [order.index(axis) for axis in range(len(order))]
        self.count, self.length = math.prod(self.shape[:kept]), math.prod(self.shape[kept:])
        self.column_shape = tuple(n if axis in order[:kept] else 1 for axis, n in enumerate(shape))

    @staticmethod
    def of(x: Array, axes: tuple[int, ...]) -> Rows | None:
        """The rows of x over `axes` (not negative); None if x is not laid out like that.

        Also None for integers and float16, which BLAS cannot sum.
        """
        if x.dtype.kind != "f" or x.dtype.itemsize < 4:
            return None
        return _rows(x.shape, x.strides, x.itemsize, axes)

    def view(self, x: Array) -> Array:
        """The rows (R, M) of an array; a view if its memory order is the one these rows were made for."""
        return x.transpose(self.order).reshape(self.count, self.length)

    def unview(self, rows: Array) -> Array:
        """The array of rows (R, M), a view: the inverse of `view`."""
        return rows.reshape(self.shape).transpose(self.inverse)

    def column(self, x: Array) -> Array | None:
        """The column (R, 1) of a value that broadcasts to the array; None if it varies along a row."""
        if x.shape != self.column_shape:
            shape = (1,) * (len(self.column_shape) - x.ndim) + x.shape
            if any(n > m for n, m in zip(shape, self.column_shape, strict=True)):
                return None
            x = xp(x).broadcast_to(x, self.column_shape)
        return x.reshape(self.count, 1)

    def apply(
        self, work: Callable[..., Sequence[Array]], arrays: Sequence[Array], columns: Sequence[Array],
        out: Array | None = None,
    ) -> Any:  # fmt: skip
        """The results of `work(*rows, *columns, out=rows)`: an array, then columns as arrays that broadcast to it.

        The array is `out`, in these rows' memory order, or a new one.

        `work` is called on chunks of rows: on one thread so small that they stay in the cache for all its passes. Where
        threads share the chunks, these are larger, since each call takes Python's lock again: a tenth to a fifth less.
        """
        operands = [*map(self.view, arrays), *columns]
        target = xp(operands[0]).empty(operands[0].shape, operands[0].dtype) if out is None else self.view(out)
        is_short = tuning.SHORT_UFUNC_BUFFER <= self.length < UFUNC_BUFFER and hasattr(xp(target), "setbufsize")
        if is_short:  # CuPy has no such buffer
            results = _with_short_buffer(xp(target), self._apply, work, operands, target)
        else:
            results = self._apply(work, operands, target)
        return self.unview(target), *(column.reshape(self.column_shape) for column in results)

    def _apply(self, work: Callable[..., Sequence[Array]], operands: Sequence[Array], out: Array) -> Iterable[Array]:
        """Fill `out` (R, M), and return the columns (R, 1)."""
        device = device_of(out)
        shared = out.nbytes >= tuning.PARALLEL_ROWS_BYTES and device.worker_count() > 1
        scale = 1 if shared else tuning.BLOCK_BYTES // tuning.ROWS_CHUNK_BYTES
        chunks = device.chunks(self.count, scale * out.nbytes // self.count, shared)
        results: dict[int, Sequence[Array]] = {}

        def compute(chunk: slice) -> None:
            results[chunk.start] = work(*(operand[chunk] for operand in operands), out=out[chunk])[1:]

        device.parallel_for(compute, chunks, shared=shared)
        if len(chunks) == 1:
            return results[0]
        return map(xp(out).concatenate, zip(*(results[chunk.start] for chunk in chunks), strict=True))


def _with_short_buffer(namespace: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function with a short buffer for NumPy's ufuncs, into which they copy a column for rows shorter than it.

    The buffer's size belongs to the context. It is set in a copy, so there is nothing to restore.
    """
    context = copy_context()
    context.run(namespace.setbufsize, tuning.SHORT_UFUNC_BUFFER)
    return context.run(function, *args)


@lru_cache(maxsize=256)
def _rows(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, axes: tuple[int, ...]) -> Rows | None:
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    order = kept + sorted(axes, key=lambda axis: strides[axis], reverse=True)
    if 0 in shape or not is_compact(order, shape, strides, itemsize):
        return None
    return Rows(shape, order, len(kept))
