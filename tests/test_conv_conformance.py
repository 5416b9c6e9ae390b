"""Convolution at each level, from kernels to layers, against torch on the rows of one table."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import needle as ndl
from needle import kernels, nn
from needle.nn import functional
from needle.ops.conv import Correlate
from needle.ops.operand import make_window
from tests.conv_cases import CASES
from tests.ops.derivatives import by_needle, by_torch

NAMES = ("conv1d", "conv2d", "conv3d")


@cache
def expected(name, with_bias):
    """The arguments of a row, directions for its derivatives, and torch's result, first and second derivatives."""
    x, w, options = CASES[name]
    function = partial(getattr(torch.nn.functional, NAMES[len(x) - 3]), **options)
    draws = np.random.default_rng(len(name))
    arrays = [draws.standard_normal(shape) for shape in (x, w, w[:1])[: 2 + with_bias]]
    y = function(*map(torch.tensor, arrays))
    v, *us = (draws.standard_normal(shape) for shape in (y.shape, *(array.shape for array in arrays)))
    return arrays, v, us, by_torch(function, arrays, v, us)


def window_of(name):
    x, _, options = CASES[name]
    return make_window("conv", len(x) - 2, **({"stride": 1, "padding": 0} | options))


def by_kernels(name, arrays, v, us, device):
    """Forward, backward data and backward weight on raw arrays; kernels know no second derivatives."""
    window = window_of(name)
    x, w, *bias = map(device.asarray, arrays)
    v = device.asarray(v)
    first = [
        kernels.correlate_transpose(v, w, window, x.shape[2:]),
        kernels.correlate_weight(x, v, window, w.shape[2:]),
        *(v.sum(axis=(0, *range(2, v.ndim))) for _ in bias),
    ]
    y = kernels.correlate(x, w, window, *bias)
    return [device.to_host(y)], [device.to_host(grad) for grad in first]


def by_op(name, *arguments):
    return by_needle(Correlate(window_of(name)), *arguments)


def by_function(name, *arguments):
    x, _, options = CASES[name]
    return by_needle(partial(getattr(functional, NAMES[len(x) - 3]), **options), *arguments)


def by_layer(name, arrays, v, us, device):
    x, (out_channels, _, *kernel), options = CASES[name]
    make = getattr(nn, f"Conv{len(x) - 2}d")
    options = options | {"bias": len(arrays) == 3, "device": device, "dtype": "float64"}
    layer = make(x[1], out_channels, tuple(kernel), **options)
    shapes = [parameter.shape for parameter in layer.parameters()]
    assert shapes == [array.shape for array in arrays[1:]]

    def function(x, weight, *bias):
        layer.weight, layer.bias = weight, *(bias or [None])
        return layer(x)

    return by_needle(function, arrays, v, us, device)


LEVELS = {"kernels": by_kernels, "op": by_op, "function": by_function, "layer": by_layer}


@pytest.mark.parametrize("with_bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("level", LEVELS)
def test_each_level_agrees_with_torch(level, with_bias, device, subtests):
    """Results and gradients, and second derivatives above the kernels."""
    for name in CASES:
        with subtests.test(name):
            arrays, v, us, references = expected(name, with_bias)
            actual = LEVELS[level](name, arrays, v, us, device)
            for order, results in enumerate(actual):
                for i, (result, reference) in enumerate(zip(results, references[order], strict=True)):
                    assert result.shape == reference.shape
                    assert_allclose(result, reference, rtol=1e-10, atol=1e-10, err_msg=f"order {order}, {i}")


def test_a_wrong_gradient_fails_at_every_level(monkeypatch):
    exact = kernels.correlate_weight
    monkeypatch.setattr(kernels, "correlate_weight", lambda *arguments: exact(*arguments) * (1 + 1e-6))
    arrays, v, us, references = expected("everything", False)
    for level in LEVELS.values():
        _, (_, w_grad), *_ = level("everything", arrays, v, us, ndl.cpu())
        with pytest.raises(AssertionError):
            assert_allclose(w_grad, references[1][1], rtol=1e-10, atol=1e-10)
