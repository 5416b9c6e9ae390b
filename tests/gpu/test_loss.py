"""Losses by raw kernels against torch in float64."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np
import pytest
import torch

import needle as ndl
from needle import kernels, tuning
from needle.distributed import SharedGradients
from needle.kernels.gpu import grids
from needle.kernels.layout import batch_first
from needle.nn import functional
from tests.distributed.threads import run_ranks
from tests.gpu.faults import Fault
from tests.gpu.kernels import running
from tests.gpu.shim_device import SHIM

SHAPES = {
    "few": (5, 10), "batch": (64, 10), "one class": (3, 1), "many classes": (7, 100), "pixels": (3, 4, 5, 2),
    "one": (6,), "two blocks": (70, 3),
}  # fmt: skip


def draw(shape, seed=0):
    return (np.random.default_rng(seed).normal(size=shape) * 4).astype("float32")


def labels_of(shape, dtype="int64"):
    axis = min(1, len(shape) - 1)
    return np.random.default_rng(1).integers(0, shape[axis], shape[:axis] + shape[axis + 1 :]).astype(dtype)


def placed(x, order):
    return SHIM.array(x) if order == "row-major" or x.ndim < 2 else batch_first(SHIM.array(np.moveaxis(x, 0, -1)))


def reference(x, labels, **options):
    """The loss and its gradient, weighted by 3."""
    x = torch.tensor(x.astype("float64"), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(labels.astype("int64")), **options)
    (3 * loss).backward()
    return loss.detach().numpy(), x.grad.numpy()


def losses(x, labels, order="row-major", **options):
    x = ndl.Tensor.make_leaf(placed(x, order), requires_grad=True)
    loss = functional.cross_entropy(x, ndl.Tensor(labels, device=SHIM, requires_grad=False), **options)
    loss.backward(ndl.Tensor(np.float32(3), device=SHIM), create_graph=False)
    return loss, x


@contextmanager
def few_blocks():
    """Let at most three blocks share what one would do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "CUDA_ONE_BLOCK_ITEMS", 64)
        patch.setattr(tuning, "CUDA_REDUCTION_BLOCKS", 3)
        patch.setattr(grids, "_ticket", lru_cache(vars(grids._ticket)["__wrapped__"]))  # a planted fault may spoil it
        yield


@pytest.mark.parametrize("order", ["row-major", "batch-last"])
@pytest.mark.parametrize("name", SHAPES)
def test_cross_entropy(name, order, run, monkeypatch):
    if name == "two blocks":
        monkeypatch.setattr(tuning, "CUDA_ONE_BLOCK_ITEMS", 64)
    shape = SHAPES[name]
    x, labels = draw(shape), labels_of(shape)
    loss, leaf = losses(x, labels, order)
    value, gradient = reference(x, labels)
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)
    steps = [[step for n, step in zip(a.shape, a.strides, strict=True) if n > 1] for a in (leaf.array, leaf.grad.array)]
    assert steps[0] == steps[1]


def test_pixels_that_lie_in_another_order_than_their_classes(run):
    x, labels = draw((2, 3, 5, 4)), labels_of((2, 3, 5, 4))
    there = SHIM.array(np.ascontiguousarray(x.swapaxes(2, 3))).swapaxes(2, 3)
    loss, gradient, _ = kernels.softmax_cross_entropy(there, SHIM.array(labels), -1, True)
    value, expected = reference(x, labels)
    np.testing.assert_allclose(loss, value, rtol=1e-6)
    np.testing.assert_allclose(gradient * (3 / labels.size), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int16", "float32"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_labels_and_reductions(dtype, reduction, run):
    x, labels = draw((9, 4)), labels_of((9, 4), dtype)
    loss, leaf = losses(x, labels, reduction=reduction)
    value, gradient = reference(x, labels, reduction=reduction)
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-5, atol=1e-6)


def test_a_mean_of_which_a_rank_has_a_part_is_not_divided(run):
    """With the number of classes that count, and for other dtypes by the generic kernel."""
    x, labels = draw((9, 4)), labels_of((9, 4))
    labels[:2] = -100
    value, _ = reference(x, labels)
    for dtype, rtol in (("float32", 1e-6), ("float64", 1e-6), ("float16", 2e-3)):
        there, classes = SHIM.array(x.astype(dtype)), SHIM.array(labels)
        total, gradient, count = kernels.softmax_cross_entropy(there, classes, -100, True, True)
        assert count == np.count_nonzero(labels != -100)
        np.testing.assert_allclose(total / count, value, rtol=rtol)
        np.testing.assert_array_equal(gradient, kernels.softmax_cross_entropy(there, classes, -100, True)[1])


