#!/usr/bin/env bash
# onnx 1.23.2: ReferenceEvaluator, ONNX's own executable standard, computes LRN for as many channels as the batch has
# images, because its loop over channels runs over the batch axis. The other channels are only divided by bias ** beta.
# So an image alone and the same image in a batch give different results, silently. The official test case has 5 images
# of 5 channels and passes. onnxruntime 1.32.0 is right.
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

TEXT = '<ir_version: 8, opset_import: ["": 13]> g (float[n, 3, 1, 1] x) => (float[n, 3, 1, 1] y) {{ {} }}'
model = onnx.parser.parse_model(TEXT.format("y = LRN <size = 3, alpha = 3.0, beta = 1.0, bias = 1.0> (x)"))
onnx.checker.check_model(model, full_check=True)
image = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
batch = image.repeat(3, 0)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
seen = {}
for name, run in (("onnx", ReferenceEvaluator(model).run), ("onnxruntime", session.run)):
    for size, x in ((1, image), (3, batch)):
        seen[name, size] = run(None, {"x": x})[0][0].ravel()
        print(f"{name:12} the image in a batch of {size}: {seen[name, size]}")
right = [1 / (1 + 1 + 4), 2 / (1 + 1 + 4 + 9), 3 / (1 + 4 + 9)]  # x / (bias + alpha / size * sum of squares)
for key in (("onnx", 3), ("onnxruntime", 1), ("onnxruntime", 3)):
    np.testing.assert_allclose(seen[key], right, rtol=1e-6)
np.testing.assert_allclose(seen["onnx", 1], [right[0], 2, 3], rtol=1e-6)
PYTHON
