"""Linear models and scalings of ai.onnx.ml, beside onnxruntime."""

from functools import partial

import numpy as np
import pytest

from needle.onnx import load
from tests.onnx.models import parse
from tests.onnx.one_node import in_onnxruntime, operate

rng = np.random.default_rng(0)
X = rng.standard_normal((4, 3)).astype("float32")
W = rng.standard_normal(6).tolist()
classify = partial(operate, "LinearClassifier", X, domain="ai.onnx.ml", opset=1)

# fmt: off
ERRORS = [
    (lambda: classify(coefficients=W, classlabels_strings=["a", "b"]), ValueError,
     r"LinearClassifier \(.*\): coefficients must be given for each of classlabels_ints, but those are None"),
    (lambda: classify(coefficients=W[:3], classlabels_ints=[0, 1]), ValueError,
     r"LinearClassifier \(.*\): coefficients must be .*, but those are \[0, 1\]"),
    (lambda: classify(coefficients=W, classlabels_ints=[0, 1], post_transform="PROBIT"), ValueError,
     r"LinearClassifier \(.*\): post_transform must be one of NONE, LOGISTIC, SOFTMAX, but got 'PROBIT'"),
]

CASES = [
    ("LinearRegressor", {"coefficients": W[:3]}),
    ("LinearRegressor", {"coefficients": W, "intercepts": [1.0, -2.0], "targets": 2}),
    *(("LinearClassifier", {"coefficients": W, "intercepts": [0.3, 0.1], "classlabels_ints": [7, 4],
                            "post_transform": name}) for name in ("NONE", "LOGISTIC", "SOFTMAX")),
    ("Scaler", {"offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, -1.0]}),
    ("Scaler", {"offset": [1.0], "scale": [0.5]}),
    *(("Normalizer", {"norm": name}) for name in ("MAX", "L1", "L2")),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize(("name", "attributes"), CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_agrees_with_onnxruntime(name, attributes, dtype):
    x, options = np.abs(4 * X).astype(dtype), {"domain": "ai.onnx.ml", **attributes}
    x[0] = 0
    outputs = 2 if name == "LinearClassifier" else 1
    results = operate(name, x, opset=1, outputs=outputs, **options)
    x = x.astype("float32") if name == "LinearRegressor" else x  # which onnxruntime has for no other
    expected = in_onnxruntime(name, x, outputs=outputs, **options)
    for result, value in zip(results if outputs == 2 else [results], expected, strict=True):
        assert result.dtype == value.dtype
        np.testing.assert_allclose(result.numpy(), value, atol=1e-6)


def test_gradients_reach_what_stands_before():
    model = parse("z = Mul (x, w) y = own.LinearRegressor <coefficients = [2.0, 3.0], targets = 1> (z)",
                  "float[1, 2] x", "float[n, m] y", initializers="float[2] w = {1, 1}")  # fmt: skip
    model.graph.node[1].domain = model.opset_import[1].domain = "ai.onnx.ml"
    module = load(model)
    module([[1, 10]]).sum().backward()
    assert module.parameters()[0].grad.numpy().tolist() == [2, 30]
