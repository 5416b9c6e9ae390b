"""Other words for arguments: `dim`, `axis`, `keepdim`, `min`, `max` mean what the functions' own names mean."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import needle as ndl
from needle import ops
from needle.words import OWN_NAMES

# A value for each name that has other words.
VALUES = {"axes": 1, "axis": 1, "keepdims": True, "correction": 0, "low": 0, "high": 0.5}
OTHERS = {"permute": (1, 0), "transpose": (1, 0)}
# The arguments without defaults.
REQUIRED = {
    "chunk": {"chunks": 2}, "topk": {"k": 1},
    "repeat_interleave": {"repeats": 2}, "gather": {"index": [[0]]}, "index_select": {"index": [0]},
    "scatter": {"index": [[0]], "src": 1}, "scatter_add": {"index": [[0]], "src": 1},
}  # fmt: skip
WITH_WORDS = [
    function
    for function in (getattr(ops, name) for name in ops.__all__)
    if not isinstance(function, type) and "words" in inspect.signature(function).parameters
]


def operand_of(function):
    x = ndl.Tensor(np.random.default_rng(0).normal(size=(2, 3)))
    return [x, x] if function in (ops.stack, ops.concatenate) else x


def arrays(result):
    return [part.numpy().tolist() for part in ([result] if isinstance(result, ndl.Tensor) else result)]


def test_these_functions_take_other_words():
    names = {function.__name__ for function in WITH_WORDS}
    assert {"summation", "mean", "max", "argmax", "softmax", "stack", "concatenate", "split", "flip", "clip"} < names


@pytest.mark.parametrize("function", WITH_WORDS, ids=lambda function: function.__name__)
def test_every_word_means_the_function_s_own_name(function):
    x, parameters = operand_of(function), inspect.signature(function).parameters
    for word, names in OWN_NAMES.items():
        name = next((name for name in names if name in parameters), None)
        if name is None or word == name:
            continue
        more = REQUIRED.get(function.__name__, {})
        value = OTHERS.get(function.__name__, VALUES[name])
        expected = function(x, **{name: value}, **more)
        assert arrays(function(x, **{word: value}, **more)) == arrays(expected), word
        with pytest.raises(TypeError, match=rf"^{function.__name__}: {name} must be given once, .* and {word}="):
            function(x, **{name: value, word: value}, **more)
    with pytest.raises(TypeError, match=rf"^{function.__name__}: arguments must be among .* but got colour='red'$"):
        function(x, colour="red", **REQUIRED.get(function.__name__, {}))


def test_numpy_s_functions_reduce_tensors():
    x = ndl.Tensor([[1.0, 2.0], [3.0, 5.0]], device=ndl.cpu())
    assert np.mean(x).item() == 2.75
    assert np.sum(x, axis=1).numpy().tolist() == [3, 8]
    assert np.max(x, axis=0, keepdims=True).numpy().tolist() == [[3, 5]]
    assert np.argmax(x, axis=1).numpy().tolist() == [1, 1]
    assert np.var(x).item() == x.var(ddof=0).item() == np.var([1, 2, 3, 5])
    assert np.std(x, axis=0, ddof=1).numpy().tolist() == x.std(0).numpy().tolist()
    assert np.prod(x, axis=1).numpy().tolist() == [2, 15]
    predictions = x.argmax(1)
    assert np.mean(predictions != np.array([1, 0])).item() == np.mean(np.array([1, 0]) != predictions).item() == 0.5
    for option in ({"dtype": "float32"}, {"out": x}):
        with pytest.raises(TypeError, match=r"^mean: arguments must be among"):
            x.mean(**option)
