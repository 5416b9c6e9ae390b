"""Oracles of the kernels: the three passes of a convolution by loops, and by torch."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from needle import kernels

TORCH_CONV = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)
PASSES = ("forward", "backward_data", "backward_weight")


def pass_by_needle(direction, problem, x, w, y, bias=None):
    """One pass, as needle computes it."""
    if direction == "forward":
        return kernels.correlate(x, w, problem.window, bias)
    if direction == "backward_data":
        return kernels.correlate_transpose(y, w, problem.window, problem.size)
    return kernels.correlate_weight(x, y, problem.window, problem.kernel)


def passes_by_needle(problem, x, w, y):
    """y, x and w, each from the other two."""
    return tuple(pass_by_needle(direction, problem, x, w, y) for direction in PASSES)


def result_shape(direction, problem):
    return dict(zip(PASSES, (problem.y_shape, problem.x_shape, problem.w_shape), strict=True))[direction]


def pass_by_loops(direction, problem, x, w, y, bias=None):
    """One pass by the definition, of any rank: loop over all triples of multiplied elements, a batch at a time."""
    window = problem.window
    in_per_group, out_per_group = problem.channels // window.groups, problem.out_channels // window.groups
    result = np.zeros(result_shape(direction, problem))
    axes = list(zip(window.stride, window.dilation, window.padding, strict=True))
    for p, k in itertools.product(np.ndindex(problem.output), np.ndindex(problem.kernel)):
        place = [s * i + d * j - before for i, j, (s, d, (before, _)) in zip(p, k, axes, strict=True)]
        if not all(0 <= i < n for i, n in zip(place, problem.size, strict=True)):
            continue  # padding
        for o, c in np.ndindex(problem.w_shape[:2]):
            at_x = (slice(None), o // out_per_group * in_per_group + c, *place)
            at_w, at_y = (o, c, *k), (slice(None), o, *p)
            if direction == "forward":
                result[at_y] += x[at_x] * w[at_w]
            elif direction == "backward_data":
                result[at_x] += y[at_y] * w[at_w]
            else:
                result[at_w] += (x[at_x] * y[at_y]).sum()
    return result if bias is None else result + bias.reshape(-1, *(1,) * problem.rank)


def passes_by_loops(problem, x, w, y):
    """The same, all three."""
    return tuple(pass_by_loops(direction, problem, x, w, y) for direction in PASSES)


def passes_by_torch(problem, x, w, y):
    """The same by torch's convolution and its gradients."""
    window = problem.window
    x, w = (torch.tensor(array, requires_grad=True) for array in (x, w))
    pads = [n for pair in reversed(window.padding) for n in pair]
    padded = torch.nn.functional.pad(x, pads)
    result = TORCH_CONV[problem.rank - 1](padded, w, None, window.stride, 0, window.dilation, window.groups)
    x_grad, w_grad = torch.autograd.grad(result, (x, w), torch.tensor(y))
    return result.detach().numpy(), x_grad.numpy(), w_grad.numpy()
