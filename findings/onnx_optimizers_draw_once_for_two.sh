#!/usr/bin/env bash
# Optimizers of ONNX models take two random nodes with the same input for one and the same value. "If not specified we will
# auto generate one", says ONNX of their seed, so two nodes are two draws. But onnxruntime 1.32.0, as it is by default,
# onnxsim 0.8.1, onnxslim 0.1.98 and onnxscript 0.7.2 draw once: the difference of two Bernoulli samples becomes 0 in all
# four, that of two normal samples in onnxsim and onnxslim, that of two dropouts in training mode in onnxsim and onnxscript.
# So two masks or noises of one network are equal, and an uncertainty that is measured by two dropouts of one input is 0.
# There is no warning. Nodes whose attributes `seed` differ stay two draws.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.32.0 onnxsim==0.8.1 onnxslim==0.1.98 onnxscript==0.7.2 onnx-ir==1.1.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import onnxsim
import onnxslim
from onnx import helper

LEVELS = onnxruntime.GraphOptimizationLevel


def difference_of_two(operator, *inputs, seeds=(None, None)):
    """x - y for two nodes x and y of an operator that draws at random."""
    nodes = [helper.make_node(operator, ["data", *inputs], [y], seed=seed) for y, seed in zip("xy", seeds, strict=True)]
    nodes.append(helper.make_node("Sub", ["x", "y"], ["difference"]))
    data, difference = (helper.make_tensor_value_info(name, 1, [1000]) for name in ("data", "difference"))
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    constants = [onnx.numpy_helper.from_array(np.asarray(constants[name]), name) for name in inputs]
    graph = helper.make_graph(nodes, "two draws", [data], [difference], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def are_equal(model, level=LEVELS.ORT_DISABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    difference = session.run(None, {"data": np.full(1000, 0.5, "float32")})[0]
    assert np.count_nonzero(difference) in (0, *range(300, 1001))
    return not difference.any()


def after_each_tool(model):
    def copy():
        return onnx.load_from_string(model.SerializeToString())

    return {
        "onnxruntime": are_equal(model, onnxruntime.SessionOptions().graph_optimization_level),
        "onnxsim": are_equal(onnxsim.simplify(copy())[0]),
        "onnxslim": are_equal(onnxslim.slim(copy())),
        "onnxscript": are_equal(onnxscript.optimizer.optimize(copy())),
    }


seen = {}
for operator, *inputs in (["Bernoulli"], ["RandomNormalLike"], ["Dropout", "ratio", "training"]):
    model = difference_of_two(operator, *inputs)
    assert not are_equal(model)
    seen[operator] = after_each_tool(model)
    print(f"two of {operator} are equal after", ", ".join(tool for tool, equal in seen[operator].items() if equal))
del seen["Dropout"]["onnxslim"]  # it removes each Dropout, as a tool for inference may
assert seen == {
    "Bernoulli": {"onnxruntime": True, "onnxsim": True, "onnxslim": True, "onnxscript": True},
    "RandomNormalLike": {"onnxruntime": False, "onnxsim": True, "onnxslim": True, "onnxscript": False},
    "Dropout": {"onnxruntime": False, "onnxsim": True, "onnxscript": True},
}
assert not any(after_each_tool(difference_of_two("Bernoulli", seeds=(1.0, 2.0))).values())
PYTHON
