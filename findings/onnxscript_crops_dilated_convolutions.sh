#!/usr/bin/env bash
# onnxscript 0.7.2 (onnx 1.23.2): `onnxscript.optimizer.optimize` replaces auto_pad of a convolution by the padding that
# a kernel without dilation needs. So a dilated convolution of equal size, as segmentation networks have, loses a border
# of each image: 16 x 16 becomes 14 x 14 for dilation 2 and 10 x 10 for 4, and the file still says 16. Behind a global
# pool nothing shows it but other numbers. onnxruntime 1.32.0 refuses the network as it was, and runs the wrong one.
# Also two Clips whose ranges do not meet are merged: -1 to 0, then 1 to 2, is 1 for each x, but 0 afterwards; and a
# Relu behind a Clip to -2 to -1 gives -1 in place of 0. onnxsim 0.8.1 leaves all of these right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnxscript==0.7.2 onnx-ir==1.1.0 onnxsim==0.8.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxscript
import onnxscript.optimizer
import onnxsim
from onnx import helper
from onnx.reference import ReferenceEvaluator

print("onnxscript", onnxscript.__version__, "onnx", onnx.__version__)


def network(nodes, shape, output_shape, constants):
    nodes = [helper.make_node(operator, inputs, [output], **options) for operator, inputs, output, options in nodes]
    ends = [helper.make_tensor_value_info("x", 1, shape)], [helper.make_tensor_value_info("y", 1, output_shape)]
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def outputs(model, x):
    """By onnx's evaluator: of the model as it is, after onnxscript, and after onnxsim."""
    optimized = onnxscript.optimizer.optimize(onnx.load_from_string(model.SerializeToString()))
    simplified, _ = onnxsim.simplify(onnx.load_from_string(model.SerializeToString()))
    return [ReferenceEvaluator(m).run(None, {"x": x})[0] for m in (model, optimized, simplified)], optimized


x = np.ones((1, 1, 16, 16), "float32")
for dilation in (1, 2, 4):
    options = {"auto_pad": "SAME_UPPER", "dilations": [dilation] * 2}
    nodes = [("Conv", ["x", "weight"], "y", options)]
    model = network(nodes, x.shape, x.shape, {"weight": np.ones((1, 1, 3, 3), "float32")})
    (before, after, simplified), optimized = outputs(model, x)
    declared = [size.dim_value for size in optimized.graph.output[0].type.tensor_type.shape.dim]
    print(f"dilation {dilation}: {before.shape} before, {after.shape} after, declared {declared}")
    assert before.shape == simplified.shape == x.shape and declared == list(x.shape)
    assert after.shape[2:] == (16 - 2 * dilation + 2,) * 2
    try:
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
        assert dilation > 1 and "Dilation not supported" in str(error)
    assert onnxruntime.InferenceSession(optimized.SerializeToString()).run(None, {"x": x})[0].shape == after.shape

nodes.append(("GlobalAveragePool", ["z"], "y", {}))
nodes[0] = ("Conv", ["x", "weight"], "z", options)
model = network(nodes, x.shape, [1, 1, 1, 1], {"weight": np.ones((1, 1, 3, 3), "float32")})
(before, after, simplified), _ = outputs(model, x)
print("the mean of the last one:", before.item(), "before,", after.item(), "after")
assert before == simplified == 6.25 and after > 6.7

x = np.array([-9, 0, 9], "float32")
clip = ("Clip", ["x", "a", "b"], "z", {})
for second, bounds, right, seen in (
    (("Clip", ["z", "c", "d"], "y", {}), (-1, 0, 1, 2), [1, 1, 1], [0, 0, 0]),
    (("Relu", ["z"], "y", {}), (-2, -1), [0, 0, 0], [-1, -1, -1]),
    (("Clip", ["z", "c", "d"], "y", {}), (-1, 1, 0, 2), [0, 0, 1], [0, 0, 1]),
):
    constants = dict(zip("abcd", np.array(bounds, "float32")))
    (before, after, simplified), _ = outputs(network([clip, second], [3], [3], constants), x)
    print(f"Clip, then {second[0]}, of bounds {bounds}: {before.tolist()} before, {after.tolist()} after")
    assert before.tolist() == simplified.tolist() == right and after.tolist() == seen
PYTHON
