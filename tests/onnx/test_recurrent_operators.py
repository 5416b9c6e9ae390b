"""RNN, GRU and LSTM of ONNX: every option against onnxruntime, and derivatives."""

import re

import numpy as np
import pytest

import needle as ndl
from tests.onnx.one_node import in_onnxruntime, operate

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"RNN": 1, "GRU": 2, "LSTM": 3}
NUMBERS = {"Affine": 2, "Elu": 1, "HardSigmoid": 2, "LeakyRelu": 1, "ScaledTanh": 2, "ThresholdedRelu": 1}
FUNCTIONS = [*NUMBERS, "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"]


def draw(seed):
    """An operator, inputs and attributes."""
    rng = np.random.default_rng(seed)

    def maybe(value, probability=0.5):
        return value if rng.random() < probability else None

    op_type = rng.choice(list(GATES))
    attributes = {"direction": rng.choice(["forward", "reverse", "bidirectional"])}
    directions = 1 + (attributes["direction"] == "bidirectional")
    steps, batch, features, size = rng.integers(1, 5, 4)
    rows = GATES[op_type] * size
    shapes = [(steps, batch, features), (directions, rows, features), (directions, rows, size), (directions, 2 * rows)]
    x, w, r, b = ((0.7 * rng.standard_normal(shape)).astype("float32") for shape in shapes)
    state = rng.standard_normal((3, directions, batch, size)).astype("float32")
    inputs = [x, w, r, maybe(b), maybe(rng.integers(1, steps + 1, batch).astype("int32")), maybe(state[0])]
    if op_type == "LSTM":
        inputs += [maybe(state[1]), maybe(rng.standard_normal((directions, 3 * size)).astype("float32"))]
        attributes["input_forget"] = int(rng.integers(2))
    if op_type == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    if rng.random() < 0.5:
        names = [str(name) for name in rng.choice(FUNCTIONS, ACTIVATIONS[op_type] * directions)]
        counts = [NUMBERS.get(name, 0) for name in names]
        attributes["activations"] = names
        attributes["activation_alpha"] = [round(rng.uniform(0.2, 1), 2) for count in counts if count]
        attributes["activation_beta"] = [round(rng.uniform(0.2, 1), 2) for count in counts if count == 2]
    if rng.random() < 0.3:
        attributes["clip"] = round(rng.uniform(0.2, 1.5), 2)
    return op_type, inputs, {name: value for name, value in attributes.items() if not isinstance(value, list) or value}


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_onnxruntime(seed):
    op_type, inputs, attributes = draw(seed)
    outputs = 2 + (op_type == "LSTM")
    expected = in_onnxruntime(op_type, *inputs, outputs=outputs, hidden_size=inputs[2].shape[2], **attributes)
    results = operate(op_type, *inputs, outputs=outputs, **attributes)
    for result, y in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.numpy(), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("RNN", {"direction": "reverse", "clip": 0.9}),
        ("GRU", {"direction": "bidirectional"}),
        ("GRU", {"linear_before_reset": 1, "layout": 1}),
        ("LSTM", {"direction": "bidirectional", "layout": 1}),
        ("LSTM", {"input_forget": 1, "activations": ["HardSigmoid", "Softplus", "Elu"]}),
    ],
)
def test_derivatives(op_type, attributes):
    rng = np.random.default_rng(0)
    directions, rows = 1 + (attributes.get("direction") == "bidirectional"), 2 * GATES[op_type]
    state = (directions, 2, 2)
    shapes = [(2, 2, 3), (directions, rows, 3), (directions, rows, 2), (directions, 2 * rows), None, state]
    if op_type == "LSTM":
        shapes += [state, (directions, 6)]
    inputs = [ndl.Tensor(0.5 * rng.standard_normal(shape)) for shape in shapes if shape is not None]
    lengths = ndl.Tensor([1, 2], dtype="int32", requires_grad=False)
    if attributes.get("layout"):
        inputs[4:6] = [ndl.Tensor(np.moveaxis(x.numpy(), 0, 1)) for x in inputs[4:6]]
    assert ndl.gradcheck(
        lambda *given: operate(op_type, *given[:4], lengths, *given[4:], opset=22, **attributes), *inputs, order=1
    )


def test_a_sequence_that_ended_keeps_its_state_and_yields_zeros():
    rng = np.random.default_rng(0)
    x, w, r = (rng.standard_normal(shape) for shape in [(3, 2, 1), (1, 4, 1), (1, 4, 1)])
    y, h, c = operate("LSTM", x, w, r, None, np.int32([2, 0]), outputs=3)
    short, last, _ = operate("LSTM", x[:2], w, r, outputs=3)
    np.testing.assert_allclose(y.numpy()[:2, :, 0], short.numpy()[:, :, 0])
    np.testing.assert_allclose(h.numpy()[:, 0], last.numpy()[:, 0])
    assert not y.numpy()[2].any()
    assert not y.numpy()[:, :, 1].any()
    assert not c.numpy()[:, 1].any()


def test_activations_have_defaults_of_their_own():
    """Those of the operators of the same names; onnxruntime takes 0 for the alpha of ThresholdedRelu."""
    x, w, r = np.float32([[[1.5], [0.5], [-2.0]]]), np.ones((1, 1, 1), "float32"), np.zeros((1, 1, 1), "float32")
    for name, expected in [
        ("ThresholdedRelu", [1.5, 0, 0]),
        ("LeakyRelu", [1.5, 0.5, -0.02]),
        ("HardSigmoid", [0.8, 0.6, 0.1]),
        ("affine", [1.5, 0.5, -2]),
    ]:
        y, _ = operate("RNN", x, w, r, outputs=2, activations=[name])
        np.testing.assert_allclose(y.numpy().ravel(), expected, rtol=1e-6)


def rnn(directions=1, **attributes):
    weight = np.ones((directions, 1, 1))
    return operate("RNN", np.ones((2, 1, 1)), weight, weight, outputs=2, **attributes)


# fmt: off
ERRORS = [
    (lambda: rnn(direction="bidirectional"), ValueError,
     r"RNN \(.*\): W and R must be \(2, 1\) and the features they read, but got \(1, 1, 1\) and \(1, 1, 1\)"),
    (lambda: rnn(direction="back"), ValueError,
     r"RNN \(.*\): direction must be one of forward, foward, reverse, bidirectional, but got 'back'"),
    (lambda: rnn(2, direction="bidirectional", activations=["Tanh"]), ValueError,
     r"RNN \(.*\): activations must name 1 functions for each of 2 directions, but got \['Tanh'\]"),
    (lambda: rnn(activations=["Sin"]), ValueError, r"RNN \(.*\): activations must be of affine, .*, but got 'Sin'"),
    (lambda: rnn(activations=["ScaledTanh"], activation_alpha=[1.0]), ValueError,
     r"RNN \(.*\): ScaledTanh must have activation_alpha and activation_beta, but got \[1\.0, None\]"),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)
