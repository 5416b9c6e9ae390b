#!/usr/bin/env bash
# onnx 1.23.2 (onnxruntime 1.32.0): `version_converter` keeps attributes whose meaning changed between opsets, so that the
# new model is valid and computes something else, without a warning. Resize of opset 10, and Upsample on its way to it,
# become a Resize of opset 11 without `coordinate_transformation_mode`, whose default is "half_pixel" where the old nodes
# are "asymmetric": 0, 1 doubled by "linear" is 0, 0.5, 1, 1 before, and 0, 0.25, 0.75, 1 after. "nearest" takes other
# pixels, too, unless the factor is a whole number. Hardmax from opset 12 to 13 has one 1 per row in place of one for all
# that is flattened; Softmax and LogSoftmax are converted by three nodes on the way up, but not at all on the way down,
# 13 to 12. So a segmentation network that is converted to be run by a newer tool has shifted masks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cat > "$folder/convert.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper, version_converter


def converted(op, x, old, new, scale=None, **attributes):
    """What onnxruntime computes before and after the conversion."""
    inputs = ["x"] if scale is None else ["x", "scales"]
    constants = [] if scale is None else [numpy_helper.from_array(np.float32([1, 1, 1, scale]), "scales")]
    shape = x.shape if scale is None else (1, 1, 1, int(x.shape[-1] * scale))
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **attributes)], "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", old)], ir_version=7)
    results = []
    for candidate in (model, version_converter.convert_version(model, new)):
        checker.check_model(candidate, full_check=True)
        session = onnxruntime.InferenceSession(candidate.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"x": x})[0].flatten().round(3).tolist())
    return results


if __name__ == "__main__":
    onnxruntime.set_default_logger_severity(3)
    print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
    two, four = np.float32([[[[0, 1]]]]), np.float32([[[[0, 1, 2, 3]]]])
    rows = np.float32([[[1, 2], [4, 3]]])
    seen = {
        "Upsample linear, 9 to 11": converted("Upsample", two, 9, 11, 2, mode="linear"),
        "Resize linear, 10 to 11": converted("Resize", two, 10, 11, 2, mode="linear"),
        "Resize linear, 10 to 22": converted("Resize", two, 10, 22, 2, mode="linear"),
        "Resize nearest by 1.75, 10 to 11": converted("Resize", four, 10, 11, 1.75, mode="nearest"),
        "Hardmax(axis=1), 12 to 13": converted("Hardmax", rows, 12, 13, axis=1),
        "Softmax(axis=1), 12 to 13": converted("Softmax", rows * 0, 12, 13, axis=1),
        "Softmax(axis=1), 13 to 12": converted("Softmax", rows * 0, 13, 12, axis=1),
    }
    for name, (before, after) in seen.items():
        print(f"{name}: {before} before, {after} after")
    shifted = [[0, 0.5, 1, 1], [0, 0.25, 0.75, 1]]
    assert list(seen.values()) == [
        shifted, shifted, shifted,
        [[0, 0, 1, 1, 2, 2, 3], [0, 0, 1, 1, 2, 3, 3]],
        [[0, 0, 1, 0], [0, 0, 1, 1]],
        [[0.25] * 4] * 2,
        [[0.5] * 4, [0.25] * 4],
    ]
PYTHON
"$folder/venv/bin/python" "$folder/convert.py"
