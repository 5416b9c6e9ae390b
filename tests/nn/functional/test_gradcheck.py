"""Every table of functions and ops against central differences, to second order: an oracle that owes nothing to torch.

The rows are those of the tables beside this file and of the table of ops. What differences cannot judge is named below.
"""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle import gradcheck
from tests.nn.functional import test_activation, test_dense, test_loss, test_normalization
from tests.nn.functional.alike import normal
from tests.ops import table

IMAGE = normal(2, 2, 5, 4)


def one_of(rows):
    """Rows under titles of their own."""
    return {f"{i}-{row[0]}-{row[-1]}": row for i, row in enumerate(rows)}


# title: (function, inputs that are differentiated, constants, names of the last inputs, options)
ROWS = {title: (name, [x], [], (), options) for title, (name, x, options) in one_of(test_activation.ROWS).items()}
ROWS |= {title: (name, inputs, (), names, options) for title, (name, inputs, names, options) in
         test_normalization.ROWS.items()}  # fmt: skip
ROWS |= {title: (name, inputs, constants, (), options) for title, (name, inputs, constants, options) in
         test_dense.ROWS.items()}  # fmt: skip
ROWS |= {f"{title}, {reduction}": (name, inputs, constants, (), options | {"reduction": reduction})
         for title, (name, inputs, constants, options) in test_loss.ROWS.items()
         for reduction in ("mean", "sum", "none")}  # fmt: skip
ROWS |= {title: (name, [x], (), (), options) for title, (name, x, options) in one_of([
    ("max_pool2d", IMAGE, {"kernel_size": 2}),
    ("max_pool2d", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("max_pool2d", IMAGE, {"kernel_size": 2, "stride": 1, "dilation": 2}),
    ("avg_pool2d", IMAGE, {"kernel_size": 2}),
    ("avg_pool2d", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", IMAGE, {"kernel_size": (2, 3), "padding": 1, "ceil_mode": True, "divisor_override": 5}),
    ("adaptive_avg_pool2d", IMAGE, {"output_size": (3, 2)}),
    ("adaptive_avg_pool2d", IMAGE, {"output_size": (None, 7)}),
    ("adaptive_max_pool2d", IMAGE, {"output_size": (3, 2)}),
    ("pad", IMAGE, {"pad": (1, 2, -1, 0), "value": 1.5}),
    *[("pad", IMAGE, {"pad": (1, 2, 2, 1), "mode": mode}) for mode in ("constant", "reflect", "replicate", "circular")],
    ("interpolate", IMAGE, {"size": (3, 6)}),
    ("interpolate", IMAGE, {"scale_factor": 2, "mode": "nearest"}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bilinear", "align_corners": False}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bilinear", "align_corners": True}),
    ("pixel_shuffle", normal(2, 8, 2, 3), {"upscale_factor": 2}),
]).items()}  # fmt: skip

# By function or op and reason: what differences cannot judge.
EXCLUDED = {}


@pytest.mark.parametrize("row", ROWS)
def test_function_has_the_derivatives_of_its_differences(row, device):
    name, inputs, constants, names, options = ROWS[row]
    fixed = [ndl.Tensor(constant, device=device, requires_grad=False) for constant in constants]
    options = {
        key: ndl.Tensor(value, device=device, requires_grad=False) if isinstance(value, np.ndarray) else value
        for key, value in options.items()
    }

    def function(*x):
        first = len(x) - len(names)
        return getattr(F, name)(*x[:first], *fixed, **options, **dict(zip(names, x[first:], strict=True)))

    assert gradcheck(function, *(ndl.Tensor(x, device=device) for x in inputs))


@pytest.mark.parametrize("row", [r for r in table.ROWS if not r.constant and r.draw not in (table.few, table.few_positive) and any(r.is_drawn())], ids=str)
def test_op_has_the_derivatives_of_its_differences(row, device):
    inputs = [
        ndl.Tensor(x, device=device, requires_grad=drawn) for x, drawn in zip(row.values(), row.is_drawn(), strict=True)
    ]
    assert gradcheck(row.apply, *inputs, order=row.order)
