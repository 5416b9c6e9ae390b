"""Operators that compute float16 in float32: results are those of float32, rounded once."""

import numpy as np
import pytest

from tests.onnx.nodes import run

rng = np.random.default_rng(0)


def floats(*shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype("float16")


X = floats(2, 4, 5, 5, scale=300)  # squares, and sums of some, exceed the range of float16
HEADS = floats(1, 2, 3, 4), floats(1, 2, 5, 4), floats(1, 2, 5, 4)
PACKED = floats(1, 3, 8), floats(1, 3, 8), floats(1, 3, 8)
STATISTICS = floats(4), floats(4), floats(4), abs(floats(4))
CASES = [
    ("Attention", [*HEADS, floats(3, 5)], {"scale": 30.0, "softcap": 2.0, "qk_matmul_output_mode": 1, "outputs": 4}),
    (
        "LinearAttention",
        PACKED,
        {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear", "opset": 27, "outputs": 2},
    ),
    ("BatchNormalization", [X, *STATISTICS], {}),
    ("BatchNormalization", [X, *STATISTICS], {"training_mode": 1, "outputs": 3}),
    ("InstanceNormalization", [X, *STATISTICS[:2]], {}),
    ("GroupNormalization", [X, *STATISTICS[:2]], {"num_groups": 2}),
    ("LayerNormalization", [X, floats(5), floats(5)], {"outputs": 3}),
    ("RMSNormalization", [X, floats(5)], {}),
    ("LpNormalization", [X], {"axis": 1}),
    ("MeanVarianceNormalization", [X], {}),
    ("LRN", [X], {"size": 3}),
    ("AveragePool", [X], {"kernel_shape": [3, 3]}),
    ("LpPool", [X], {"kernel_shape": [3, 3]}),
    ("GlobalLpPool", [X], {}),
    ("GlobalAveragePool", [X], {}),
    ("Resize", [X, None, np.float32([1, 1, 1.7, 0.6])], {"mode": "cubic"}),
    ("RoiAlign", [X, np.float16([[0.5, 1, 3.3, 4]]), np.int64([1])], {"output_height": 2, "output_width": 3}),
    ("DeformConv", [X, floats(3, 4, 2, 2), floats(2, 8, 4, 4), floats(3)], {"opset": 22}),
    ("DequantizeLinear", [np.int8([-128, 100]), np.float16(0.37), np.int8(55)], {}),
]


@pytest.mark.parametrize(("op_type", "inputs", "options"), CASES)
def test_float16_is_rounded_once(op_type, inputs, options):
    def outputs(dtype):
        wide = [x.astype(dtype) if getattr(x, "dtype", None) == "float16" else x for x in inputs]
        return run(op_type, wide, **{"opset": 23} | options)

    with np.errstate(over="ignore"):
        for half, single in zip(outputs("float16"), outputs("float32"), strict=True):
            np.testing.assert_array_equal(half.numpy(), single.numpy().astype(half.dtype))
