#!/usr/bin/env bash
# onnxslim 0.1.98 (onnx 1.23.2, onnxruntime 1.32.0): a convolution that is multiplied by one number per column (a window,
# a mask), per row or per image becomes, if there are as many columns, rows or images as channels, a convolution whose
# channels are multiplied by these numbers. Four channels of images 4 x 4 are wrong, those of images 4 x 5 are right, and
# so is the same sum (Add) for both. A ConvTranspose is changed alike. And where a Gemm is scaled behind a Reshape, all
# else that reads the Gemm is scaled as well. The result has the right shape, and nothing warns.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxslim==0.1.98 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxslim
from onnx import helper

print("onnxslim", onnxslim.__version__)


def run(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def before_and_after(nodes, x, shapes, constants):
    nodes = [helper.make_node(operator, inputs, [output], **options) for operator, inputs, output, options in nodes]
    outputs = [helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()]
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, x.shape)], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    before = run(model, x)
    return before, run(onnxslim.slim(model), x)


def scaled(convolution, operator, scale, images, width):
    """A convolution with four channels, all of whose outputs are 1, and an operator behind it."""
    nodes = [(convolution, ["x", "weight"], "y", {}), (operator, ["y", "scale"], "z", {})]
    x, weight = np.ones((images, 1, 4, width), "float32"), np.ones((4, 1, 1, 1), "float32")
    weight = weight.swapaxes(0, 1) if convolution == "ConvTranspose" else weight
    constants = {"weight": weight, "scale": scale}
    (before,), (after,) = before_and_after(nodes, x, {"z": [images, 4, 4, width]}, constants)
    return before, after


four = np.arange(1, 5, dtype="float32")
before, after = scaled("Conv", "Mul", four, 1, 4)
print("ones times 1, 2, 3, 4 along the columns, first row of channel 0 and of channel 1:")
print("  before", before[0, :2, 0].tolist(), "after", after[0, :2, 0].tolist())
assert np.array_equal(before, np.broadcast_to(four, (1, 4, 4, 4)))
assert np.array_equal(after, np.broadcast_to(four.reshape(4, 1, 1), (1, 4, 4, 4)))
for convolution in ("Conv", "ConvTranspose"):
    for axis, scale in (("column", four), ("row", four.reshape(4, 1)), ("image", four.reshape(4, 1, 1, 1))):
        for operator in ("Mul", "Add"):
            before, after = scaled(convolution, operator, scale, 4, 4)
            print(f"{convolution}, {operator} of one number per {axis}: {(before != after).sum()} of 256 differ")
            assert np.array_equal(before, after) == (operator == "Add")
before, after = scaled("Conv", "Mul", np.arange(1, 6, dtype="float32"), 1, 5)
assert np.array_equal(before, after)

nodes = [
    ("Gemm", ["x", "weight", "bias"], "y", {"transB": 1}),
    ("Reshape", ["y", "shape"], "in_two", {}),
    ("Mul", ["in_two", "three"], "scaled", {}),
    ("Neg", ["y"], "negative", {}),
]
constants = {"weight": np.eye(2, dtype="f"), "bias": np.ones(2, "f"), "shape": np.array([1, 1, 2]), "three": np.float32(3)}
shapes = {"scaled": [1, 1, 2], "negative": [1, 2]}
before, after = before_and_after(nodes, np.array([[1, 2]], "float32"), shapes, constants)
print("a Gemm, three times as large behind a Reshape, and negative:")
for name, output in (("before", before), ("after ", after)):
    print(" ", name, [values.ravel().tolist() for values in output])
assert before[0].tolist() == after[0].tolist() == [[[6, 9]]]
assert before[1].tolist() == [[-2, -3]] and after[1].tolist() == [[-6, -9]]
PYTHON
