"""Linear maps: against torch to second order, and their errors."""

from __future__ import annotations

import inspect

import pytest
import torch

import needle as ndl
import needle.nn.functional as F
from tests.nn.functional.alike import check_function, check_signature, normal, raises

HINT = '; .astype("float32") converts'  # where float32 meets float64

# (function, inputs that are differentiated, constants, options)
ROWS = {
    "linear": ("linear", [normal(3, 4), normal(2, 4), normal(2)], [], {}),
    "linear, no bias": ("linear", [normal(3, 2, 4), normal(2, 4)], [], {}),
    "linear, vector": ("linear", [normal(4), normal(2, 4), normal(2)], [], {}),
    "linear, vector weight": ("linear", [normal(3, 4), normal(4)], [], {}),
    "linear, broad bias": ("linear", [normal(2, 3, 4), normal(2, 4), normal(3, 2)], [], {}),
}


@pytest.mark.parametrize("row", ROWS)
def test_function_matches_torch(row, device):
    name, inputs, constants, options = ROWS[row]
    check_function(name, inputs, device, constants, options, rtol=1e-9)


def test_signature_matches_torch():
    expected = {"x": inspect.Parameter.empty, "weight": inspect.Parameter.empty, "bias": None}
    check_signature(F.linear, torch.nn.functional.linear, expected)


# ---- errors ----------------------------------------------------------------------------------------------------------


def zeros(*shape, dtype="float32"):
    return ndl.zeros(*shape, dtype=dtype)


ERRORS = [
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 3)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got (3, 4) and (2, 3)",
    ),
    (
        lambda: F.linear(zeros(4), zeros(2, 2, 4)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got (4,) and (2, 2, 4)",
    ),
    (
        lambda: F.linear(zeros(), zeros(2, 4)), ValueError,
        "linear: x (…, in) and weight (out, in) are needed, but got () and (2, 4)",
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4, dtype="float64")), TypeError,
        "linear: x and weight must have one floating dtype, but got float32 and float64" + HINT,
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4), zeros(2, dtype="int64")), TypeError,
        "linear: x and weight and bias must have one floating dtype, but got float32 and float32 and int64",
    ),
    (
        lambda: F.linear(zeros(3, 4), zeros(2, 4), zeros(3)), ValueError,
        "linear: shapes must broadcast, but got (3,) and (3, 2)",
    ),
    (
        lambda: F.linear(zeros(4), zeros(2, 4), zeros(3, 2)), ValueError,
        "linear: bias must broadcast to the result (2,), but got shape (3, 2)",
    ),
    (
        lambda: F.linear(zeros(1, 4), zeros(1, 4), zeros(3)), ValueError,
        "linear: bias must broadcast to the result (1, 1), but got shape (3,)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
