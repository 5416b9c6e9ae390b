"""Options that are changed after a layer was made: heeded, or refused; for every option of every layer."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import needle as ndl
from needle import nn
from tests.nn.functional.alike import normal, raises
from tests.nn.test_layers import LAYERS

NOT_LAYERS = {"Buffer", "Identity", "Module", "ModuleDict", "ModuleList", "Parameter", "ParameterList", "Residual"}
NOT_LAYERS |= {"Sequential"}
NAMES = sorted({name for name in nn.__all__ if isinstance(getattr(nn, name), type)} - NOT_LAYERS)
SIGNS, CLASSES, FLAT = np.array([1, -1, 1, -1]), np.array([0, 2, 1, 0]), (4, 3)
UNIT = np.random.default_rng(0).uniform(0.1, 0.9, FLAT)
X = normal(*FLAT, seed=1)
# The layers that test_layers does not have: how to make one, and its operands; losses by default take two (4, 3).
MORE = {
    "CosineEmbeddingLoss": (lambda: nn.CosineEmbeddingLoss(), (X, UNIT, SIGNS)),
    "CosineSimilarity": (lambda: nn.CosineSimilarity(), (X, UNIT)),
    "CrossEntropyLoss": (lambda: nn.CrossEntropyLoss(), (X, CLASSES)),
    "BCELoss": (lambda: nn.BCELoss(), (UNIT, UNIT[::-1].copy())),
    "Embedding": (lambda: nn.Embedding(5, 3), (CLASSES,)),
    "GRU": (lambda: nn.GRU(3, 2), (normal(5, *FLAT),)),
    "GaussianNLLLoss": (lambda: nn.GaussianNLLLoss(), (X, UNIT, UNIT)),
    "HingeEmbeddingLoss": (lambda: nn.HingeEmbeddingLoss(), (X[:, 0], SIGNS)),
    "LSTM": (lambda: nn.LSTM(3, 2), (normal(5, *FLAT),)),
    "LSTMCell": (lambda: nn.LSTMCell(3, 2), (X,)),
    "MarginRankingLoss": (lambda: nn.MarginRankingLoss(), (X[:, 0], X[:, 1], SIGNS)),
    "MultiHeadAttention": (lambda: nn.MultiHeadAttention(), (normal(1, 2, 4, 3),) * 3),
    "MultiLabelMarginLoss": (lambda: nn.MultiLabelMarginLoss(), (X, np.array([[0, -1, 2]] * 4))),
    "MultiMarginLoss": (lambda: nn.MultiMarginLoss(), (X, CLASSES)),
    "NLLLoss": (lambda: nn.NLLLoss(), (X, CLASSES)),
    "RNN": (lambda: nn.RNN(3, 2), (normal(5, *FLAT),)),
    "SoftMarginLoss": (lambda: nn.SoftMarginLoss(), (X[:, 0], SIGNS)),
    "SoftmaxLoss": (lambda: nn.SoftmaxLoss(), (X, CLASSES)),
    "Transformer": (lambda: nn.Transformer(3, 4, 1, num_head=2, dim_head=3), (normal(5, *FLAT),)),
    "TripletMarginLoss": (lambda: nn.TripletMarginLoss(), (X, UNIT, X[::-1].copy())),
} | {f"MaxUnpool{d}d": (lambda d=d: getattr(nn, f"MaxUnpool{d}d")(2), None) for d in (1, 2, 3)}  # fmt: skip
OTHERS = {  # another value of an option, where its type does not say it
    "mode": "nearest-exact", "nonlinearity": "relu", "approximate": "tanh", "padding_mode": "reflect",
    "reduction": "sum", "scale_factor": 3.0, "align_corners": True, "size": (4, 4), "padding_idx": 1, "dim": 0,
    "weight": ndl.Tensor([0.5, 1.0, 2.0], dtype="float32"), "pos_weight": ndl.Tensor([0.5, 1.0, 2.0], dtype="float32"),
    "divisor_override": 3, "output_size": 2, "dropout": 0.5, "normalized_shape": (3, 6), "recompute_scale_factor": True,
}  # fmt: skip


def layer_and_operands(name):
    warnings.simplefilter("ignore")  # a softmax without an axis
    if name in LAYERS:
        make, shape = LAYERS[name]
        return make(), (normal(*shape),)
    make, operands = MORE.get(name) or (getattr(nn, name), (X, UNIT))
    if operands is None:
        rank = int(name[-2])
        x = normal(2, 3, *(6,) * rank).astype("float32")
        return make(), getattr(nn.functional, f"max_pool{rank}d")(ndl.Tensor(x), 2, return_indices=True)
    return make(), operands


def options_of(layer):
    """The options of a layer's constructor that are no parameters."""
    names = inspect.signature(type(layer)).parameters
    return [name for name in names if name not in ("device", "dtype", "num_features", "bias")] + [
        "num_features" for name in names if name == "num_features" and "dim" not in names
    ]


