"""Memory shared with the caller: only where torch shares it, or where the docs say so."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle.backend import is_writable, to_host
from needle.nn import functional as F
from tests.ops.table import ROWS, each_row, tensors

VIEWS = {  # as in torch, and the course's `undilate`
    "__pos__", "astype", "broadcast_to", "einsum", "expand", "flatten", "getitem", "make_tuple", "permute", "reshape",
    "split", "squeeze", "sum_to", "to", "transpose", "tuple_get_item", "undilate", "unsqueeze",
}  # fmt: skip


@each_row(row for row in ROWS if row.op not in VIEWS)
def test_a_write_into_a_result_leaves_the_inputs(row):
    inputs, _ = tensors(row, row.values())
    result = row.apply(*inputs)
    for y in result if isinstance(result, (tuple, list, ndl.TensorTuple)) else [result]:
        for x in inputs:
            if isinstance(y, ndl.Tensor) and isinstance(x, ndl.Tensor):
                assert not np.shares_memory(to_host(y.array), to_host(x.array))


IDLE = {  # functions of an image (1, 2, 3, 4) that change nothing, or repeat elements
    "flip": lambda x: ndl.flip(x, 0),
    "interpolate": lambda x: F.interpolate(x, size=(3, 4)),
    "interpolate, bilinear": lambda x: F.interpolate(x, size=(3, 4), mode="bilinear"),
    "interpolate, half": lambda x: F.interpolate(x, size=(3, 2)),
    "interpolate, one pixel": lambda x: F.interpolate(x[:, :, :1, :1], scale_factor=2),
    "max": lambda x: ndl.max(x, 0),
    "mean": lambda x: x.mean(0),
    "pad": lambda x: F.pad(x, (0, 0)),
    "pad, circular": lambda x: F.pad(x, (-1, 0, 0, 0), mode="circular"),
    "pad, reflect": lambda x: F.pad(x, (0, 0, 0, 0), mode="reflect"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 1),
    "pool": lambda x: F.avg_pool2d(x, 1),
    "prod": lambda x: x.prod(0),
    "repeat": lambda x: x.repeat(3, 1, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(1),
    "repeat_interleave, an axis": lambda x: x.repeat_interleave(3, 0),
    "sort": lambda x: x.sort(0)[0],
    "sum": lambda x: x.sum(0),
    "tile": lambda x: ndl.tile(x, 1),
    "unfold": lambda x: F.unfold(x, 1),
}


@pytest.mark.parametrize("function", IDLE.values(), ids=IDLE)
def test_a_result_that_changes_nothing_is_a_copy(function, device):
    x = ndl.arange(24.0, device=device).reshape(1, 2, 3, 4)
    y = function(x)
    assert not np.shares_memory(to_host(y.array), to_host(x.array))
    assert is_writable(y.array)
    y.fill_(-1)
    assert x.numpy().min() == 0


LAYOUTS = {  # (shape, strides in elements): whether an element occurs twice
    "row-major": ((2, 3), (3, 1), False),
    "interleaved": ((2, 3), (1, 2), False),
    "reversed": ((2, 3), (-3, -1), False),
    "with gaps": ((3, 2), (8, 3), False),
    "broadcast": ((2, 3), (0, 1), True),
    "windows": ((4, 3), (1, 1), True),
    "windows with gaps": ((2, 3), (4, 4), True),
    "windows of every other element": ((3, 2), (2, 2), True),
    "axes of one element": ((1, 3), (0, 1), False),
    "no elements": ((0, 3), (0, 0), False),
}


@pytest.mark.parametrize(("shape", "strides", "twice"), LAYOUTS.values(), ids=LAYOUTS)
def test_memory_that_holds_an_element_twice_is_not_written_to(shape, strides, twice):
    memory = np.zeros(40)
    steps = [8 * step for step in strides]
    x = ndl.from_dlpack(np.lib.stride_tricks.as_strided(memory[20:], shape, steps))
    x.requires_grad, x.grad = True, ndl.ones(*shape, dtype="float64")
    for write in (ndl.optim.SGD([x], lr=1.0).step, ndl.no_grad()(lambda: x.add_(-1))):
        memory[:] = 0
        if twice:
            with pytest.raises(ValueError, match="must have writable memory, but got a read-only or repeated array"):
                write()
            assert not memory.any()
        else:
            write()
            assert memory.sum() == -x.size
