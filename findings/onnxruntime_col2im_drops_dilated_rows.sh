#!/usr/bin/env bash
# onnxruntime 1.32.0: Col2Im of an image of 1 or 3 axes takes the extent of a dilated block for its number of taps. So it
# drops rows of the columns, and puts others into the wrong channels, silently. With 2 axes, or without dilation, it is
# right. onnx's own evaluator (1.23.2) is right for every number of axes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator


def results(x, image, block, dilations):
    node = onnx.helper.make_node("Col2Im", ["x", "image", "block"], ["y"], dilations=dilations)
    value = onnx.helper.make_tensor_value_info
    inputs = [value("x", 1, [None] * 3), value("image", 7, [len(image)]), value("block", 7, [len(block)])]
    graph = onnx.helper.make_graph([node], "g", inputs, [value("y", 1, [None] * (2 + len(image)))])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    feed = {"x": x, "image": np.array(image), "block": np.array(block)}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, feed)[0], session.run(None, feed)[0]


# Two channels of 5 elements, from one block of 3 taps each, at the places 0, 2 and 4.
columns = np.arange(1, 7, dtype=np.float32).reshape(1, 6, 1)
right, seen = results(columns, [5], [3], [2])
print("onnx        ", right.tolist())
print("onnxruntime ", seen.tolist())
assert right.tolist() == [[[1, 0, 2, 0, 3], [4, 0, 5, 0, 6]]]
assert seen.tolist() == [[[1, 0, 2, 0, 3], [6, 0, 0, 0, 0]]]  # of extent 5: row 5 is the first of channel 1
right, seen = results(columns, [1, 5], [1, 3], [1, 2])  # the same as an image of two axes
assert right.tolist() == seen.tolist() == [[[[1, 0, 2, 0, 3]], [[4, 0, 5, 0, 6]]]]
volume = np.arange(1, 17, dtype=np.float32).reshape(1, 8, 2)
for dilations, is_right in (([1, 1, 1], True), ([2, 2, 2], False)):
    image = [2 if d == 1 else 3 for d in dilations[:2]] + [3 if dilations[2] == 1 else 4]
    right, seen = results(volume, image, [2, 2, 2], dilations)
    print(f"3 axes, dilations {dilations}: {(right != seen).sum()} of {right.size} elements differ")
    assert (right == seen).all() == is_right
PYTHON
