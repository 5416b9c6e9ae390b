"""Convolutions by raw kernels equal torch's: all three passes, bias, relu and its mask, in every window and order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from needle import kernels
from tests.gpu.shim_device import SHIM
from tests.kernels.windows import arrange, problem_of

TORCH_CONV = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
# x, w, options
PROBLEMS = {
    "one element": ((1, 1, 1), (1, 1, 1), {}),
    "1-d": ((4, 3, 9), (20, 3, 3), {"padding": 2, "dilation": 2}),
    "2-d": ((4, 3, 6, 5), (18, 3, 3, 3), {"padding": 1}),
    "3-d": ((3, 2, 4, 3, 5), (5, 2, 2, 3, 2), {"padding": (1, 0, 1), "stride": (2, 1, 2), "dilation": (1, 1, 2)}),
    "1x1": ((8, 20, 3, 3), (36, 20, 1, 1), {}),
    "stride 2": ((4, 5, 7, 6), (6, 5, 3, 3), {"stride": 2, "padding": 1}),
    "stride over kernel": ((5, 4, 8), (4, 4, 2), {"stride": 3}),
    "stride and dilation share a factor": ((2, 4, 11), (4, 4, 3), {"stride": 4, "dilation": 2, "padding": 2}),
    "dead taps": ((8, 5, 1, 1), (6, 5, 3, 3), {"padding": 1}),
    "many rows": ((4, 9, 4, 4), (70, 9, 3, 3), {"padding": 1}),
    "many channels": ((4, 70, 3, 2), (5, 70, 2, 2), {}),
    "groups": ((4, 12, 5, 4), (15, 4, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((4, 6, 5, 5), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "channel multiplier": ((3, 3, 5, 4), (6, 1, 3, 2), {"groups": 3, "stride": 2}),
    "one image": ((1, 5, 7, 9), (17, 5, 3, 3), {"padding": 1}),
    "to one channel": ((4, 16, 5, 5), (1, 16, 4, 4), {"padding": 1, "stride": 2}),
}
ASYMMETRIC = kernels.Window((2, 1), ((0, 2), (3, 0)), (1, 2), 1)


def problem_named(name):
    x, w, options = PROBLEMS[name]
    return problem_of(x, w, **options)


def by_torch(x, w, y, bias, window, rectified=False):
    """The result, and the gradients of x, w and bias for the gradient y."""
    x, w, y, bias = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (x, w, y, bias))
    pads = [n for pair in reversed(window.padding) for n in pair]
    padded = torch.nn.functional.pad(x, pads)
    result = TORCH_CONV[x.ndim - 3](padded, w, bias, window.stride, 0, window.dilation, window.groups)
    result = torch.relu(result) if rectified else result
    grads = torch.autograd.grad(result, (x, w, bias), y)
    return [each.detach().numpy() for each in (result, *grads)]


def close(actual, expected, tolerance=2e-5):
    actual = np.asarray(SHIM.to_host(actual), "float64")
    assert actual.shape == expected.shape
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance, rtol=0)


def values_of(problem):
    x, w, y = problem.values(dtype="float32")
    return x, w, y, np.random.default_rng(1).standard_normal(len(w)).astype("float32")


def assert_like_torch(problem, order="batch-last", tolerance=2e-5, rectified=True):
    """Forward with bias and relu, all gradients masked by the result, and the passes by themselves."""
    x, w, y, bias = values_of(problem)
    window, size, kernel = problem.window, problem.size, problem.kernel
    on = lambda values: arrange(values, order, SHIM)  # noqa: E731
    if order == "broadcast":  # its values are others
        x, y = (SHIM.to_host(on(each)) for each in (x, y))
    result, x_grad, w_grad, bias_grad = by_torch(x, w, y, bias, window, rectified)
    x, w, y, bias = on(x), SHIM.array(w), on(y), SHIM.array(bias)
    output = (kernels.correlate_rectified if rectified else kernels.correlate)(x, w, window, bias)
    close(output, result, tolerance)
    assert kernels.batch_last(output).flags.c_contiguous
    mask = (output,) if rectified else ()
    grads = kernels.correlate_backward(y, x, w, window, (True, True, True), *mask)
    for grad, expected in zip(grads, (x_grad, w_grad, bias_grad), strict=True):
        close(grad, expected, tolerance)
    x_only = kernels.correlate_backward(y, x, w, window, (True, False, False), *mask)
    w_only = kernels.correlate_backward(y, x, w, window, (False, True), *mask)
    assert x_only[1:] == (None, None)
    assert w_only[0] is None
    close(x_only[0], x_grad, tolerance)
    close(w_only[1], w_grad, tolerance)
    if not rectified:
        close(kernels.correlate_transpose(y, w, window, size), x_grad, tolerance)
        close(kernels.correlate_weight(x, y, window, kernel), w_grad, tolerance)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_passes_are_like_torch(name, run):
    assert_like_torch(problem_named(name))


def test_unequal_padding_without_relu(run):
    x, w = (4, 3, 5, 6), (4, 3, 2, 3)
    output = ASYMMETRIC.output(x[2:], w[2:])
    problem = problem_of(x, w)
    problem = type(problem)(ASYMMETRIC, 4, 3, 4, x[2:], w[2:], output)
    assert_like_torch(problem, rectified=False)
