"""Flatten: values and derivatives against torch, and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, normal, tensor


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4)], ids=str)
def test_flatten_and_its_derivatives_equal_torch(shape, device):
    layer = nn.Flatten()
    assert_as_in_torch(layer, torch.nn.Flatten(), normal(*shape), device)
    assert layer.parameters() == layer.buffers() == []


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1), (-2, -1), (2, 2)], ids=str)
def test_axes_equal_torch(axes, device):
    x = normal(2, 3, 4, 5)
    layer, twin = nn.Flatten(*axes), torch.nn.Flatten(*axes)
    np.testing.assert_array_equal(layer(tensor(x, device)).numpy(), twin(torch.from_numpy(x)).numpy(), strict=True)
    assert repr(layer) == repr(twin)


def test_flatten_of_vectors_and_of_an_empty_batch(device):
    assert nn.Flatten()(ndl.zeros(3, device=device)).shape == (3, 1)
    assert nn.Flatten()(ndl.zeros(0, 2, 3, device=device)).shape == (0, 6)
