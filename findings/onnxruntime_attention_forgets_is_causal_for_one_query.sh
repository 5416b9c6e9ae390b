#!/usr/bin/env bash
# onnxruntime 1.32.0 (onnx 1.23.2, CPU): Attention (opset 23) with is_causal=1 and a past gives one query another result
# than the same query with a second one behind it, which a causal mask hides from it: alone, it attends to all new keys,
# also those after its own place. With two queries, or without a past, the mask is right, as in onnx.reference.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

rng = np.random.default_rng(0)
q, k, v, past_k, past_v = (rng.standard_normal((1, 1, n, 4)).astype("float32") for n in (2, 3, 3, 1, 1))


def attend(q, *past):
    """The output of the first query in onnxruntime and in onnx.reference."""
    given = dict(zip(["q", "k", "v", "past_k", "past_v"], [q, k, v, *past]))
    names = ["q", "k", "v", *(["", "past_k", "past_v"] if past else [])]
    outputs = ["y", *(["present_k", "present_v"] if past else [])]
    value = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(
        [helper.make_node("Attention", names, outputs, is_causal=1)], "g",
        [value(name, x.shape) for name, x in given.items()], [value(name, None) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0][0, 0, 0], ReferenceEvaluator(model).run(None, given)[0][0, 0, 0]


def softmax_average(keys, values):
    weights = np.exp(keys @ q[0, 0, 0] / 2)
    return weights / weights.sum() @ values


all_keys, all_values = np.concatenate([past_k, k], 2)[0, 0], np.concatenate([past_v, v], 2)[0, 0]
alone, reference = attend(q[:, :, :1], past_k, past_v)
pair, _ = attend(q, past_k, past_v)
print("first of two queries:", pair)
print("the same query alone:", alone)
print("onnx.reference alone:", reference)
assert np.allclose(pair, reference, atol=1e-6)
assert np.allclose(pair, softmax_average(all_keys[:2], all_values[:2]), atol=1e-6)  # the past key and its own
assert np.allclose(alone, softmax_average(all_keys, all_values), atol=1e-6)  # all four
assert not np.allclose(alone, pair, atol=1e-3)
assert np.allclose(*attend(q[:, :, :1]), atol=1e-6)  # without a past
PYTHON