def test_parts_of_a_batch_add_up_to_it(launches):
    """Also where all classes of a rank are ignored."""
    x, labels = draw((7, 4)), labels_of((7, 4))
    labels[[0, 1, 2, 5]] = -100
    whole = ndl.Tensor(x, requires_grad=True)
    expected = functional.cross_entropy(whole, ndl.Tensor(labels)) + functional.mse_loss(whole, whole.detach() * 2)
    expected.backward(create_graph=False)

    def rank(communicator):
        part = communicator.part = communicator.part_of(7)
        items = slice(part.start, part.stop)
        leaf, classes = ndl.Tensor(x[items], device=SHIM), ndl.Tensor(labels[items], device=SHIM)
        loss = functional.cross_entropy(leaf, classes) + functional.mse_loss(leaf, leaf.detach() * 2)
        return SharedGradients([]).backward(loss).item(), leaf.grad.numpy()

    totals, grads = zip(*run_ranks(3, rank), strict=True)
    np.testing.assert_allclose(totals, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(grads), whole.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert {"cross_entropy_1", "squared_error_4"} < {*launches}


@pytest.mark.parametrize("order", ["row-major", "batch-last"])
def test_ignored_classes_count_for_nothing(order, run):
    x, labels = draw((6, 3, 4)), labels_of((6, 3, 4))
    labels[::2, 1] = 2
    value, gradient = reference(x, labels, ignore_index=2)
    x[0, :, 1] = np.nan
    loss, leaf = losses(x, labels, order, ignore_index=2)
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)
    labels[...] = -100
    loss, leaf = losses(x, labels, order)
    assert np.isnan(loss.numpy())
    assert (leaf.grad.numpy() == 0).all()


@pytest.mark.parametrize("ignored", [slice(2, 3), slice(None)])
def test_ignored_classes_count_for_nothing_where_the_gradient_has_a_graph(ignored, run):
    x, labels = draw((5, 4)), labels_of((5, 4))
    labels[ignored] = -100
    expected = np.nan_to_num(reference(x, labels)[1])
    x[2, 1] = np.nan
    leaf = ndl.Tensor(x, device=SHIM)
    loss = functional.cross_entropy(leaf, ndl.Tensor(labels, device=SHIM, requires_grad=False))
    loss.backward(ndl.Tensor(np.float32(3), device=SHIM), create_graph=True)
    np.testing.assert_allclose(leaf.grad.numpy(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label", [3, -1, 2**40])
def test_labels_that_are_no_classes_make_nan(label, run):
    x, labels = draw((4, 3)), labels_of((4, 3))
    labels[1] = label
    loss, leaf = losses(x, labels)
    assert np.isnan(loss.numpy())
    assert np.isnan(leaf.grad.numpy()[1]).all()


def test_large_and_infinite_scores(run):
    x = np.array([[1e30, -1e30, 0], [-np.inf, 0, 1], [500, 400, 300]], "float32")
    loss, leaf = losses(x, np.array([0, 2, 1]))
    value, gradient = reference(x, np.array([0, 2, 1]))
    np.testing.assert_allclose(loss.numpy(), value, rtol=1e-6)
    np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)


def test_many_blocks_add_up_in_one_order():
    x, labels = draw((2000, 5)), labels_of((2000, 5))
    found = set()
    with few_blocks():
        for order in (0, 1, 2, 3):
            with running(order=order):
                found.add(losses(x, labels, "batch-last")[0].numpy().item())
    assert len(found) == 1
    np.testing.assert_allclose(found.pop(), reference(x, labels)[0], rtol=1e-6)


def test_many_blocks_twice(run):
    x, labels = draw((300, 5)), labels_of((300, 5))
    with few_blocks():
        for _ in range(2):
            loss, leaf = losses(x, labels, "batch-last")
            value, gradient = reference(x, labels)
            np.testing.assert_allclose(loss.numpy(), value, rtol=1e-6)
            np.testing.assert_allclose(leaf.grad.numpy(), gradient, rtol=1e-5, atol=1e-7)


def test_gradients_can_be_differentiated_again(run):
    x, labels = draw((5, 4)), labels_of((5, 4))
    labels[2] = -100
    leaf = ndl.Tensor(x, device=SHIM, requires_grad=True)
    loss = functional.cross_entropy(leaf, ndl.Tensor(labels, device=SHIM, requires_grad=False))
    loss.backward(ndl.Tensor(np.float32(3), device=SHIM))
    np.testing.assert_allclose(leaf.grad.numpy(), reference(x, labels)[1], rtol=1e-5, atol=1e-7)
    (leaf.grad * leaf.grad).sum().backward()
    a = torch.tensor(x.astype("float64"), requires_grad=True)
    (first,) = torch.autograd.grad(3 * torch.nn.functional.cross_entropy(a, torch.tensor(labels)), a, create_graph=True)
    (first * first).sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), a.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 7), (40, 32)])
