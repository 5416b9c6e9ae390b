"""Fixtures of the tests of optimizers."""

import pytest
import torch


@pytest.fixture
def double_precision():
    """torch keeps NAdam's product of momenta in the default dtype, whatever that of the parameters."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
