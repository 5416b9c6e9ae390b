"""What needle.onnx refuses, with its messages."""

import re
import runpy
import sys

import onnx
import pytest

import needle as ndl
from needle.onnx import load

ONE = "y = Scan <num_scan_inputs = 1, body = b (float a) => (float a) { }> (x)"
TWO = "y = Scan <num_scan_inputs = 2, body = b (float a, float c) => (float c) { }> (x, w)"


def parse(text, inputs="float[2] x", outputs="y"):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => ({outputs}) {{ {text} }}')


def without_onnx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        runpy.run_path(f"{ndl.__path__[0]}/onnx/__init__.py")


# fmt: off
ERRORS = [
    (without_onnx, ImportError,
     r"needle\.onnx: needs the package onnx, which `pip install 'needle-dl\[onnx\]'` installs, but got: .*"),
    (lambda: load(parse("y = Foo (x)")), ValueError, r"load: .*Foo.*"),
    (lambda: load(parse(ONE))(ndl.ones(2, dtype="float64")), TypeError,
     r"load: input 'x' must have dtype float32, but got float64"),
    (lambda: load(parse(TWO, "float[n] x, float[m] w"))(ndl.ones(2), ndl.ones(3)), ValueError,
     r"Scan .*: scan inputs must have one length, but got \[2, 3\]"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
