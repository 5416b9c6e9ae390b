"""Every row of the tables of functions in other memory orders, and outlined: the same results and derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import needle as ndl
import needle.nn.functional as F
from needle.outline import Outlined, outline, outlined
from tests.nn.functional import test_activation, test_grid, test_loss, test_margin_loss, test_scale_norm, test_unpool
from tests.nn.functional.alike import normal

PLACES = np.array([[[[0, 3], [8, 15]]] * 2])
IMAGE = normal(2, 3, 4, 5)

# (function, inputs that are differentiated, constants, options)
ROWS = [
    *test_loss.ROWS.values(),
    *test_margin_loss.ROWS.values(),
    *((name, [x], [], options) for name, x, options in (*test_activation.ROWS, *test_unpool.LP)),
    *((name, inputs, [], options) for name, inputs, options, names in test_scale_norm.ROWS if not names),
    *(
        ("grid_sample", [IMAGE, normal(2, 1, 2, 2)], [], {"mode": mode, "padding_mode": padding})
        for mode, padding in zip(test_grid.MODES, reversed(test_grid.PADDINGS), strict=True)
    ),
    ("prelu", [IMAGE, normal(3)], [], {}),
    ("max_unpool2d", [normal(1, 2, 2, 2)], [PLACES], {"kernel_size": 2}),
    ("affine_grid", [normal(2, 2, 3)], [], {"size": (2, 1, 3, 4)}),
    ("interpolate", [IMAGE], [], {"size": (3, 7), "mode": "bicubic"}),
    ("interpolate", [IMAGE], [], {"size": (3, 7), "mode": "bicubic", "antialias": True}),
]

ORDERS = {
    "column-major": lambda x: x.T.copy().T,
    "flipped": lambda x: np.flip(np.flip(x).copy()),
}


def applied(row, leaves):
    """The result for these inputs in the places of those that are differentiated."""
    name, _, constants, options = row
    options = {
        key: ndl.Tensor(value, requires_grad=False) if isinstance(value, np.ndarray) else value
        for key, value in options.items()
    }
    return getattr(F, name)(*leaves, *(ndl.Tensor(c, requires_grad=False) for c in constants), **options)


def results(row, rearrange=lambda x: x):
    """The result, its gradients, and theirs; None where there is none."""
    leaves = [ndl.Tensor.make_const(rearrange(np.array(x, "float64")), requires_grad=True) for x in row[1]]
    y = applied(row, leaves)
    y.sum().backward()
    first = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    total = sum(((grad * grad).sum() for grad in first if grad is not None), ndl.Tensor(0.0))
    total.backward()
    values = [y, *first, *(x.grad for x in leaves)]
    return [None if value is None else value.numpy() for value in values]


@pytest.mark.parametrize("name", sorted({row[0] for row in ROWS}))
def test_outlines_and_memory_order_change_nothing(name, subtests):
    for row in (row for row in ROWS if row[0] == name):
        with subtests.test(str(row[3])):
            expected = results(row)
            with outline():
                y = applied(row, [outlined(np.shape(x), np.dtype("float64"), ndl.cpu(), "unknown") for x in row[1]])
            assert isinstance(y, Outlined)
            assert (y.shape, y.dtype) == (expected[0].shape, expected[0].dtype)
            for rearrange in ORDERS.values():
                for actual, value in zip(results(row, rearrange), expected, strict=True):
                    assert (actual is None) == (value is None)
                    if actual is not None:
                        assert_allclose(actual, value, rtol=1e-11, atol=1e-11)
