"""The launches of activations on the null device."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import ops
from tests.gpu.null import device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]


@pytest.mark.parametrize("function", [ops.relu, ops.sigmoid, ops.tanh])
def test_an_activation_takes_one_launch_forward_and_one_backward(function):
    from tests.gpu.null.counts import counting

    x = ndl.Tensor(np.linspace(-3, 3, 12, dtype="float32"), device=ndl.cuda())
    grad = ndl.ones(12, device=ndl.cuda())
    with counting() as forward:
        y = function(x)
    with counting() as backward:
        y.backward(grad, create_graph=False)
    assert (forward.launches, backward.launches) == (1, 1)
