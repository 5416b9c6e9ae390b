"""`unfold` and `fold` by raw kernels equal the generic kernels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from needle import kernels
from needle.kernels.layout import batch_last
from needle.ops.operand import make_window
from tests.gpu.faults import Fault
from tests.gpu.shim_device import placed

WINDOWS = {  # *S, kernel, stride, padding, dilation
    "1-d": ((11,), (3,), 2, 1, 1),
    "same": ((6, 5), (3, 3), 1, 1, 1),
    "strided": ((7, 8), (3, 2), (2, 3), (1, 0), 1),
    "dilated": ((9, 8), (2, 3), 1, 2, (3, 2)),
    "1x1": ((4, 4), (1, 1), 1, 0, 1),
    "3-d": ((4, 5, 3), (2, 3, 2), (1, 2, 1), (1, 1, 0), 1),
}


@pytest.mark.parametrize("batch", [4, 3])
@pytest.mark.parametrize("name", WINDOWS)
def test_columns_and_their_sum(name, batch, run):
    size, kernel, *options = WINDOWS[name]
    window = make_window("unfold", len(size), *options)
    x = np.random.default_rng(0).integers(-9, 9, (batch, 2, *size)).astype("float32")
    expected = kernels.unfold(x, window, kernel)
    for order in (True, False):
        columns = kernels.unfold(placed(x, order), window, kernel)
        np.testing.assert_array_equal(columns, expected)
        assert batch_last(columns).flags.c_contiguous
        total = kernels.fold(placed(expected, order), window, kernel, size)
        np.testing.assert_array_equal(total, kernels.fold(expected, window, kernel, size))
        assert batch_last(total).flags.c_contiguous


def test_streams_use_whole_sectors(sectors):
    size, kernel, *options = WINDOWS["same"]
    window = make_window("unfold", 2, *options)
    x = placed(np.ones((64, 2, *size), "float32"))
    kernels.fold(kernels.unfold(x, window, kernel), window, kernel, size)
    sectors.assert_streams("unfold_4", "fold_4", least=1)


SAME, STRIDED = (partial(test_columns_and_their_sum, name, 4) for name in ("same", "strided"))
INSIDE = "  if (is_inside) value = load<V>(x + offset(w.size, place, batch));\n  store"
FAULTS = [
    Fault("columns.cu", "padding left unwritten", INSIDE, INSIDE.replace("\n", "\n  if (is_inside) "), SAME),
    Fault("columns.cu", "padding before is read", "0 <= at &&", "-1 <= at &&", SAME),
    Fault(
        "columns.cu",
        "taps exchanged",
        "w.kernel[0] + k0) * w.kernel[1] + k1)",
        "w.kernel[0] + k1) * w.kernel[1] + k0)",
        STRIDED,
    ),
    Fault("columns.cu", "stride forgotten", "start == p * w.stride[axis]", "true", STRIDED),
]
