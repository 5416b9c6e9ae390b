"""Compare tensors with the draws that they should hold."""

from __future__ import annotations

import numpy as np


def expect(tensor, draws, dtype="float32"):
    """Assert that the tensor holds these values, rounded to its dtype before or after scaling."""
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor.numpy(), draws, rtol=2e-6, atol=2e-7)
