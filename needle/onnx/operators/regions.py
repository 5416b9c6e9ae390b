"""Pooling of regions of interest: RoiAlign of points between elements, MaxRoiPool of whole elements."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from needle import init, ops
from needle.autograd import Tensor
from needle.backend import HostArray, compute_dtype
from needle.onnx.memory import current_memory
from needle.onnx.registry import Node, operator
from needle.ops.operand import as_indices, pool_window
from needle.ops.pool import largest

__all__: list[str] = []


@operator("RoiAlign")
def roi_align(node: Node, x: Tensor, rois: Tensor, batch_indices: Tensor) -> Tensor:
    """The mean, or the largest, of points in each cell of each region; regions have gradients, too.

    A point lies between four elements. As in the first implementations, "max" compares their single contributions.
    """
    dtype = compute_dtype(x.dtype)
    half_pixel = node.get("coordinate_transformation_mode") == "half_pixel"  # opset 10 has no such attribute
    corners = rois.astype(dtype) * node["spatial_scale"] - (0.5 if half_pixel else 0.0)  # (R, 4): x, y, x, y
    shape, spans, points = (node["output_height"], node["output_width"]), [], [rois.shape[0], x.shape[1]]
    for axis, cells in enumerate(shape):
        start, end = corners[:, 1 - axis], corners[:, 3 - axis]
        cell = (end - start if half_pixel else ops.maximum(end - start, 1.0)) / cells
        ratio = node["sampling_ratio"]
        count = init.full_like(cell, ratio) if ratio > 0 else ops.maximum(ops.ceil(cell.detach()), 0.0)
        spans.append((start, cell, count, cells, x.shape[2 + axis]))
        points.append(cells * _most(count))
    current_memory.get().require(node, 4 * dtype.itemsize * math.prod(points))  # for each point, four elements
    rows, columns = (_side(*span) for span in spans)
    image = ops.permute(x.astype(dtype), (0, 2, 3, 1))
    batch = ops.reshape(as_indices("RoiAlign", "batch_indices", batch_indices, x.shape[0]), (-1, 1, 1))
    terms = []
    for (i, row_weight), (j, column_weight) in itertools.product(rows.taps, columns.taps):
        values = ops.getitem(image, (batch, i[:, :, None], j[:, None, :]))  # (R, points, points, C)
        terms.append(values * (row_weight[:, :, None] * column_weight[:, None, :])[:, :, :, None])
    r, c, (height, width) = rois.shape[0], x.shape[1], shape
    cells = (r, height, rows.most, width, columns.most, c)
    mask = rows.mask[:, None, :, None, None, None] * columns.mask[:, None, None, None, :, None]
    if node["mode"] == "avg":
        total = ops.summation(ops.where(mask, ops.reshape(sum(terms[1:], terms[0]), cells), 0.0), (2, 4))
        y = total / ops.reshape(ops.maximum(rows.used * columns.used, 1.0), (-1, 1, 1, 1))
    else:
        best = terms[0]
        for term in terms[1:]:
            best = ops.maximum(best, term)
        best = ops.max(ops.where(mask, ops.reshape(best, cells), -np.inf), (2, 4))
        y = ops.where(ops.reshape(rows.used * columns.used > 0, (-1, 1, 1, 1)), best, 0.0)
    return ops.permute(y, (0, 3, 1, 2)).astype(x.dtype)


class Side(NamedTuple):
    """The points of each region along one axis: P cells of at most `most` points, of which `used` (R,) are used.

    `taps` are the elements before and after each point and their weights, (R, P·most) each; `mask` (R, most) marks the
    points that are used.
    """

    taps: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    used: Tensor
    most: int
    mask: Tensor


def _most(count: Tensor) -> int:
    """The largest number of points, also where it is far too large or none."""
    return max(1, int(min(np.nan_to_num(count.numpy().max(initial=1)), 2**62)))


def _side(start: Tensor, cell: Tensor, count: Tensor, cells: int, n: int) -> Side:
    """`count` points in each of the cells of size `cell` (R,) from `start` (R,), along an axis of n elements."""
    device, dtype, most = start.device, start.dtype, _most(count)
    point = init.arange(most, device=device, dtype=dtype)
    within = (point + 0.5) * (cell / ops.maximum(count, 1.0))[:, None, None]  # (R, 1, most)
    first = start[:, None] + init.arange(cells, device=device, dtype=dtype) * cell[:, None]  # (R, P)
    place = ops.reshape(first[:, :, None] + within, (-1, cells * most))
    inside = (ops.greater_equal(place, -1.0) * ops.less_equal(place, float(n))).astype(dtype)
    place = ops.clip(place, 0.0, n - 1.0)
    low = ops.floor(place.detach())
    high, share = ops.minimum(low + 1.0, n - 1.0), place - low
    taps = (low.astype("int64"), (1.0 - share) * inside), (high.astype("int64"), share * inside)
    return Side(taps, count, most, ops.less(point, count[:, None]))


@operator("MaxRoiPool", buffers=(1,))
def max_roi_pool(node: Node, x: Tensor, rois: Tensor) -> Tensor:
    """The largest element of each cell of each region (image, x1, y1, x2, y2), 0 where a cell lies outside.

    Corners are rounded to elements, of which the last belongs to the region.
    """
    table = rois.numpy().astype(np.float64)
    corners = table[:, 1:] * node["spatial_scale"]
    corners = (np.sign(corners) * np.floor(np.abs(corners) + 0.5)).astype(np.int64)
    indices, sizes, empty = [], [], np.zeros((1, 1, 1, 1), bool)
    for axis, cells in enumerate(node["pooled_shape"]):
        index, size, is_empty = _cells(corners[:, 1 - axis], corners[:, 3 - axis], cells, x.shape[2 + axis])
        indices.append(index.reshape((-1, 1, index.shape[1]) if axis else (-1, index.shape[1], 1)))
        sizes.append(size)
        empty = empty | is_empty.reshape((-1, 1, 1, cells) if axis else (-1, 1, cells, 1))
    batch = as_indices("MaxRoiPool", "rois", Tensor(table[:, 0], requires_grad=False), x.shape[0]).numpy()
    places = [Tensor(i, device=x.device, requires_grad=False) for i in (batch.reshape(-1, 1, 1), *indices)]
    read = math.prod(index.shape[-2] * index.shape[-1] for index in indices) * x.shape[1] * rois.shape[0]
    current_memory.get().require(node, read * x.dtype.itemsize)
    values = ops.getitem(ops.permute(x, (0, 2, 3, 1)), tuple(places))  # (R, P·k, P·k, C)
    y, _ = largest(ops.permute(values, (0, 3, 1, 2)), *pool_window("MaxRoiPool", 2, tuple(sizes)), False)
    return ops.where(Tensor(empty, device=x.device, requires_grad=False), 0.0, y)


def _cells(first: HostArray, last: HostArray, cells: int, n: int) -> tuple[HostArray, int, HostArray]:
    """An index (R, P·k) that lays the cells of regions side by side, k, the size of the longest, and which are empty.

    Shorter cells repeat their last element.
    """
    length, cell = np.maximum(last - first + 1, 1)[:, None], np.arange(cells)
    start = (first[:, None] + cell * length // cells).clip(0, n)
    end = (first[:, None] - (-(cell + 1) * length // cells)).clip(0, n)
    most = max(1, int((end - start).max(initial=1)))
    index = np.minimum(start[:, :, None] + np.arange(most), np.maximum(end[:, :, None] - 1, 0)).clip(0, n - 1)
    return index.reshape(-1, cells * most), most, end <= start
