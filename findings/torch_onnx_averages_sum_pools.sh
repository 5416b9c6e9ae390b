#!/usr/bin/env bash
# torch 2.13.0 (onnxscript 0.7.2, onnxruntime 1.32.0): `torch.onnx.export` leaves `divisor_override` of avg_pool2d and
# avg_pool3d out, without an error or a warning, with dynamo=True and False. So a pool that sums, divisor_override=1,
# becomes one that averages: ones give 1 in place of 9 for a kernel of 3 x 3, in place of 27 for 3 x 3 x 3, and all that
# follows works on values as many times too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 onnxscript==0.7.2 onnx-ir==1.1.0 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import logging
import warnings

import onnxruntime
import torch
from torch import nn

logging.disable(logging.WARNING)  # torchvision is not installed
print("torch", torch.__version__)
for pool, axes in ((nn.AvgPool2d, 2), (nn.AvgPool3d, 3)):
    layer, x = pool(3, divisor_override=1).eval(), torch.ones(1, 1, *[3] * axes)
    for dynamo in (True, False):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.onnx.export(layer, (x,), "pool.onnx", input_names=["x"], dynamo=dynamo, verbose=False)
        session = onnxruntime.InferenceSession("pool.onnx", providers=["CPUExecutionProvider"])
        exported = session.run(None, {"x": x.numpy()})[0].item()
        print(f"{pool.__name__}, dynamo={dynamo}: torch {layer(x).item()}, exported {exported}")
        assert layer(x) == 3**axes and exported == 1
        assert not any("divisor" in str(warning.message) for warning in told)
PYTHON
