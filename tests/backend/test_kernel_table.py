"""Kernels of a device are called instead of needle's own, on its arrays only."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from needle.backend import overridable
from tests.standin.device import STANDIN


@overridable
def scale(x, factor=2, shift=0):
    """Multiply, then add."""
    return x * factor + shift


@pytest.fixture
def replaced(monkeypatch):
    """The stand-in with a kernel of its own for `scale`, which records its arguments."""
    calls = []

    def own_scale(x, factor=2, shift=0):
        calls.append((x, factor, shift))
        return x

    monkeypatch.setitem(STANDIN.kernels, "scale", own_scale)
    return calls


def test_a_device_without_kernels_uses_the_function(device):
    x = device.array([1.0, 2.0])
    assert "scale" not in device.kernels
    assert scale(x).tolist() == [2, 4]
    assert scale(x, 3, 1).tolist() == [4, 7]


def test_the_kernel_of_the_device_is_called_with_all_arguments(replaced):
    x, host = STANDIN.array([1.0, 2.0]), np.array([1.0, 2.0])
    assert scale(x, 3, 1) is x
    assert scale(x) is x
    assert [(factor, shift) for _, factor, shift in replaced] == [(3, 1), (2, 0)]
    assert scale(host).tolist() == [2, 4]  # arrays of other devices are computed as before
    assert len(replaced) == 2
    assert scale.__wrapped__(x).tolist() == [2, 4]


def test_kernels_of_other_names_change_nothing(monkeypatch):
    monkeypatch.setitem(STANDIN.kernels, "turn", None)
    assert scale(STANDIN.array([1.0])).tolist() == [2]


def test_the_function_keeps_its_name_text_and_signature():
    assert (scale.__name__, scale.__doc__) == ("scale", "Multiply, then add.")
    assert list(inspect.signature(scale).parameters) == ["x", "factor", "shift"]
