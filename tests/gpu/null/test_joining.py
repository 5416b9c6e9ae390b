"""Joining many arrays on the null device uploads nothing."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import ops
from tests.gpu.null import device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]


@pytest.mark.parametrize("join", [ops.stack, ops.concatenate])
@pytest.mark.parametrize("count", [8, 20, 70])
def test_joining_uploads_nothing(join, count):
    from tests.gpu.null.counts import counting

    arrays = [np.full((3, 2), i, "float32") for i in range(count)]
    tensors = [ndl.Tensor(array, device=ndl.cuda()) for array in arrays]
    with counting() as counts:
        result = join(tensors, axis=1)
    assert (counts.uploads, counts.waits) == (0, 0)
    np.testing.assert_array_equal(result.numpy(), getattr(np, join.__name__)(arrays, axis=1))
