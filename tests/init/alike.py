"""Draws held against the stream that they come from."""

from __future__ import annotations

import numpy as np


def expect(tensor, draws, dtype="float32"):
    """The tensor holds these values, rounded to its dtype before or after scaling."""
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor.numpy(), draws, rtol=2e-6, atol=2e-7)