@pytest.mark.parametrize("mean", [True, False])
def test_squared_error(shape, mean, run, monkeypatch):
    monkeypatch.setattr(tuning, "CUDA_ONE_BLOCK_ITEMS", 64)
    x, target = draw(shape), draw(shape, 1)
    loss, difference = kernels.squared_error(placed(x, "batch-last"), placed(target, "batch-last"), mean)
    expected = ((x.astype("float64") - target) ** 2).sum() / (x.size if mean else 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_array_equal(difference, x - target)
    scaled = kernels.scaled_gradient(difference, SHIM.array(np.float32(3)), None, 0.5)
    np.testing.assert_allclose(scaled, 1.5 * (x - target), rtol=1e-6)
    assert scaled.strides == difference.strides


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_mse_loss(reduction, run):
    arrays = draw((6, 4)), draw((6, 4), 1)
    mine = [ndl.Tensor(x, device=SHIM) for x in arrays]
    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    value = functional.mse_loss(*mine, reduction=reduction)
    expected = torch.nn.functional.mse_loss(*theirs, reduction=reduction)
    (value * 3).backward(create_graph=False)
    (expected * 3).backward()
    np.testing.assert_allclose(value.numpy(), expected.detach(), rtol=1e-5)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad, rtol=1e-5)


def test_losses_use_whole_sectors():
    x, labels = placed(draw((256, 8)), "batch-last"), SHIM.array(labels_of((256, 8)))
    with running(checked=True, measure=True) as run:
        loss, gradient, divisor = kernels.softmax_cross_entropy(x, labels, -100, True)
        kernels.scaled_gradient(gradient, loss, divisor)
        kernels.squared_error(x, x, True)
    for kernel in ("scaled_4", "squared_error_4", "cross_entropy_1"):
        assert run.used(kernel, write=True) >= 0.95


IGNORED = partial(test_ignored_classes_count_for_nothing, "batch-last")
UNKNOWN = partial(test_labels_that_are_no_classes_make_nan, 3)
TOP = "top = fmaxf(top, x[at + c * s.class_step])"
PART = "atomicAdd(parts + 2 * i, 0ull)"
FAULTS = [
    Fault("loss.cu", "ignored classes count", "kept && lane == 0", "lane == 0", IGNORED),
    Fault("loss.cu", "unknown classes", "!kept ? 0.0f : known ? p : NO_NUMBER", "kept ? p : 0.0f", UNKNOWN),
    Fault("loss.cu", "the last for the largest", TOP, TOP.replace("fmaxf(top, ", "("), test_large_and_infinite_scores),
    Fault("loss.cu", "a sum that is divided", "mean ? (float)count : 1.0f", "(float)count",
          partial(test_labels_and_reductions, "int32", "sum")),
    Fault("loss.cu", "a part that is divided", "mean && !apart", "mean",
          test_a_mean_of_which_a_rank_has_a_part_is_not_divided),
    Fault("loss.cu", "division by nothing", "over ? by / over : 0.0f", "by / over", IGNORED),
    Fault("loss.cu", "a ticket that stays", "atomicExch(ticket, 0);", "", test_many_blocks_twice),
    Fault("loss.cu", "the first block adds up", "1) == blocks - 1", "1) == 0", test_many_blocks_twice),
    Fault("loss.cu", "parts read without an atomic", PART, "parts[2 * i]", test_many_blocks_twice),
    Fault("loss.cu", "labels of 4 bytes read as 8", "if (bytes == 8)", "if (bytes >= 4)",
          partial(test_labels_and_reductions, "int32", "sum")),
]  # fmt: skip
