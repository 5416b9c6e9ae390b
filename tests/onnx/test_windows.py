"""Operators with windows, grids and regions, and normalisations: what the official cases do not reach."""

import re

import numpy as np
import pytest

from tests.onnx.nodes import run


def array(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


X, W = array(1, 2, 5, 5), array(3, 2, 2, 2)

# fmt: off
ERRORS = [
    (lambda: run("Conv", [X, W], kernel_shape=[3, 3]), ValueError,
     r"Conv .*: kernel_shape must be that of the weight \(3, 2, 2, 2\), but got \[3, 3\]"),
    (lambda: run("Col2Im", [array(1, 4, 5), np.array([3, 3]), np.array([2, 2])]), ValueError,
     r"Col2Im .*: input must be \(N, C·4, 4\), but got \(1, 4, 5\)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
