"""Operators on arrays (arithmetic, reductions, indices, shapes, casts …): what the official cases leave out."""

import re

import numpy as np
import pytest

from tests.onnx.one_node import operate

X = np.ones((2, 3), "float32")

# fmt: off
ERRORS = [
    (lambda: operate("Cast", X, to=8), TypeError,
     r"Cast \(domain 'ai\.onnx', opset 23\): to must be a type of real numbers or bools, but got STRING"),
    (lambda: operate("Constant", value_string="a"), TypeError,
     r"Constant \(.*\): value must be a tensor of numbers, but got a sparse one or strings"),
    (lambda: operate("Squeeze", X, [0]), ValueError,
     r"Squeeze \(.*\): axes must have size 1, but got axes \[0\] of shape \(2, 3\)"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
