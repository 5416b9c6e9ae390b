#!/usr/bin/env bash
# onnxruntime 1.32.0 (onnx 1.23.2, NumPy 2.4.6): to the operator Unique a NaN equals every number, so elements vanish.
# Of [NaN, 1, 2] the only unique element is NaN, counted 3 times; of [1, 2, NaN] they are 1 and 2, with counts 2 and 1;
# of [2, NaN, 1] they are 1 and 2, too. onnx's own reference evaluator finds three each time, as NumPy does.
# And Slice takes the end 2147483647 (or 2 ** 63 - 1) of a slice that goes backwards for "up to the first element":
# [1, 2, 3] from place 1 by steps of -1 gives [2, 1], while the end 2147483646 gives nothing. The reference evaluator
# gives nothing for both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

print("onnxruntime", onnxruntime.__version__, "onnx", onnx.__version__, "NumPy", np.__version__)


def run(text, **inputs):
    """The outputs in onnxruntime and in the reference evaluator, as lists."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results = session.run(None, inputs), ReferenceEvaluator(model).run(None, inputs)
    return [[array.tolist() for array in outputs] for outputs in results]


unique = """g (float[n] x) => (float[m] y, int64[m] first, int64[n] places, int64[m] counts) {
    y, first, places, counts = Unique(x)
}"""
nan, seen = float("nan"), []
for values in ([1.0, 2.0, nan], [nan, 1.0, 2.0], [2.0, nan, 1.0]):
    ours, reference = run(unique, x=np.array(values, "float32"))
    print(values, "onnxruntime:", ours[0], "counts", ours[3], "| reference:", reference[0], "counts", reference[3])
    assert len(reference[0]) == 3
    seen.append(ours[0])
assert [len(values) for values in seen] == [2, 1, 2]

slices = """g (float[n] x, int64[1] start, int64[1] end, int64[1] axis, int64[1] step) => (float[m] y) {
    y = Slice(x, start, end, axis, step)
}"""
numbers = {name: np.array([value]) for name, value in {"start": 1, "axis": 0, "step": -1}.items()}
for end, expected in ((2**31 - 1, [2.0, 1.0]), (2**63 - 1, [2.0, 1.0]), (2**31 - 2, [])):
    (ours,), (reference,) = run(slices, x=np.array([1, 2, 3], "float32"), end=np.array([end]), **numbers)
    print("backwards from 1 to", end, "onnxruntime:", ours, "| reference:", reference)
    assert (ours, reference) == (expected, [])
PYTHON
