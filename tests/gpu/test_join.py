"""Arrays joined on a GPU: one launch for many of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from needle import kernels
from needle.kernels.gpu.join import MOST
from tests.gpu.faults import Fault
from tests.gpu.kernels import missing, running
from tests.gpu.shim_device import SHIM

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")
SHAPES = [(3, 4), (), (300,), (4, 3, 2, 2), (1, 1)]


def joined(arrays):
    out = SHIM.array(np.full(sum(array.size for array in arrays), np.nan, arrays[0].dtype))
    kernels.join(arrays[0], arrays, out)
    return out


@pytest.mark.parametrize("times", [1, MOST // 5, MOST // 5 + 1])
def test_arrays_of_any_shape_and_order(times, run):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype("float32") for shape in SHAPES * times]
    placed = [SHIM.array(array) for array in arrays]
    placed[3] = SHIM.array(np.ascontiguousarray(arrays[3].transpose(1, 2, 3, 0))).transpose(3, 0, 1, 2)
    np.testing.assert_array_equal(joined(placed), np.concatenate([array.ravel() for array in arrays]))


@pytest.mark.parametrize(("count", "times"), [(MOST, 1), (MOST + 1, 2)])
def test_one_launch_joins_many(count, times, launches):
    joined([SHIM.array(np.ones(2, "float32"))] * count)
    assert launches == ["join"] * times


@pytest.mark.parametrize(("dtype", "empty"), [("float64", False), ("float16", False), ("float32", True)])
def test_other_dtypes_and_empty_arrays_take_the_generic_kernel(dtype, empty, launches):
    arrays = [np.arange(3.0 * i, 3 * i + 3).astype(dtype) for i in range(20)]
    arrays += [np.zeros((0, 2), dtype)] * empty
    np.testing.assert_array_equal(joined([SHIM.array(array) for array in arrays]), np.arange(60))
    assert launches == []


def test_joining_moves_whole_sectors():
    with running(checked=True, measure=True) as run:
        joined([SHIM.array(np.ones(4096, "float32"))] * 2)
    run.assert_streams("join")


FAULTS = [
    Fault("join.cu", "the row behind", "rows.each[middle].start <= i", "rows.each[middle].start < i",
          partial(test_arrays_of_any_shape_and_order, 1)),
]  # fmt: skip