def another(name, value):
    """Another value of the same kind."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return tuple(n + 1 for n in value)
    if isinstance(value, float):
        return value / 2 + 0.25
    if value is None:
        return {"stride": 1, "eps": 0.5}[name]
    assert isinstance(value, int), f"give another value of {name} in OTHERS"
    return value + 1


def outcome(layer, operands):
    """The values of a call, or the error that it raises; dropout draws the same for every call."""
    np.random.seed(1)
    tensors = [ndl.Tensor(x, dtype="float32" if x.dtype.kind == "f" else None) if isinstance(x, np.ndarray) else x
               for x in operands]  # fmt: skip
    try:
        result = layer(*tensors)
    except (IndexError, TypeError, ValueError) as error:
        return str(error)
    return [part.numpy() for part in parts_of(result)]


def parts_of(result):
    return [part for entry in result for part in parts_of(entry)] if isinstance(result, tuple) else [result]


def same(one, other):
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return all(a.shape == b.shape and np.array_equal(a, b, equal_nan=True) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_is_set_later_is_heeded_or_refused(name, subtests):
    for option in options_of(layer_and_operands(name)[0]):
        with subtests.test(option=option):
            np.random.seed(0)
            layer, operands = layer_and_operands(name)
            assert hasattr(layer, option), "an option that is no attribute can be set without an effect"
            before = getattr(layer, option)
            value = another(option, before)
            try:
                setattr(layer, option, value)
            except (AttributeError, TypeError, ValueError):
                assert getattr(layer, option) is before
                continue
            taken = {key: getattr(layer, key) for key in options_of(layer) if hasattr(layer, key)}
            taken |= {key: part.p for key, part in taken.items() if isinstance(part, nn.Dropout)}
            if "bias" in inspect.signature(type(layer)).parameters:
                taken["bias"] = True
            actual = outcome(layer, operands)
            try:
                twin = type(layer)(**taken)
                state = layer.state_dict()
                twin.load_state_dict({key: state[key] for key in twin.state_dict()})
            except (TypeError, ValueError):
                twin = None
            if twin is None:
                assert isinstance(actual, str), "a new layer refuses this value"
                continue
            expected = outcome(twin, operands)
            assert same(actual, expected)
            assert repr(layer).split(f"{option}=")[-1][:3] == repr(twin).split(f"{option}=")[-1][:3]


@pytest.mark.parametrize("name", NAMES)
def test_flags_are_bools(name, subtests):
    layer, _ = layer_and_operands(name)
    parameters = inspect.signature(type(layer)).parameters
    flags = {key for key, parameter in parameters.items() if isinstance(parameter.default, bool)}
    positional = {
        key: getattr(layer, key) for key, parameter in parameters.items()
        if key == "dim" or parameter.default is inspect.Parameter.empty
    }  # fmt: skip
    for flag in flags:
        for value in 0, "no", None:
            message = rf"^\w+: {flag} must be a bool, but got {type(value).__name__}$"
            with subtests.test(flag=flag, value=value), pytest.raises(TypeError, match=message):
                type(layer)(**positional, **{flag: value})
            if flag != "bias":
                with subtests.test(flag=flag, value=value, later=True), pytest.raises((AttributeError, TypeError)):
                    setattr(layer, flag, value)
    raises(lambda: setattr(layer, "training", 0), TypeError, f"{name}: training must be a bool, but got int")


@pytest.mark.parametrize("name", ["Conv", "Conv2d", "Embedding", "GRUCell", "LSTMCell", "LayerNorm1d", "Linear"])
def test_a_layer_without_the_weight_that_it_needs_says_so(name):
    layer, operands = layer_and_operands(name)
    weight = next(key for key, _ in layer.named_parameters())
    setattr(layer, weight, None)
    with pytest.raises(TypeError, match=r"^\w+: .* must be .*, but got NoneType$"):
        layer(*(ndl.Tensor(x, dtype="float32" if x.dtype.kind == "f" else None) for x in operands))
