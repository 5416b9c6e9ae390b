"""Arrays in three memory orders, for kernels other than convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from needle.kernels.layout import batch_first

ORDERS = {
    "row-major": lambda x: x,
    "batch-last": lambda x: batch_first(np.ascontiguousarray(np.moveaxis(x, 0, -1))),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
}
every_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)


def draw(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
