"""Floats in 16 bits, against torch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from needle.backend.narrow import WIRES, narrow, rounded, widen

SPECIAL = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-38, 3.4028235e38, -3.4028235e38, 65504, 65519.9, 65520, 6e-8]


def patterns():
    """Float32 of every upper half, with lower halves around the ties."""
    upper = np.arange(1 << 16, dtype="uint32") << 16
    return np.stack([upper + lower for lower in (0, 1, 0x0FFF, 0x1000, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view("float32")


@pytest.mark.parametrize("wire", WIRES)
def test_the_nearest_number_is_taken_of_two_the_even_one(wire, device):
    floats = np.concatenate([patterns().reshape(-1), np.array(SPECIAL, "float32")])
    dtype = getattr(torch, wire)
    expected = torch.from_numpy(floats).to(dtype)
    words = narrow(device.array(floats), wire)
    result = device.to_host(widen(words, wire))
    assert words.dtype == {"float16": "float16", "bfloat16": "uint16"}[wire]
    assert result.dtype == "float32"
    assert np.array_equal(result, expected.float().numpy(), equal_nan=True)
    numbers = ~np.isnan(floats)
    bits = expected.view(torch.int16).numpy().view("uint16")
    assert np.array_equal(device.to_host(words).view("uint16")[numbers], bits[numbers])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64"])
def test_dtypes_pass_float32(wire, dtype):
    values = np.random.randn(500).astype(dtype)
    assert np.array_equal(narrow(values, wire), narrow(values.astype("float32"), wire))
    assert widen(narrow(values, wire), wire).dtype == np.dtype("float32")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 5)])
def test_shapes_stay_and_memory_is_by_rows(wire, shape):
    values = np.array(np.random.randn(*shape), "float32", order="F")
    before = values.copy()
    words = narrow(values, wire)
    assert words.shape == shape
    assert words.flags.c_contiguous
    assert np.array_equal(values, before)
    assert np.array_equal(rounded(rounded(values, wire), wire), rounded(values, wire))
    np.testing.assert_allclose(rounded(values, wire), values, rtol=2**-8, atol=1e-7)
