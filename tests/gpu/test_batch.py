"""A batch of bytes or floats becomes float32, batch-last; bytes by a table for each channel."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from needle.kernels.gpu.batch import turn
from tests.gpu.faults import Fault
from tests.gpu.shim_device import SHIM

SHAPES = [(5, 3, 4, 6), (40, 1, 7, 5), (33, 2, 9)]


def images(shape, dtype):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_turn(shape, dtype, run):
    x = images(shape, dtype)
    there, index = SHIM.array(x), np.array([3, 1, 1, 4, 0] * 14)
    result = turn(there)
    np.testing.assert_array_equal(result, x.astype("float32"), strict=False)
    assert result.dtype == "float32"
    np.testing.assert_array_equal(turn(there, SHIM.array(index)), x[index].astype("float32"))
    assert turn(there, SHIM.array(index[:0])).shape == (0, *shape[1:])


def test_bytes_at_an_odd_address(run):
    x = images((5, 3, 4, 4), "uint8")
    there = SHIM.array(np.append(np.uint8(0), x.ravel()))[1:].reshape(x.shape)
    np.testing.assert_array_equal(turn(there), x.astype("float32"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bytes_by_a_table(shape, run):
    x, index = images(shape, "uint8"), np.array([3, 1, 1, 4, 0])
    table = np.random.default_rng(1).normal(size=(shape[1], 256)).astype("float32")
    channels = np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    result = turn(SHIM.array(x), SHIM.array(index), SHIM.array(table))
    np.testing.assert_array_equal(result, table[channels, x[index]])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_turning_uses_whole_sectors_and_no_bank_twice(dtype, sectors):
    turn(SHIM.array(images((64, 3, 32, 32), dtype)))
    (name,) = sectors.sites
    sectors.assert_streams(name, least=1)
    assert sectors.passes(name) == 1


MANY = partial(test_turn, SHAPES[1], "uint8")
BARRIER = "  __syncthreads();\n  if (image + lane"
FAULTS = [
    Fault("batch.cu", "the tile read before it is whole", BARRIER, "  if (image + lane", MANY),
    Fault("batch.cu", "a barrier for some threads", BARRIER, f"  if (image + lane < batch) {BARRIER}", MANY),
    Fault("batch.cu", "images past the batch", "i < 32 && image + i < batch", "i < 32", MANY),
    Fault("batch.cu", "rows by the wrong index", "index ? index[image + i]", "index ? index[i]", MANY),
    Fault("batch.cu", "elements past the row", "if (l >= length) continue;", "", MANY),
]
