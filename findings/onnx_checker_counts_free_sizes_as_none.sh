#!/usr/bin/env bash
# onnx 1.23.2 and onnxruntime 1.32.0: a model whose Resize takes `sizes` from an input of free length, int64[n], is
# refused by `checker.check_model(full_check=True)`, by strict shape inference, and when onnxruntime opens it: "Number of
# elements of input 'sizes' (0) must be same as rank of input 'X' (4)". The free length is read as 0. The same model with
# int64[4] passes, `scales` of free length pass, too, and onnx.reference runs it. Not strict, the inference says nothing,
# and leaves out the type of the result, so that what follows has no types either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnx.reference
import onnxruntime


def model(inputs, node):
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 19]> g (float[1, 1, 2, 2] x, {inputs}) => (float[a, b, c, d] y) '
        f"{{ z = Resize ({node}) y = Relu (z) }}"
    )


def complaint(proto):
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.shape_inference.InferenceError as error:
        return " ".join(str(error).split())


free = model("int64[n] s", "x, , , s")
print(complaint(free))
assert "Number of elements of input 'sizes' (0) must be same as rank of input 'X' (4)" in complaint(free)
assert complaint(model("int64[4] s", "x, , , s")) is None
assert complaint(model("float[n] s", "x, , s")) is None

try:
    onnxruntime.InferenceSession(free.SerializeToString(), providers=["CPUExecutionProvider"])
    raise SystemExit("onnxruntime opens it")
except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
    print("onnxruntime:", error)
    assert "Number of elements of input 'sizes' (0)" in str(error)
feeds = {"x": np.ones((1, 1, 2, 2), "float32"), "s": np.array([1, 1, 3, 5])}
(y,) = onnx.reference.ReferenceEvaluator(free).run(None, feeds)
print("onnx.reference:", y.shape)
assert y.shape == (1, 1, 3, 5)

types = [value.name for value in onnx.shape_inference.infer_shapes(free).graph.value_info]
print("types inferred without strict_mode:", types)
assert types == []
PYTHON
