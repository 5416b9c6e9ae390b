"""What needle.onnx refuses, with its messages."""

import re
import runpy
import sys

import numpy as np
import pytest

import needle as ndl
from needle.onnx import backend, load
from tests.onnx.models import parse
from tests.standin.device import STANDIN

SCAN = "y = Scan <num_scan_inputs = 2, body = b (float a, float c) => (float c) { }> (x, w)"
UNKNOWN = "z = Resize (x, , , s) b = Not (z) y = Cast <to = 1> (b)"  # ONNX does not infer the type of z
TWO_INPUTS = parse("y = Add (x, w)", "float[2] x, float[2] w")


def without_onnx():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        runpy.run_path(f"{ndl.__path__[0]}/onnx/__init__.py")


# fmt: off
ERRORS = [
    (without_onnx, ImportError,
     r"needle\.onnx: needs the package onnx, which `pip install 'needle-dl\[onnx\]'` installs, but got: .*"),
    (lambda: load(parse("y = Relu (x)"), max_bytes=-1), ValueError, r"load: max_bytes must be at least 0, but got -1"),
    (lambda: load(parse("y = Relu (x)"))(ndl.ones(2, dtype="int64")), TypeError,
     r"GraphModule: input 'x' must have dtype float32, but got int64"),
    (lambda: load(parse("y = Relu (x)"))(ndl.ones(3)), ValueError,
     r"GraphModule: input 'x' must have shape \(2\), but got \(3,\)"),
    (lambda: load(parse("y = Relu (x)", "float[n, 2] x", "float[n, 2] y"))(ndl.ones(3)), ValueError,
     r"GraphModule: input 'x' must have shape \(any, 2\), but got \(3,\)"),
    (lambda: load(parse("y = Mul (x, w)", initializers="float w = {2}")).to(STANDIN)(ndl.ones(2)), TypeError,
     r"GraphModule: inputs must be on the device of the module, .*, but 'x' is on cpu\(\)"),
    (lambda: load(parse("y = Cast <to = 99> (x)"))(ndl.ones(2)), TypeError,
     r"Cast \(domain 'ai.onnx', opset 17\): to must be a type of real numbers or bools, but got 99"),
    (lambda: load(parse('y = Pad <mode = "other"> (x, p)', "float[2] x, int64[2] p")), ValueError,
     r"load: mode of Pad must be one of constant, reflect, edge, wrap, but got 'other'"),
    (lambda: load(TWO_INPUTS)(ndl.ones(2)), TypeError, r"GraphModule: inputs must be x, w, but got 1 by position"),
    (lambda: load(TWO_INPUTS)(), TypeError, r"GraphModule: inputs must be x, w, but got none"),
    (lambda: load(TWO_INPUTS)(ndl.ones(2), z=ndl.ones(2)), TypeError,
     r"GraphModule: inputs must be x, w, but got 1 by position, 'z'"),
    (lambda: load(TWO_INPUTS)(ndl.ones(2), x=ndl.ones(2)), TypeError,
     r"GraphModule: inputs must be x, w, but got 1 by position, 'x'"),
    (lambda: backend.prepare(parse("y = Relu (x)"), "TPU"), ValueError,
     r"prepare: device must be 'CPU', 'CUDA' or 'CUDA:1', but got 'TPU'"),
    (lambda: load(parse(UNKNOWN, "float[1] x, int64[n] s"))(ndl.ones(1), np.array([1])), ValueError,
     r"GraphModule: inputs of a node must have the types of its schema, but got: .*tensor\(float\)"),
    (lambda: load(parse(SCAN, "float[n] x, float[m] w"))(ndl.ones(2), ndl.ones(3)), ValueError,
     r"Scan .*: scan inputs must have one length, but got \[2, 3\]"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
