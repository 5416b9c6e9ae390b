#!/usr/bin/env bash
# onnx 1.23.2: ReferenceEvaluator, ONNX's own executable standard, trains each BatchNormalization of opset 9 to 13, the
# opsets of many published models. It normalizes by 0.9 of the running statistics and 0.1 of the batch's, silently. So the
# result for one image depends on the others in the batch: a 2, for a layer with mean 0 and variance 1, becomes 1.9 beside
# a 0, and -0.02 beside a 40. It is 2 from opset 14 on, and in onnxruntime 1.32.0 for all opsets.
# Of opset 12 and older, Softmax and LogSoftmax run by the rule of opset 13, along one axis, though they should flatten
# all axes from `axis` on: four equal numbers, 2 x 2, are 0.5 each, not 0.25. Whoever takes the evaluator for the truth
# finds onnxruntime wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/evaluate.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def results(opset, op, x, constants=(), **attributes):
    """Of onnx's evaluator and of onnxruntime."""
    names = ["x", *"abcd"[: len(constants)]]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, x.shape)],
        [numpy_helper.from_array(np.float32([value]), name) for name, value in zip("abcd", constants)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)
    checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    both = ReferenceEvaluator(model).run(None, {"x": x}), session.run(None, {"x": x})
    return [np.round(result.flatten().tolist(), 2).tolist() for (result,) in both]


def normalized(opset, *batch):
    # scale 1, bias 0, running mean 0, running variance 1
    return results(opset, "BatchNormalization", np.float32(batch)[:, None], (1, 0, 0, 1))


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(3)
    print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
    for opset in (9, 11, 13, 14, 15, 22):
        seen = normalized(opset, 2, 0), normalized(opset, 2, 40)
        for batch, (evaluator, runtime) in zip(("2 and 0", "2 and 40"), seen):
            print(f"BatchNormalization, opset {opset}, {batch}: {evaluator} by the evaluator, {runtime} by onnxruntime")
        right = [[2, 0], [2, 40]]
        assert [runtime for _, runtime in seen] == right
        assert [evaluator for evaluator, _ in seen] == ([[1.9, -0.1], [-0.02, 6.23]] if opset < 14 else right)
    for opset in (11, 12, 13):
        for op in ("Softmax", "LogSoftmax"):
            evaluator, runtime = results(opset, op, np.zeros((1, 2, 2), "float32"), axis=1)
            print(f"{op}(axis=1), opset {opset}: {evaluator} by the evaluator, {runtime} by onnxruntime")
            half, quarter = (0.5, 0.25) if op == "Softmax" else (-0.69, -1.39)
            assert evaluator == [half] * 4 and runtime == ([quarter] if opset < 13 else [half]) * 4
PYTHON
"$folder/venv/bin/python" "$folder/evaluate.py"
