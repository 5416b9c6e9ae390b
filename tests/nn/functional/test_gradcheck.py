"""All functions and ops against central differences, to second order: an oracle independent of torch.

The rows come from the tables in this folder and from the table of ops. Exceptions are listed below, with reasons.
"""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle import gradcheck
from tests.nn.functional import (
    test_activation,
    test_attention,
    test_linear,
    test_loss,
    test_margin_loss,
    test_norm,
    test_scale_norm,
    test_similarity,
    test_unpool,
)
from tests.nn.functional.alike import normal
from tests.ops import table

IMAGE = normal(2, 2, 5, 4)
RESAMPLED = [
    ("max_pool2d", IMAGE, {"kernel_size": 2}),
    ("max_pool2d", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("max_pool2d", IMAGE, {"kernel_size": 2, "stride": 1, "dilation": 2}),
    ("avg_pool2d", IMAGE, {"kernel_size": 2}),
    ("avg_pool2d", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ("avg_pool2d", IMAGE, {"kernel_size": (2, 3), "padding": 1, "ceil_mode": True, "divisor_override": 5}),
    ("adaptive_avg_pool2d", IMAGE, {"output_size": (3, 2)}),
    ("adaptive_avg_pool2d", IMAGE, {"output_size": (None, 7)}),
    ("adaptive_max_pool2d", IMAGE, {"output_size": (3, 2)}),
    ("adaptive_max_pool2d", IMAGE, {"output_size": (None, 7)}),
    ("pad", IMAGE, {"pad": (1, 2, -1, 0), "value": 1.5}),
    *[("pad", IMAGE, {"pad": (1, 2, 2, 1), "mode": mode}) for mode in ("constant", "reflect", "replicate", "circular")],
    ("interpolate", IMAGE, {"size": (3, 6)}),
    ("interpolate", IMAGE, {"scale_factor": 2, "mode": "nearest"}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bilinear", "align_corners": False}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bilinear", "align_corners": True}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bicubic"}),
    ("interpolate", IMAGE, {"size": (3, 7), "mode": "bicubic", "antialias": True}),
    ("pixel_shuffle", normal(2, 8, 2, 3), {"upscale_factor": 2}),
    ("affine_grid", normal(2, 2, 3), {"size": (2, 1, 3, 4)}),
    *test_unpool.LP,
]

# title: (function, inputs that are differentiated, constants, names of the last inputs, options)
FUNCTIONS = {
    f"{i}-{name}-{options}": (name, [x], [], (), options)
    for i, (name, x, options) in enumerate(test_activation.ROWS + RESAMPLED)
}
for i, (name, inputs, options, names) in enumerate(test_scale_norm.ROWS):
    FUNCTIONS[f"{i}-{name}-{options}"] = name, inputs, [], names, options
FUNCTIONS["prelu"] = "prelu", [IMAGE, normal(2)], [], (), {}
PLACES = np.array([[[[0, 3], [8, 15]]] * 2])
FUNCTIONS["max_unpool2d"] = "max_unpool2d", [normal(1, 2, 2, 2)], [PLACES], (), {"kernel_size": 2}
for title, (name, inputs, names, options) in test_norm.ROWS.items():
    FUNCTIONS[title] = name, inputs, [], names, options
for title, (name, inputs, constants, options) in (
    test_linear.ROWS | test_similarity.ROWS | test_attention.ROWS
).items():
    FUNCTIONS[title] = name, inputs, constants, (), options
for title, (name, inputs, constants, options) in test_loss.ROWS.items():
    for reduction in ("mean", "sum", "none"):
        FUNCTIONS[f"{title}, {reduction}"] = name, inputs, constants, (), {**options, "reduction": reduction}

for title, (name, inputs, constants, options) in test_margin_loss.ROWS.items():
    inputs = [np.asarray(x) for x in inputs]
    FUNCTIONS[title] = name, inputs, constants, (), {**options, "reduction": "none"}

# Rows of ops that differences cannot check: reason -> the rows it applies to.
RULES = {
    "the result is a constant": lambda row: row.constant,
    "drawn from a few numbers, to lie on kinks": lambda row: row.draw in (table.few, table.few_positive),
    "a result in float32 rounds differences away": lambda row: row.dtype == "float32",
}
OPS = {str(row): row for row in table.ROWS if not any(holds(row) for holds in RULES.values())}

# Rows with an input on a kink: backward takes one slope or splits the gradient, differences average the slopes.
KINKS = {
    **{f"l1 at its kink, {reduction}": "two elements are equal" for reduction in ("mean", "sum", "none")},
    "gaussian, limited": "the gradient ignores the limit, as in torch",
    "clip-(-0.5,0.5)": "an element is 0.5",
    "minimum-((2,3),())": "an element equals the scalar",
    "max-defaults": "the largest element occurs twice",
    "min-0keepdims": "the smallest element of a column occurs twice",
}


def check(title, device):
    if title in OPS:
        values, drawn = OPS[title].values(), OPS[title].is_drawn()
        tensors = [ndl.Tensor(x, device=device, requires_grad=d) for x, d in zip(values, drawn, strict=True)]
        return gradcheck(OPS[title].apply, *tensors)
    name, inputs, constants, names, options = FUNCTIONS[title]

    def fixed(x):
        return ndl.Tensor(x, device=device, requires_grad=False) if isinstance(x, np.ndarray) else x

    def function(*x):
        first = len(x) - len(names)
        named = {key: fixed(value) for key, value in options.items()} | dict(zip(names, x[first:], strict=True))
        return getattr(F, name)(*x[:first], *map(fixed, constants), **named)

    return gradcheck(function, *(ndl.Tensor(x, device=device) for x in inputs))


TITLES: dict[str, list[str]] = {}  # function, or ops.op -> the titles of its rows
for title in [*FUNCTIONS, *OPS]:
    if title not in KINKS:
        TITLES.setdefault(f"ops.{OPS[title].op}" if title in OPS else FUNCTIONS[title][0], []).append(title)


@pytest.mark.parametrize("name", TITLES)
def test_derivatives_pass_gradcheck(name, device, subtests):
    for title in TITLES[name]:
        with subtests.test(title):
            assert check(title, device)


@pytest.mark.parametrize("title", KINKS)
def test_every_exception_is_at_a_kink(title, device):
    with pytest.raises(AssertionError, match="wrong derivative"):
        check(title, device)


def test_no_row_hides_another_and_no_rule_is_idle():
    assert not FUNCTIONS.keys() & OPS.keys()
    for reason, holds in RULES.items():
        assert any(map(holds, table.ROWS)), reason
