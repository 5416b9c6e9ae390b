"""Layers and losses that look at a whole batch see all of it where ranks compute its parts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
import needle.nn.functional as F
from needle import nn
from needle.distributed import SharedGradients
from needle.ops.across_ranks import AllReduce, batch_means
from tests.distributed.streams import whole_and_parts
from tests.distributed.threads import run_ranks

SIZES = [(2, 4), (2, 5), (3, 7), (3, 2)]  # ranks and items

DROPOUTS = [
    (F.dropout, (3, 2)),
    (nn.Dropout(0.4), (3, 2)),
    (F.dropout1d, (4, 3)),
    (F.dropout2d, (4, 3, 2)),
    (F.dropout3d, (4, 3, 2, 2)),
]


@pytest.mark.parametrize(("size", "total"), SIZES)
@pytest.mark.parametrize(("dropout", "shape"), DROPOUTS, ids=lambda value: str(value)[:20])
def test_dropout_draws_for_the_whole_batch(dropout, shape, size, total, streams, device):
    x = np.arange(1.0, 1 + total * np.prod(shape)).reshape(total, *shape)
    whole, parts = whole_and_parts(
        streams, size, total, lambda items: dropout(ndl.Tensor(x[items], device=device)).numpy()
    )
    assert 0 in whole
    assert_array_equal(np.concatenate(parts) if total >= size else parts[0], whole)


def test_dropout_of_several_rows_per_item(streams):
    x = np.ones((5, 4, 3))
    whole, parts = whole_and_parts(streams, 2, 5, lambda items: F.dropout(x[items].reshape(-1, 3)).numpy())
    assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_recurrent_layers(kind, batch_first, streams):
    net = kind(3, 4, num_layers=2, dropout=0.5, batch_first=batch_first, dtype="float64")
    x = np.random.randn(5, 6, 3)

    def step(items):
        y, _ = net(ndl.Tensor(x[items] if batch_first else x[items].transpose(1, 0, 2)))
        return y.numpy() if batch_first else y.numpy().transpose(1, 0, 2)

    whole, parts = whole_and_parts(streams, 2, 5, step)
    assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def test_dropout_in_attention(streams):
    layer = nn.TransformerLayer(4, 2, 3, 8, dropout=0.3, dtype="float64")
    x = np.random.randn(5, 3, 4)
    whole, parts = whole_and_parts(streams, 3, 5, lambda items: layer(ndl.Tensor(x[items])).numpy())
    assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def normalized(norm, x, slope, items, turned, rectified=False):
    """A batch norm's result, statistics and gradients for the items of x, whose memory order may be `turned`.

    With `rectified`, relu follows, in the same op.
    """
    layer, batch = copy.deepcopy(norm), x[items]
    if turned:
        batch = np.ascontiguousarray(np.moveaxis(batch, 0, -1))
    leaf = ndl.Tensor(batch, device=layer.weight.device)
    forward = nn.Sequential(layer, nn.ReLU()) if rectified else layer
    y = forward(leaf.permute([-1, *range(x.ndim - 1)]) if turned else leaf)
    SharedGradients(layer.parameters()).backward((y * ndl.Tensor(slope[items], device=y.device)).mean())
    x_grad = np.moveaxis(leaf.grad.numpy(), -1, 0) if turned else leaf.grad.numpy()
    shared = [layer.running_mean, layer.running_var, layer.num_batches_tracked, layer.weight.grad, layer.bias.grad]
    return (y.numpy(), x_grad), [tensor.numpy() for tensor in shared]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize(("size", "total"), [(2, 5), (3, 7), (2, 2), (3, 2)])
def test_batch_norm_sees_the_whole_batch(size, total, shape, turned, streams, device):
    make = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    norm = make(shape[0], dtype="float64", device=device)
    norm.weight.data, norm.bias.data = (ndl.randn(shape[0], dtype="float64", device=device) for _ in range(2))
    x = np.random.randn(total, *shape) * 3 + np.arange(total).reshape(-1, *(1,) * len(shape))
    slope = np.random.randn(*x.shape)
    (items, shared), parts = whole_and_parts(
        streams, size, total, lambda items: normalized(norm, x, slope, items, turned)
    )
    for i, expected in enumerate(items):
        values = [part[0][i] for part in parts]
        assert_allclose(np.concatenate(values) if total >= size else values[0], expected, rtol=1e-11, atol=1e-13)
    for part in parts:
        for value, first, expected in zip(part[1], parts[0][1], shared, strict=True):
            assert_array_equal(value, first)
            assert_allclose(value, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.BatchNorm3d])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_variances_count_the_whole_batch(kind, momentum, streams):
    norm = kind(2, momentum=momentum, dtype="float64")
    x = np.random.randn(2, 5, 2, *(2,) * (kind.ndims[0] - 2))

    def step(items):
        layer = copy.deepcopy(norm)
        for batch in x:
            layer(ndl.Tensor(batch[items]))
        return layer.running_mean.numpy(), layer.running_var.numpy()

    whole, parts = whole_and_parts(streams, 3, 5, step)
    for part in parts:
        assert_allclose(part, whole, rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("ends", [[0, 0, 3, 5], [0, 2, 2, 5], [0, 5, 5, 5], [0, 0, 1, 1]])
def test_parts_of_batch_norm_may_be_empty(ends, momentum, rectified):
    """As a mask may leave them: the others' items are normalized as in one process."""
    norm = nn.BatchNorm1d(2, momentum=momentum, dtype="float64")
    x = np.random.RandomState(0).randn(ends[-1], 2, 3)

    def step(items):
        layer, leaf = copy.deepcopy(norm), ndl.Tensor(x[items])
        y = (layer.forward_relu if rectified else layer)(leaf)
        (y**3).sum().backward(create_graph=False)
        buffers = [buffer.numpy() for _, buffer in layer.named_buffers()]
        return (y.numpy(), leaf.grad.numpy()), [weight.grad.numpy() for weight in layer.parameters()], buffers

    def rank(communicator):
        communicator.part = communicator.part_of(6)
        return step(slice(*ends[communicator.rank : communicator.rank + 2]))

    (items, shares, buffers), parts = step(slice(None)), run_ranks(3, rank)
    for i, expected in enumerate(items):
        assert_allclose(np.concatenate([part[0][i] for part in parts]), expected, rtol=1e-9, atol=1e-12)
    for i, expected in enumerate(shares):
        assert_allclose(sum(part[1][i] for part in parts), expected, rtol=1e-9, atol=1e-12)
    for _, _, values in parts:
        assert_allclose(np.concatenate([*map(np.ravel, values)]), np.concatenate([*map(np.ravel, buffers)]), rtol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("momentum", [0.3, None])
def test_a_batch_without_items_moves_no_running_statistics(momentum):
    def rank(communicator):
        communicator.part = communicator.part_of(4)
        norm, x = nn.BatchNorm2d(2, momentum=momentum), ndl.Tensor(np.ones((0, 2, 3, 3), "float32"))
        norm(x).sum().backward(create_graph=False)
        return [value.numpy().tolist() for value in (norm.running_mean, norm.running_var, norm.weight.grad)]

    assert run_ranks(2, rank) == [[[0, 0], [1, 1], [0, 0]]] * 2


def test_evaluation_and_batches_that_are_not_divided_exchange_nothing():
    def rank(communicator):
        nn.BatchNorm1d(3)(ndl.ones(2, 3))
        nn.InstanceNorm1d(3, track_running_stats=True)(ndl.ones(1, 3, 2))
        F.cross_entropy(ndl.ones(1, 3), ndl.Tensor([2]))
        communicator.part = communicator.part_of(4)
        norm = nn.BatchNorm1d(3).eval()
        F.dropout(norm(ndl.ones(2, 3)), training=False)
        return communicator.calls

    assert run_ranks(2, rank) == [[], []]


@pytest.mark.parametrize("is_needed", [True, False])
def test_one_exchange_forward_and_one_backward(is_needed):
    """But no backward one for the gradient in inputs of the network."""

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        norm, x = nn.BatchNorm1d(3), ndl.Tensor(np.ones((2, 3), "float32"), requires_grad=is_needed)
        y = (norm(x) ** 2).mean()
        forward = len(communicator.calls)
        y.backward(create_graph=False)
        return forward, len(communicator.calls)

    assert run_ranks(2, rank) == [(1, 1 + is_needed)] * 2


def test_sums_are_new_arrays_in_the_shapes_of_their_terms():
    def rank(communicator):
        communicator.part = part = communicator.part_of(3)
        x = ndl.Tensor([1.0, 2.0])
        total = AllReduce(communicator)(x)
        means = batch_means(np.full((2, 1), 3.0 * part.start), np.full(3, 1.5))
        return x.numpy().tolist(), total.numpy().tolist(), [mean.tolist() for mean in means]

    assert run_ranks(2, rank) == [([1, 2], [2, 4], [[[2], [2]], [1.5] * 3])] * 2


@pytest.mark.parametrize(
    ("dtype", "turned", "rectified"),
    [("float16", False, False), ("float32", False, False), ("float32", False, True), ("float32", True, True)],
)
def test_means_far_from_zero(dtype, turned, rectified, streams):
    """Deviations as small beside the mean as the dtype can hold them are normalized as in one process."""
    norm = nn.BatchNorm2d(2, dtype=dtype)
    means = np.array([1e3 if dtype == "float16" else 1e5, 0])[:, None, None]
    x = (np.random.randn(6, 2, 16, 16) + means).astype(dtype)
    slope = np.random.randn(*x.shape).astype(dtype)
    (items, _), parts = whole_and_parts(
        streams, 3, 6, lambda items: normalized(norm, x, slope, items, turned, rectified)
    )
    tolerance = 2e-3 if dtype == "float16" else 1e-5
    for i, expected in enumerate(items):
        scale = np.abs(expected).max()
        assert_allclose(np.concatenate([part[0][i] for part in parts]), expected, atol=tolerance * scale)


def test_batch_norm_has_second_derivatives(streams):
    """The derivative of a penalty on gradients with respect to each item, in training, as in one process."""
    norm = nn.BatchNorm1d(3, dtype="float64")
    norm.weight.data = ndl.randn(3, dtype="float64")
    x, slope = np.random.randn(5, 3), ndl.randn(3, dtype="float64")

    def step(items):
        layer, batch = copy.deepcopy(norm), ndl.Tensor(x[items])
        loss = (layer(batch) ** 3 * slope).mean()
        (grad,) = ndl.grad(loss * (batch.shape[0] / 5), [batch], create_graph=True)
        total = SharedGradients(layer.parameters()).backward(loss + (grad * grad).mean() * 25)
        return batch.grad.numpy(), layer.weight.grad.numpy(), total.item()

    (x_grad, weight_grad, total), parts = whole_and_parts(streams, 2, 5, step)
    assert_allclose(np.concatenate([part[0] for part in parts]), x_grad, rtol=1e-9)
    for part in parts:
        assert_allclose(part[1], weight_grad, rtol=1e-9)
        assert part[2] == pytest.approx(total, rel=1e-9)


def test_the_gradient_of_each_order_agrees():
    """`gradient` of the op, built from ops, is its `compute_gradient`."""

    def rank(communicator):
        communicator.part = communicator.part_of(6)
        values = np.random.RandomState(communicator.rank)
        x, grads = values.randn(3, 2, 4), []
        for create_graph in (False, True):
            norm, leaf = nn.BatchNorm1d(2, dtype="float64"), ndl.Tensor(x)
            (norm(leaf) ** 3).mean().backward(create_graph=create_graph)
            grads.append([leaf.grad.numpy(), norm.weight.grad.numpy(), norm.bias.grad.numpy()])
        for fused, built in zip(*grads, strict=True):
            assert_allclose(fused, built, rtol=1e-9, atol=1e-12)

    run_ranks(2, rank)


CLASSES = np.array([0, 1, 2, 1, 0, 0, 2])
SOME_IGNORED = np.array([0, 1, 2, 1, 0, -100, 2])  # by the default, on one of the ranks
WEIGHTED = [
    lambda x, items: F.cross_entropy(x, ndl.Tensor(CLASSES[items]), ndl.Tensor([1.0, 2.0, 4.0])),
    lambda x, items: F.cross_entropy(x, ndl.Tensor(CLASSES[items]), ignore_index=0),
    lambda x, items: F.cross_entropy(x, ndl.Tensor(CLASSES[items]), ignore_index=1, label_smoothing=0.1),
    lambda x, items: F.nll_loss(x, ndl.Tensor(CLASSES[items]), ndl.Tensor([1.0, 2.0, 4.0]), ignore_index=1),
    lambda x, items: F.cross_entropy(x, ndl.Tensor(SOME_IGNORED[items])),
    lambda x, items: F.nll_loss(x, ndl.Tensor(SOME_IGNORED[items]), ignore_index=-100),
    lambda x, items: F.mse_loss(x, x.detach() * 2, weight=ndl.Tensor(np.arange(21.0).reshape(7, 3)[items])),
    lambda x, items: F.l1_loss(x, x.detach() * 2, weight=ndl.Tensor(np.arange(21.0).reshape(7, 3)[items])),
]


@pytest.mark.parametrize("loss", WEIGHTED)
@pytest.mark.parametrize("size", [2, 3])
def test_weighted_means_are_over_the_whole_batch(loss, size, streams):
    x, weight = np.random.randn(7, 4), nn.Parameter(ndl.randn(4, 3, dtype="float64"))

    def step(items):
        w = copy.deepcopy(weight)
        total = SharedGradients([w]).backward(loss(ndl.Tensor(x[items]) @ w, items))
        return total.item(), w.grad.numpy()

    (expected, expected_grad), parts = whole_and_parts(streams, size, 7, step)
    for value, grad in parts:
        assert value == pytest.approx(expected, rel=1e-12)
        assert_allclose(grad, expected_grad, rtol=1e-11)


@pytest.mark.parametrize(
    ("dtype", "options", "asks"),
    [("uint8", {}, 0), ("uint8", {"ignore_index": 255}, 1), ("int8", {}, 1), ("float32", {}, 1)],
)
def test_ranks_ask_whether_an_index_is_ignored_if_targets_can_hold_it(dtype, options, asks):
    def rank(communicator):
        communicator.part = communicator.part_of(4)
        targets = ndl.Tensor(np.array([0, 1], dtype))
        losses = [loss(ndl.ones(2, 3), targets, **options).item() for loss in (F.cross_entropy, F.nll_loss)]
        return len(communicator.calls), losses

    assert run_ranks(2, rank) == [(2 * asks, pytest.approx([np.log(3), -1]))] * 2


def test_running_statistics_of_instance_norm(streams):
    norm = nn.InstanceNorm1d(3, affine=True, track_running_stats=True, dtype="float64")
    x = np.random.randn(5, 3, 4) * 3 + 1

    def step(items):
        layer = copy.deepcopy(norm)
        y = layer(ndl.Tensor(x[items])).numpy()
        return y, layer.running_mean.numpy(), layer.running_var.numpy()

    (y, mean, var), parts = whole_and_parts(streams, 3, 5, step)
    assert_allclose(np.concatenate([part[0] for part in parts]), y, rtol=1e-12)
    for _, part_mean, part_var in parts:
        assert_allclose(part_mean, mean, rtol=1e-12)
        assert_allclose(part_var, var, rtol=1e-12)


def test_the_gradient_of_a_sum_over_ranks():
    """Each rank's loss is (the sum of all x)³: the derivatives of all losses together, to any order."""

    def rank(communicator):
        x = ndl.Tensor(1.0 + communicator.rank)
        (AllReduce(communicator)(x) ** 3).backward()
        first = x.grad
        first.backward()
        return first.item(), x.grad.item()

    # s = 1 + 2 + 3; d/dx of 3 · s³ is 9 s²; the sum over ranks of 9 s² has the derivative 3 · 18 s
    assert run_ranks(3, rank) == [(324.0, 324.0)] * 3


ERRORS = [
    (lambda: in_a_part(lambda: F.dropout(ndl.ones(4, 2))), ValueError,
     "dropout: axis 0 of x must hold the 3 items of this rank, or as many rows of each, but got shape (4, 2)"),
    (lambda: in_a_part(lambda: F.dropout(ndl.ones())), ValueError,
     "dropout: axis 0 of x must hold the 3 items of this rank, or as many rows of each, but got shape ()"),
]  # fmt: skip


def in_a_part(call):
    """`call()` with the part of the first of two ranks, which has 3 of 5 items."""

    def rank(communicator):
        if communicator.rank == 0:
            communicator.part = communicator.part_of(5)
            return call()
        return None

    return run_ranks(2, rank)[0]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
