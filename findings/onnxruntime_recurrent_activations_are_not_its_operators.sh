#!/usr/bin/env bash
# onnxruntime 1.32.0 (onnx 1.23.2, CPU): the activations inside RNN, GRU and LSTM are not the operators of the same
# names. Softplus of 100 is infinity inside, 100 outside. ThresholdedRelu without an alpha takes 0 inside, 1 outside,
# although the standard says that the defaults "are the same as of corresponding ONNX operators"; those of LeakyRelu,
# Elu and HardSigmoid are the same. An RNN with weight 1 and recurrent weight 0 applies its activation, nothing else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

X = np.array([100, 0.5, -2], "float32")


def run(node, initializers=()):
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    shape = X.reshape(1, 3, 1).shape
    graph = helper.make_graph([node], "g", [value("x", shape)], [value("y", None)], list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X.reshape(shape)})[0].ravel()


def inside(name):
    weights = [numpy_helper.from_array(np.full((1, 1, 1), n, "float32"), key) for key, n in (("W", 1), ("R", 0))]
    node = helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=1, activations=[name])
    return run(node, weights)


seen = {}
for name in ["Softplus", "ThresholdedRelu", "LeakyRelu", "Elu", "HardSigmoid"]:
    alone, within = run(helper.make_node(name, ["x"], ["y"])), inside(name)
    seen[name] = bool(np.allclose(alone, within))
    print(f"{name:16} of {X}: operator {alone}, in RNN {within}")
assert seen == {"Softplus": False, "ThresholdedRelu": False, "LeakyRelu": True, "Elu": True, "HardSigmoid": True}
assert inside("Softplus")[0] == np.inf
assert inside("ThresholdedRelu").tolist() == [100, 0.5, 0]
PYTHON
