"""Normalization of the parts of a batch by raw kernels, against the generic kernels on the whole batch in float64."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import kernels, nn
from needle.kernels.gpu import norm_parts
from tests.distributed.threads import run_ranks
from tests.gpu.faults import Fault
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM, placed
from tests.gpu.test_norm import CHANNELS, assert_close, by_float64, normal

SHAPES = [  # of the whole, and the items of its parts
    ((4, 3, 5, 2), [1, 3]), ((7, 2, 7), [2, 2, 3]), ((9, 2, 20, 50), [4, 1, 4]), ((6, 5), [5, 1]),
    ((7, 2, 4), [0, 4, 3]),
]  # fmt: skip
EPS = 1e-5


def divided(x, sizes):
    return np.split(x, np.cumsum(sizes)[:-1])


def forward(parts, weight, bias, axes, rectified=False, statistics=None):
    """What `standardize_part` returns for each of the parts."""
    rows = [kernels.part_moments(x, axes) for x in parts]
    moved = statistics or [None] * len(parts)
    return [
        kernels.standardize_part(x, weight, bias, rows, axes, EPS, rectified, each)
        for x, each in zip(parts, moved, strict=True)
    ]


def backward(grads, parts, results, weight, bias, axes, rectified=False):
    """The gradients in each part, and the sums over all parts of those in weight and bias."""
    begun = [
        kernels.part_gradient_sums(grad, x, y if rectified else None, weight, bias, mean, variance, axes, EPS)
        for grad, x, (y, mean, variance, _) in zip(grads, parts, results, strict=True)
    ]
    total = SHIM.array(sum(np.asarray(sums) for _, sums, *_ in begun))
    x_grads = [
        kernels.part_gradient(grad, x, weight, *statistics, total, count, axes, EPS, rectified)
        for (grad, *_), x, (_, *statistics, count) in zip(begun, parts, results, strict=True)
    ]
    shares = zip(*(share for _, _, *share in begun), strict=True)
    return x_grads, *(None if each[0] is None else sum(map(np.asarray, each)) for each in shares)


@pytest.mark.parametrize("is_batch_last", [True, False])
@pytest.mark.parametrize(
    ("parameters", "rectified"), [("weight and bias", True), ("weight", False), ("bias", True), ("none", False)]
)
@pytest.mark.parametrize(("shape", "sizes"), SHAPES, ids=str)
def test_parts_are_normalized_as_the_whole(shape, sizes, parameters, rectified, is_batch_last, run):
    x, grad = normal(*shape) + 1, normal(*shape, seed=1)
    axes, form = CHANNELS["axes"](x), CHANNELS["form"](x)
    weight, bias = (
        normal(*form, seed=2 + i) if name in parameters else None for i, name in enumerate(["weight", "bias"])
    )
    there = [value if value is None else SHIM.array(value) for value in (weight, bias)]
    parts, grads = ([placed(part, is_batch_last) for part in divided(whole, sizes)] for whole in (x, grad))
    results = forward(parts, *there, axes, rectified)
    y, mean, variance = by_float64(kernels.standardize_array, x, weight, bias, axes, EPS, rectified)
    assert_close([np.concatenate([y for y, *_ in results])], [y])
    for _, *statistics, count in results:
        assert_close(statistics, (mean, variance))
        np.testing.assert_allclose(statistics[0], mean, rtol=1e-7, atol=1e-7)
        assert (count.shape, count.item()) == ((1,) * x.ndim, x.size // shape[1])
        assert [value.tobytes() for value in statistics] == [value.tobytes() for value in results[0][1:3]]
    x_grads, *shares = backward(grads, parts, results, *there, axes, rectified)
    masks = np.concatenate([np.asarray(y) for y, *_ in results]) if rectified else None
    wide = by_float64(kernels.standardize_gradients, grad, x, masks, weight, bias, mean, variance, axes, EPS)
    atol = 1e-5 * max(1.0, float(abs(wide[0]).max()))
    assert_close([np.concatenate(x_grads), *shares], wide, atol=atol)


@pytest.mark.parametrize("far", [1e3, -1e5])
def test_means_far_from_zero(far, run):
    x, grad = normal(16, 3, 9, 4) + np.float32(far), normal(16, 3, 9, 4, seed=1)
    x[6:] += 2  # the parts have other means than the whole
    axes = (0, 2, 3)
    parts, grads = ([placed(part) for part in divided(whole, [6, 10])] for whole in (x, grad))
    results = forward(parts, None, None, axes)
    expected = by_float64(kernels.standardize_array, x, None, None, axes, EPS)
    for _, mean, variance, _ in results:
        np.testing.assert_allclose(mean, expected[1], rtol=1e-12)
        np.testing.assert_allclose(variance, expected[2], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate([y for y, *_ in results]), expected[0], atol=1e-5)
    x_grads, *_ = backward(grads, parts, results, None, None, axes)
    wide = by_float64(kernels.standardize_gradients, grad, x, None, None, None, *expected[1:], axes, EPS)
    np.testing.assert_allclose(np.concatenate(x_grads), wide[0], atol=1e-5)


def test_special_elements(run):
    x = np.full((4, 4, 3), 0.1, "float32")
    x[1, 1], x[2, 2, 1], x[:, 3] = np.inf, np.nan, [[1e18, -1e18, 0]]
    parts = [placed(part) for part in divided(x, [3, 1])]
    y = np.concatenate([y for y, *_ in forward(parts, None, None, (0, 2), True)])
    assert (y[:, 0] == 0).all()  # equal elements are exact zeros
    assert np.isnan(y[:, 1:3]).all()
    np.testing.assert_allclose(y[:, 3], np.tile(np.float32([1.5**0.5, 0, 0]), (4, 1)), rtol=1e-6)


@pytest.mark.parametrize(("items", "sizes"), [((7, 3, 2), [3, 4]), ((1, 3), [1, 0])])
@pytest.mark.parametrize("unbiased", [False, True])
def test_running_statistics_are_those_of_the_whole(unbiased, items, sizes, run):
    """Also of one item, as masks may leave on one rank, though nobody can tell its variance."""
    x = normal(*items) + 1
    axes = CHANNELS["axes"](x)
    expected = kernels.Running(np.ones(3, "float32"), np.ones(3, "float32"), np.zeros((), "int64"), 0.25, unbiased)
    kernels.standardize_array(x, None, None, axes, EPS, False, expected)
    moved = [
        kernels.Running(*(SHIM.array(np.ones(3, "float32")) for _ in range(2)), SHIM.array(np.int64(0)), 0.25, unbiased)
        for _ in range(2)
    ]
    forward([placed(part) for part in divided(x, sizes)], None, None, axes, statistics=moved)
    for each in moved:
        assert_close(each[:2], expected[:2])
        assert each.counter.item() == 1


def test_more_parts_than_one_launch_takes(run, monkeypatch):
    x = normal(5, 2, 3)
    parts = [placed(part) for part in divided(x, [1] * 5)]
    at_once = forward(parts, None, None, (0, 2))
    monkeypatch.setattr(norm_parts, "MOST", 4)
    composed = forward(parts, None, None, (0, 2))
    for ours, theirs in zip(at_once, composed, strict=True):
        assert_close(ours, theirs)


LAYERS = [("BatchNorm1d", (3,)), ("BatchNorm1d", (3, 4)), ("BatchNorm2d", (3, 4, 2)), ("BatchNorm3d", (3, 2, 1, 2))]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("kind", "shape"), LAYERS)
def test_ranks_train_a_layer_as_the_cpu_and_torch_do(kind, shape, affine, dtype, run):
    """Two batches of three ranks."""
    x, slope = normal(2, 8, *shape).astype(dtype) + 1, normal(8, *shape, seed=1).astype(dtype)
    wide = "float32" if dtype == "float16" else dtype
    layer = getattr(nn, kind)(3, affine=affine, dtype=wide)
    layer.unbiased = True  # as torch's

    def rank(communicator, device):
        mine = copy.deepcopy(layer).to(device)
        communicator.part = part = communicator.part_of(8)
        items = slice(part.start, part.stop)
        for batch in x:
            leaf = ndl.Tensor(batch[items], device=device, requires_grad=True)
            y = mine.forward_relu(leaf)
            (y * ndl.Tensor(slope[items], device=device)).sum().backward(create_graph=False)
        grads = [parameter.grad for parameter in mine.parameters()]
        return [y, leaf.grad], grads, [buffer for _, buffer in mine.named_buffers()]

    def on(device):
        """y and the gradient in x of the last batch, gradients of parameters, and the buffers of each rank."""
        items, shares, buffers = zip(*run_ranks(3, partial(rank, device=device)), strict=True)
        items = [np.concatenate([value.numpy() for value in values]) for values in zip(*items, strict=True)]
        grads = [sum(grad.numpy() for grad in grads) for grads in zip(*shares, strict=True)]
        return items + grads, [[value.numpy() for value in values] for values in buffers]

    theirs = getattr(torch.nn, kind)(3, affine=affine, dtype=getattr(torch, wide))
    for batch in x:
        leaf = torch.tensor(batch.astype(wide), requires_grad=True)
        theirs.zero_grad()
        y = torch.relu(theirs(leaf))
        (y * torch.tensor(slope)).sum().backward()
    tolerance = {"float16": 1e-2, "float32": 2e-5, "float64": 1e-11}[dtype]
    close = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    (results, buffers), (on_cpu, _) = on(SHIM), on(ndl.cpu())
    expected = [value.detach().numpy() for value in (y, leaf.grad, *(each.grad for each in theirs.parameters()))]
    for result, ours, torchs in zip(results, on_cpu, expected, strict=True):
        close(result, ours)
        close(result, torchs)
    for each in buffers:
        for result, first, torchs in zip(each, buffers[0], theirs.buffers(), strict=True):
            assert result.tobytes() == first.tobytes()
            close(result, torchs.numpy())


def test_parts_use_whole_sectors():
    x = placed(normal(32, 3, 6, 6))
    with running(checked=True, measure=True) as run:
        (result,) = forward([x], None, None, (0, 2, 3), True)
        backward([x], [x], [result], None, None, (0, 2, 3), True)
    for kernel in ("standardize_part_4", "part_gradient_sums_4", "part_gradient_4"):
        assert run.used(kernel, write=True) >= 0.95
    for kernel in ("part_moments_4", "standardize_part_4", "part_gradient_sums_4", "part_gradient_4"):
        assert run.used(kernel, write=False) >= 0.95


PLAIN = partial(test_parts_are_normalized_as_the_whole, (7, 2, 7), [2, 2, 3], "weight and bias", True, True)
LONG = partial(test_parts_are_normalized_as_the_whole, (9, 2, 20, 50), [4, 1, 4], "none", False, True)
FAR = partial(test_means_far_from_zero, -1e5)
RUNNING = partial(test_running_statistics_are_those_of_the_whole, True, (7, 3, 2), [3, 4])
FAULTS = [
    Fault("norm_parts.cu", "a statistic that is read before it is written",
          "  }\n  __syncthreads();\n  double average = scratch", "  }\n  double average = scratch", PLAIN),
    Fault("norm_parts.cu", "means that differ add nothing", " + difference * difference * (before * share)", "", FAR),
    Fault("norm_parts.cu", "the first part alone", "i < parts.count", "i < 1", PLAIN),
    Fault("norm_parts.cu", "a gradient by the count of the part", "m, *count, average", "m, m, average", PLAIN),
    Fault("norm_parts.cu", "a mean in float32", "*count, average - near", "*count, 0", FAR),
    Fault("norm_parts.cu", "a variance for a sum of squares", "var * m", "var", LONG),
    Fault("norm_parts.cu", "masks that are not kept", "if (y) store<V>(masked", "if (!y) store<V>(masked", PLAIN),
    Fault("norm_parts.cu", "running statistics by the count of the part", "running.move(row, average, var, total)",
          "running.move(row, average, var, m)", RUNNING),
    Fault("norm_parts.cu", "every block counts", "counter && row == 0", "counter", RUNNING),
]  # fmt: skip
