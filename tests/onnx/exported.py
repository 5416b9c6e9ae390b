"""Exported models, run by onnxruntime and by needle.onnx.load."""

from __future__ import annotations

import numpy as np
import onnxruntime

import needle as ndl
import needle.onnx
from needle import nn

onnxruntime.set_default_logger_severity(3)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def flat(value):
    """The arrays in a result or in arguments, in order."""
    if isinstance(value, (tuple, list)):
        return [array for entry in value for array in flat(entry)]
    return [value.numpy() if isinstance(value, ndl.Tensor) else value]


def tensors(value):
    """Arguments with arrays as tensors."""
    if isinstance(value, tuple):
        return tuple(map(tensors, value))
    return ndl.Tensor(value, requires_grad=False) if isinstance(value, np.ndarray) else value


def by_onnxruntime(path, *arrays):
    """The outputs of the model in a file."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: x for entry, x in zip(session.get_inputs(), arrays, strict=True)})


def by_needle(path, *arrays):
    """The outputs of the model in a file, loaded as a module."""
    with ndl.no_grad():
        return flat(needle.onnx.load(path).eval()(*map(tensors, arrays)))


def assert_equal(got, expected, rtol=1e-5, atol=1e-5):
    """Equal shapes, dtypes and numbers of arrays; `atol` is that of the largest number, if it exceeds 1."""
    assert [(x.shape, x.dtype) for x in got] == [(x.shape, x.dtype) for x in expected]
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol, atol * max(1, abs(y * 1.0).max(initial=0, where=np.isfinite(y))))


def stir(model, seed=0):
    """Other values than those that a model begins with: its statistics are not 0 and 1."""
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict(copy=False).items():
        if tensor.dtype.kind == "f":
            noise = rng.standard_normal(tensor.shape)
            tensor.array[...] = abs(noise) / 2 + 0.1 if name.endswith("var") else tensor.array + noise / 3
    return model
