"""Gradients summed over ranks are those of one process for the whole batch."""

from __future__ import annotations

import contextlib
import copy
import re
from unittest import mock

import numpy as np
import pytest

import needle as ndl
from needle import nn, optim, tuning
from needle.backend import cpu
from needle.backend.narrow import WIRES, rounded
from needle.backend.polling import polling
from needle.data import DataLoader, NDArrayDataset, worker_batches
from needle.distributed import SharedGradients
from needle.grad_mode import watching
from needle.training import Stepper
from tests.distributed.threads import in_shared_memory, run_ranks


class Net(nn.Module):
    """Two layers, a weight that both use, one that nobody uses, and a frozen one."""

    def __init__(self, dtype="float64"):
        super().__init__()
        self.first = nn.Linear(5, 4, dtype=dtype)
        self.second = nn.Linear(4, 4, dtype=dtype)
        self.last = nn.Linear(4, 3, dtype=dtype)
        self.last.weight.requires_grad = False
        self.second.weight = self.tied = nn.Parameter(ndl.randn(4, 4, dtype=dtype))
        self.unused = nn.Parameter(ndl.randn(7, dtype=dtype))

    def forward(self, x):
        hidden = nn.functional.relu(self.first(x))
        return self.last(self.second(hidden) + hidden @ self.tied)


def grads_of(parameters):
    return [None if parameter.grad is None else parameter.grad.numpy() for parameter in parameters]


def by_ranks(size, total, step):
    """The results of `step(items)` on each rank, with the part of a batch of `total` set."""

    def rank(communicator):
        communicator.part = part = communicator.part_of(total)
        return step(slice(None) if part is None else slice(part.start, part.stop))

    return run_ranks(size, rank)


def assert_all_close(results, expected):
    """The same bits on all ranks, and all but those of one process."""
    for result in results:
        for first, value, wanted in zip(results[0], result, expected, strict=True):
            assert (value is None) == (wanted is None)
            if value is not None:
                np.testing.assert_array_equal(value, first)
                np.testing.assert_allclose(value, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bucket", [8, 1 << 19])
@pytest.mark.parametrize(("size", "total"), [(2, 8), (2, 7), (3, 8), (3, 3), (4, 3)])
def test_gradients_are_those_of_the_whole_batch(size, total, bucket, monkeypatch):
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", bucket)
    model = Net()
    x, y = np.random.randn(total, 5), np.random.randn(total, 3)

    def step(items):
        net = copy.deepcopy(model)
        gradients = SharedGradients(net.parameters())
        for _ in range(2):  # the second time it is known which parameter is not used
            loss = gradients.backward(nn.functional.mse_loss(net(ndl.Tensor(x[items])), ndl.Tensor(y[items])))
        return [*grads_of(net.parameters()), loss.numpy()]

    expected = step(slice(None))
    assert expected[-2] is None
    assert_all_close(by_ranks(size, total, step), expected)


def test_a_loss_may_be_a_parameter():
    def step(items):
        weight = nn.Parameter(ndl.Tensor(2.0, dtype="float64"))
        return SharedGradients([weight]).backward(weight).item(), weight.grad.item()

    assert by_ranks(2, 8, step) == [(2.0, 1.0)] * 2


def test_gradients_accumulate_with_weights():
    model = Net()
    batches = [np.random.randn(n, 5) for n in (6, 5, 2)]

    def step(communicator=None):
        net = copy.deepcopy(model)
        gradients = SharedGradients(net.parameters())
        for i, x in enumerate(batches):
            items = slice(None)
            if communicator is not None:
                communicator.part = part = communicator.part_of(len(x))
                items = items if part is None else slice(part.start, part.stop)
            gradients.backward((net(ndl.Tensor(x[items])) ** 2).mean(), len(x) / 6, accumulate=i > 0)
        return grads_of(net.parameters())

    assert_all_close(run_ranks(3, step), step())


WAITS = [6, 5, 2, 7]  # items of batches; one of 2 is computed as a whole by each of three ranks


def accumulated(exchange, **options):
    """Gradients of several batches by three ranks, and by one; `exchange(i, gradients)` says if batch i exchanges."""
    model = Net()
    batches = [np.random.randn(n, 5) for n in WAITS]

    def step(communicator=None):
        net = copy.deepcopy(model)
        gradients, losses = SharedGradients(net.parameters(), **options), []
        for i, x in enumerate(batches):
            items = slice(None)
            if communicator is not None:
                communicator.part = part = communicator.part_of(len(x))
                items = items if part is None else slice(part.start, part.stop)
            rows = net(ndl.Tensor(x[items])) if i else net.tied @ ndl.Tensor(x[items][:, :4]).transpose()
            loss = gradients.backward((rows**2).mean(), len(x) / 6, accumulate=i > 0, exchange=exchange(i, gradients))
            losses.append(loss.numpy())
        gradients.exchange()
        return [*grads_of(net.parameters()), *losses]

    calls = []

    def rank(communicator):
        result = step(communicator)
        calls.append([shape for _, shape, _ in communicator.calls[1:]])  # the first compares the parameters
        return result

    results = run_ranks(3, rank)
    assert calls[0] == calls[1] == calls[2]
    return results, step(), calls[0]


@pytest.mark.parametrize(
    ("last", "lengths"), [(3, [3, 3, 69]), (2, [3, 3, 66, 3, 57, 9]), (1, [3, 69, 3, 57, 9]), (None, [3, 3, 3, 66])]
)
def test_gradients_wait_until_they_are_exchanged(last, lengths):
    """Here the first batch uses only one parameter, and the third is no part; what is left waits for `exchange`.

    A loss is 3 numbers in an exchange, 54 elements in 6 parameters are 66; 7 are of a parameter that nobody uses.
    """
    results, expected, calls = accumulated(lambda i, gradients: i == last)
    assert_all_close(results, expected)
    assert calls == [(length,) for length in lengths]


def test_what_waits_may_be_of_parameters_that_the_last_batch_does_not_use():
    """Or of none, on some ranks."""

    def step(items):
        other, *weights = (ndl.Tensor([float(i)], requires_grad=True) for i in range(3))
        gradients = SharedGradients(weights)
        for last in (0, 1):
            used = other if items.start else weights[0]
            gradients.backward(used.sum(), accumulate=last > 0, exchange=False)
            if last:
                gradients.backward(weights[1].sum(), accumulate=True)
            gradients.exchange()
        return grads_of(weights)

    assert_all_close(by_ranks(2, 2, step), [np.array([1.0]), np.array([1.0])])


def test_what_waits_is_forgotten_with_the_gradients():
    def step(items):
        weight = ndl.Tensor([1.0, 2.0], requires_grad=True)
        gradients, x = SharedGradients([weight]), ndl.Tensor(np.arange(8.0).reshape(4, 2)[items])
        weight.grad = ndl.ones(2)
        gradients.backward((x * weight).sum(1).mean(), exchange=False)
        assert weight.grad is None or items == slice(None)
        gradients.backward((x * weight).sum(1).mean(), 2, accumulate=False)
        gradients.exchange()
        return [weight.grad.numpy()]

    assert_all_close(by_ranks(2, 4, step), [np.array([6.0, 8.0])])
    assert_all_close([step(slice(None))], [np.array([6.0, 8.0])])


def test_what_waits_can_be_kept_and_given_back():
    values = np.random.randn(3, 2)

    def step(items):
        weight, other = ndl.Tensor([1.0, 2.0], requires_grad=True), ndl.Tensor([3.0], requires_grad=True)
        gradients = SharedGradients([weight, other])
        assert gradients.waiting is None
        for i in range(3):
            loss = (weight * ndl.Tensor(values[i])).sum() * (1.0 + items.start)
            gradients.backward(loss, accumulate=i > 0, exchange=i == 2)
            terms, gradients.waiting = gradients.waiting, None
            assert (terms is None) == (i == 2)
            if terms is not None:
                np.testing.assert_allclose(terms[0].numpy(), values[: i + 1].sum(0) * (1 + items.start) / 2, rtol=1e-6)
                assert terms[1] is None
            gradients.waiting = terms
        return grads_of([weight])

    (grad,), (same,) = by_ranks(2, 2, step)
    np.testing.assert_allclose(grad, 1.5 * values.sum(0), rtol=1e-6)
    assert np.array_equal(grad, same)


def test_what_waits_may_be_given_back_on_one_rank_only():
    """As on the one that has written a checkpoint. A frozen parameter is none of those that are exchanged."""

    def step(items):
        weight, frozen = ndl.Tensor([1.0, 2.0], requires_grad=True), ndl.Tensor([3.0], requires_grad=False)
        gradients = SharedGradients([weight, frozen])
        for i in range(2):
            gradients.backward((weight * frozen).sum(), accumulate=i > 0, exchange=i > 0)
            if items.start:
                gradients.waiting = gradients.waiting
        gradients.backward((weight * frozen).sum(), accumulate=True, exchange=False)
        if items.start:
            gradients.waiting = [None, None]
        weight.requires_grad = False  # what waits is exchanged nevertheless
        gradients.exchange()
        return grads_of([weight, frozen])

    assert_all_close(by_ranks(2, 2, step), [np.array([7.5, 7.5]), None])


def test_hooks_see_each_batch_though_others_wait():
    def step(items):
        weight = ndl.Tensor([1.0, 2.0], requires_grad=True)
        weight.register_hook(lambda grad: grad * grad)
        gradients, x = SharedGradients([weight]), np.arange(8.0).reshape(4, 2)
        for i in range(2):
            gradients.backward((ndl.Tensor(x[items] + i) * weight).sum(1).mean(), accumulate=i > 0, exchange=i > 0)
        return [weight.grad.numpy()]

    assert_all_close(by_ranks(2, 4, step), step(slice(None)))


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("wire", WIRES)
def test_compressed_gradients_are_rounded_by_each_rank_and_once_more(wire, exchange):
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3, dtype="float32"))
    half = nn.Parameter(ndl.randn(3, dtype="float16"))
    x = np.random.randn(6, 5).astype("float32")

    def grads(items, share=None, compression=None):
        net, last = copy.deepcopy(model), copy.deepcopy(half)
        parameters = [*net.parameters(), last]
        gradients = SharedGradients(parameters, compression)
        loss = ((net(ndl.Tensor(x[items])) * last.astype("float32")) ** 2).mean()
        loss = gradients.backward(loss, share or 1, exchange=exchange)
        gradients.exchange()
        return [*grads_of(parameters), loss.numpy()]

    terms = [grads(slice(0, 3), 0.5), grads(slice(3, 6), 0.5)]
    results = by_ranks(2, 6, lambda items: grads(items, None, wire))
    exact = by_ranks(2, 6, grads)
    for result in results:
        for grad, first, second in zip(result[:-2], *(each[:-2] for each in terms), strict=True):
            assert np.array_equal(grad, rounded(rounded(first, wire) + rounded(second, wire), wire))
        for value, wanted in zip(result[-2:], exact[0][-2:], strict=True):  # 16 bits already, and the loss
            assert value.dtype == wanted.dtype
            assert np.array_equal(value, wanted)
    assert not all(np.array_equal(a, b) for a, b in zip(results[0], exact[0], strict=True))


def test_compressed_gradients_may_miss_on_some_ranks():
    def step(items):
        a, b, unused = (ndl.Tensor([float(i)], requires_grad=True) for i in (1, 2, 3))
        gradients = SharedGradients([a, b, unused], "bfloat16")
        for _ in range(2):
            gradients.backward((b if items.start else a).sum())
        return grads_of([a, b, unused])

    assert_all_close(by_ranks(2, 2, step), [np.array([0.5]), np.array([0.5]), None])


def test_parameters_that_only_some_ranks_use():
    model = nn.Sequential(nn.Linear(3, 3, dtype="float64"), nn.Linear(3, 3, dtype="float64"))
    x = np.random.randn(5, 3)

    def loss_of(net, rows):
        """The mean over rows of which those below 2 pass the second layer, and those of 4 and above the first."""
        terms = [(net[1] if i < 2 else net[0])(ndl.Tensor(x[i : i + 1])) for i in rows]
        return (ndl.ops.stack(terms, 0) ** 2).mean()

    def step(items):
        net = copy.deepcopy(model)
        gradients = SharedGradients(net.parameters())
        for rounds in range(3):
            gradients.backward(loss_of(net, range(*items.indices(5))), accumulate=rounds > 0)
        return grads_of(net.parameters())

    assert_all_close(by_ranks(3, 5, step), step(slice(None)))


def test_a_gradient_that_nobody_has_stays_as_it_was():
    model = Net()
    model.unused.grad = ndl.ones(7, dtype="float64")

    def step(items):
        net = copy.deepcopy(model)
        net.unused.grad = ndl.ones(7, dtype="float64")
        SharedGradients(net.parameters()).backward((net(ndl.Tensor(np.ones((4, 5))[items])) ** 2).mean())
        return grads_of([net.unused])

    assert_all_close(by_ranks(2, 4, step), [np.ones(7)])


def test_a_parameter_that_is_given_twice_is_exchanged_once():
    def rank(communicator):
        communicator.part = communicator.part_of(2)
        weight, seen = ndl.Tensor([1.0, 2.0], requires_grad=True), []
        weight.register_hook(lambda grad: seen.append(grad.numpy().tolist()))
        SharedGradients([weight, weight]).backward(weight.sum())
        return seen, [shape for _, shape, _ in communicator.calls[1:]]

    assert run_ranks(2, rank) == [([[1, 1]], [(3 + 2 + 2,)])] * 2


@pytest.mark.parametrize("size", [1, 2])
def test_losses_and_gradients_are_constants(size):
    """Also where a hook computes with a parameter, and where a graph led to the gradient that was there."""

    def step(items):
        first, second = (ndl.Tensor([float(i)], requires_grad=True) for i in (1, 2))
        handle = first.register_hook(lambda grad: grad * second)
        gradients = SharedGradients([first, second])
        for i in range(4):
            loss = gradients.backward((first * second).sum(), accumulate=i > 0, exchange=i % 2 > 0)
            gradients.exchange()
            assert not any(x.requires_grad for x in (loss, first.grad, second.grad))
            first.grad, second.grad = first.grad * first, second.grad * first
            if i == 1:
                handle.remove()

    step(slice(None)) if size == 1 else by_ranks(2, 2, step)


def test_hooks_see_the_gradient_of_the_whole_batch():
    model = Net()
    x = np.random.randn(6, 5)

    def step(items):
        net = copy.deepcopy(model)
        seen = []
        net.first.bias.register_hook(lambda grad: seen.append(grad.numpy()))
        net.first.bias.register_hook(lambda grad: grad * grad)
        for rounds in range(2):
            loss = (net(ndl.Tensor(x[items])) ** 2).mean()
            SharedGradients(net.parameters()).backward(loss, accumulate=rounds > 0)
        (net.first.bias**2).sum().backward(create_graph=False)  # the hooks are there again
        return [*grads_of(net.parameters()), *seen]

    expected = step(slice(None))
    assert len(expected) == len([*model.parameters()]) + 3
    assert_all_close(by_ranks(2, 6, step), expected)


def test_several_dtypes_and_memory_orders():
    weights = [nn.Parameter(ndl.randn(4, 3)), nn.Parameter(ndl.randn(3, 4, dtype="float64"))]
    scalar, turned = ndl.Tensor(2.0, requires_grad=True), ndl.Tensor(np.ones((2, 3)), requires_grad=True)
    x = np.random.randn(6, 4)

    def step(items):
        first, second, third, fourth = (copy.deepcopy(w) for w in (*weights, scalar, turned))
        batch = ndl.Tensor(x[items])
        y = batch @ first.astype("float64") @ second.transpose().transpose() * third
        extra = (second.transpose() @ ndl.ones(3, 2, dtype="float64")).mean()
        extra = extra + (fourth.transpose() * ndl.Tensor(np.arange(6.0).reshape(3, 2))).sum()
        SharedGradients([first, second, third, fourth]).backward((y**2).mean() + extra)
        return grads_of([first, second, third, fourth])

    results, expected = by_ranks(3, 6, step), step(slice(None))
    assert [grad.dtype for grad in results[0]] == ["float32", "float64", "float64", "float64"]
    for result in results:
        np.testing.assert_array_equal(result[0], results[0][0])
        np.testing.assert_allclose(result[0], expected[0], rtol=1e-5)
    assert_all_close([result[1:] for result in results], expected[1:])


def test_gradients_keep_their_memory():
    """A gradient that the user keeps is not overwritten by the next backward, and writes reach no other gradient."""
    model = Net()

    def step(items):
        net = copy.deepcopy(model)
        gradients = SharedGradients(net.parameters())
        gradients.backward((net(ndl.Tensor(np.ones((4, 5))[items])) ** 2).mean())
        kept, values = net.first.weight.grad, net.first.weight.grad.numpy()
        other = net.first.bias.grad.numpy()
        kept.array[...] = 3
        assert np.array_equal(net.first.bias.grad.numpy(), other)
        gradients.backward((net(ndl.Tensor(np.ones((4, 5))[items])) ** 2).mean())
        assert (kept.numpy() == 3).all()
        assert np.array_equal(net.first.weight.grad.numpy(), values)
        return [values]

    by_ranks(2, 4, step)


def test_exchanges_begin_while_backward_runs(monkeypatch):
    """One exchange per bucket, the first before the first layer computes its gradient, behind that of checksums."""
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", 8)
    events, layers = [], (nn.Linear(2, 2), nn.Linear(2, 2))

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        first, last = copy.deepcopy(layers)
        hidden = first(ndl.ones(2, 2))
        if communicator.rank == 0:
            hidden.register_hook(lambda grad: events.append(len(communicator.calls)))
        SharedGradients([*first.parameters(), *last.parameters()]).backward((last(hidden) ** 2).mean())
        return len(communicator.calls)

    assert run_ranks(2, rank) == [5, 5]
    assert events == [3]


class Counting(nn.Module):
    """Two convolutions with batch norm, and a linear layer: 8 parameters, as a network has them."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, bias=False),
            nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10), nn.Identity(),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize(("compression", "width"), [(None, 4), ("bfloat16", 2)])
def test_what_a_step_exchanges(accumulate, compression, width, monkeypatch):
    """Each gradient once, however many batches a step has; two small arrays for each batch norm; the loss."""
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", 1 << 12)
    model = Counting()
    elements = sum(parameter.size for parameter in model.parameters())

    def rank(communicator):
        net = copy.deepcopy(model)
        stepper = Stepper(ndl.optim.SGD(net.parameters()), accumulate, compression=compression, clip_norm=1.0)
        communicator.part = communicator.part_of(4)
        for _ in range(accumulate):
            loss = nn.functional.cross_entropy(net(ndl.ones(2, 3, 6, 6)), ndl.Tensor([1, 2]))
            stepper(loss, 2)
        return communicator.calls

    calls, same = run_ranks(2, rank)
    assert calls == same
    sums = [(kind, shape[0]) for kind, shape, _ in calls if len(shape) == 1 and kind != "all_gather"]
    losses = [(kind, length) for kind, length in sums if length == 3]
    buckets = [(kind, length) for kind, length in sums if length > 3]
    norms = [shape for kind, shape, _ in calls if (kind, len(shape)) != ("all_reduce", 1) and "16" not in kind]
    # Two of each batch norm, whether labels are ignored, and once the checksums of the parameters.
    assert len(norms) == (2 * 2 + 1) * accumulate + 1
    assert len(losses) == accumulate - (compression is None)
    assert {kind for kind, _ in losses} <= {"all_reduce"}
    assert {kind for kind, _ in buckets} == {"all_reduce" if compression is None else f"all_reduce in {compression}"}
    counted = 3 * (compression is None)  # the last loss goes with the first bucket
    sent = width * sum(length for _, length in buckets)
    assert sent == width * (elements + 2 * 8 + counted)
    assert sent <= 1.01 * width * elements


def test_sums_go_on_between_the_nodes_of_backward(monkeypatch):
    """Also where no gradient is complete, and between the chunks of a node; but only after some time."""
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", 8)

    def rank(communicator):
        communicator.part = communicator.part_of(2)
        looks = []

        def progress():
            looks.append(0)
            polling.poll()  # as a sum of large arrays does: no step may begin within another

        monkeypatch.setattr(communicator, "progress", progress, raising=False)
        first, last = (ndl.Tensor(np.ones(4), requires_grad=True) for _ in range(2))
        hidden = first
        for _ in range(5):
            hidden = hidden * 2
        hidden.register_hook(lambda grad: cpu().parallel_for(lambda chunk: None, range(3), shared=False))
        SharedGradients([first, last]).backward((hidden * last).sum())
        return len(looks)

    monkeypatch.setattr(tuning, "PROGRESS_SECONDS", 1000)
    assert run_ranks(2, rank) == [1, 1]
    monkeypatch.setattr(tuning, "PROGRESS_SECONDS", 0)
    assert run_ranks(2, rank) == [7 + 3, 7 + 3]
    assert not watching


@pytest.mark.parametrize(("bucket", "calls", "begun"), [(8, [6, 5], [1, 2]), (1 << 19, [2, 2], [1, 0])])
def test_what_nobody_uses_holds_nothing_up_the_second_time(bucket, calls, begun, monkeypatch):
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", bucket)
    layers = nn.Linear(2, 2), nn.Linear(2, 2), nn.Parameter(ndl.ones(1))

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        first, last, unused = copy.deepcopy(layers)
        gradients = SharedGradients([*first.parameters(), *last.parameters(), unused])
        counts, before = [], []
        for _ in range(2):
            start, hidden = len(communicator.calls), first(ndl.ones(2, 2))
            hidden.register_hook(lambda grad, start=start: before.append(len(communicator.calls) - start))
            gradients.backward((last(hidden) ** 2).mean())
            counts.append(len(communicator.calls) - start)
        return counts, before

    assert run_ranks(2, rank) == [(calls, begun)] * 2


def test_what_some_ranks_lack_is_sent_behind_the_others(monkeypatch):
    """The second time, where the ranks know: then they may exchange in between, as batch norm does."""

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        norm, layer, unused, extra = nn.BatchNorm1d(2), nn.Linear(2, 2), *(nn.Parameter(ndl.ones(2)) for _ in range(2))
        for parameter in layer.parameters():
            parameter.data = ndl.ones(*parameter.shape)
        gradients = SharedGradients([*layer.parameters(), unused, extra])
        for bucket in (1 << 19, 8):
            communicator.barrier()
            monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", bucket)
            communicator.barrier()
            loss = (layer(norm(ndl.Tensor(np.ones((2, 2), "float32"), requires_grad=True))) ** 2).mean()
            gradients.backward(loss if communicator.rank else loss + extra.sum())
        return grads_of([unused, extra])

    assert_all_close(run_ranks(2, rank), [None, np.array([0.5, 0.5])])


def test_ranks_may_complete_their_gradients_in_other_orders(monkeypatch):
    monkeypatch.setattr(tuning, "GRADIENT_BUCKET_BYTES", 8)

    def step(items, turn):
        a, b = ndl.Tensor([1.0, 2.0], requires_grad=True), ndl.Tensor([3.0, 4.0, 5.0], requires_grad=True)
        terms, completed = [], []
        for x in [b, a] if turn else [a, b]:
            inner = x * 1
            inner.register_hook(lambda grad, size=x.size: completed.append(size))
            terms.append((inner * inner).sum())
        SharedGradients([a, b]).backward(terms[0] + terms[1])
        return completed, a.grad.numpy().tolist(), b.grad.numpy().tolist()

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        return step(None, communicator.rank)

    (first, *grads), (second, *others) = run_ranks(2, rank)
    assert first == second[::-1]
    assert grads == others == [[2, 4], [6, 8, 10]]


def one_rank_leaves_a_layer_out():
    """The first error of two ranks for which the exchanges of batch norm and of a bucket come in different orders."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))
    errors = []

    def rank(communicator):
        net = copy.deepcopy(model)
        communicator.part = communicator.part_of(4)
        hidden = net[1](net[0](ndl.ones(2, 3)))
        loss = net[3](hidden if communicator.rank else net[2](hidden)).mean()
        try:
            SharedGradients(net.parameters()).backward(loss)
        except RuntimeError as error:
            errors.append(error)
            raise

    with mock.patch.object(tuning, "GRADIENT_BUCKET_BYTES", 8), contextlib.suppress(RuntimeError):
        run_ranks(2, rank, in_shared_memory)
    raise next(error for error in errors if error.__cause__)


def one_rank_returns(has_computed):
    """The error of a rank of a network with batch norm, of whose second batch the other one does part, or nothing."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))

    def rank(communicator):
        net = copy.deepcopy(model)
        communicator.part = communicator.part_of(4)
        gradients = SharedGradients(net.parameters())
        gradients.backward(net(ndl.ones(2, 3)).mean())
        if communicator.rank == 0 or has_computed:
            loss = net(ndl.ones(2, 3)).mean()
        if communicator.rank == 0:
            gradients.backward(loss)

    run_ranks(2, rank, in_shared_memory)


def beginnings_differ(value=0, items=0, is_frozen=False):
    """The error of three ranks of which the last begins with another number, or another batch; all must have it."""
    errors = []

    def rank(communicator):
        communicator.part = communicator.part_of(6 + items * (communicator.rank > 1))
        weight = ndl.Tensor([1.0, 2.0 + value * (communicator.rank > 1)], requires_grad=True)
        parameters = [weight, ndl.Tensor([1.0], requires_grad=not (is_frozen and communicator.rank))]
        try:
            SharedGradients(parameters).backward((weight * ndl.ones(2, 2)).mean())
        except ValueError as error:
            errors.append(error)

    run_ranks(3, rank)
    first, _, _ = errors
    raise first


def normalize_other_widths():
    """One channel would fit beside any number of them."""

    def rank(communicator):
        communicator.part = communicator.part_of(4)
        nn.BatchNorm1d(1 + communicator.rank)(ndl.ones(2, 1 + communicator.rank))

    run_ranks(2, rank, in_shared_memory)


def test_ranks_that_never_divide_a_batch_are_warned_once():
    """Then each would train a network of its own items; a batch with fewer items than ranks is no such case."""
    weight = ndl.Tensor(np.ones((2, 1)))

    def rank(communicator, small):
        items = NDArrayDataset(np.ones((1, 2)))
        for (x,) in worker_batches(DataLoader(items, 1)) if small else [(ndl.ones(4, 2, dtype="float64"),)] * 2:
            gradients.backward((x @ weight).mean())

    gradients = SharedGradients([weight])
    run_ranks(3, lambda communicator: rank(communicator, True))  # in tests a warning is an error
    gradients = SharedGradients([weight])
    with pytest.warns(RuntimeWarning) as told:
        run_ranks(3, lambda communicator: rank(communicator, False))
    (told,) = told
    assert str(told.message) == (
        "SharedGradients: each of 3 ranks computes whole batches, so no gradients are exchanged: read the batches by "
        "`worker_batches(loader)`; where each rank has items of its own, of a loader of `Shard(dataset)`"
    )
    assert told.filename == __file__


def train_by_hand(exchange, communicator):
    """Two passes of a loop in which `exchange(communicator, weight, optimizer)` stands between backward and batch."""
    weight = ndl.Tensor(np.ones((2, 1)))
    loader = DataLoader(NDArrayDataset(np.random.RandomState(0).randn(10, 2)), 4)
    optimizer = optim.SGD([weight], lr=0.1)
    for _ in range(2):
        for (x,) in worker_batches(loader):
            optimizer.reset_grad()
            (x.astype("float64") @ weight).mean().backward()
            exchange(communicator, weight, optimizer)
        if exchange is averages_at_the_end:
            communicator.all_reduce(weight.array)


def exchanges_nothing(communicator, weight, optimizer):
    optimizer.step()


def averages_at_the_end(communicator, weight, optimizer):
    optimizer.step()


def adds_gradients(communicator, weight, optimizer):
    communicator.all_reduce(weight.grad.array)
    optimizer.step()


def gives_to_rank_0(communicator, weight, optimizer):
    communicator.all_reduce(weight.grad.array)
    if communicator.rank == 0:
        optimizer.step()
    communicator.broadcast(weight.array)


def rounds_otherwise(communicator, weight, optimizer):
    """As processors of two kinds may."""
    adds_gradients(communicator, weight, optimizer)
    weight.data = weight * (1 + 1e-7 * communicator.rank)


def only_evaluates(communicator, weight, optimizer):
    optimizer.reset_grad()


def test_ranks_that_train_apart_are_warned():
    with pytest.warns(RuntimeWarning) as told:
        run_ranks(3, lambda communicator: train_by_hand(exchanges_nothing, communicator))
    (told,) = told
    assert str(told.message) == (
        "worker_batches: each of 3 ranks trains a network of its own on its items: a parameter of shape (2, 1) has "
        "other values on rank 1 than on rank 0. Instead of `loss.backward()` call `backward(loss)` of a "
        "`needle.distributed.SharedGradients(parameters)`"
    )
    assert told.filename == __file__


@pytest.mark.parametrize(
    "exchange", [averages_at_the_end, adds_gradients, gives_to_rank_0, rounds_otherwise, only_evaluates]
)
def test_of_ranks_that_exchange_by_hand_nobody_warns(exchange):
    run_ranks(3, lambda communicator: train_by_hand(exchange, communicator))  # in tests a warning is an error


def test_ranks_that_share_gradients_compare_no_weights():
    """They are equal, and passes have no exchange more. Other networks on other ranks are meant to be so."""

    def work(communicator):
        model = nn.Linear(2, 1 + communicator.rank)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            for (x,) in worker_batches([(ndl.ones(4, 2),)]):
                model(x).mean().backward()
                optimizer.step()
        shared = nn.Linear(2, 1)
        shared.weight.data, shared.bias.data = ndl.ones(2, 1), ndl.ones(1)
        for (x,) in worker_batches([(ndl.ones(4, 2),)]):
            SharedGradients(shared.parameters()).backward(shared(x).mean())
            optimizer.step()
        before = len(communicator.calls)
        list(worker_batches([(ndl.ones(4, 2),)]))
        return len(communicator.calls) - before, communicator.stepped

    assert run_ranks(2, work) == [(1, None)] * 2


ERRORS = [
    (lambda: beginnings_differ(value=1), ValueError,
     re.compile(r"SharedGradients: all ranks must have the same values of parameter 0 \(2,\) \(a checksum\), but rank "
                r"2 has \d+, and rank 0 has \d+")),
    (lambda: beginnings_differ(is_frozen=True), ValueError,
     ("SharedGradients: all ranks must have the same requires_grad of parameter 1, but rank 1 has False, and rank 0 "
      "has True")),
    (lambda: beginnings_differ(items=3), ValueError,
     "SharedGradients: all ranks must have the same number of items in the batch, but rank 2 has 9, and rank 0 has 6"),
    (lambda: one_rank_returns(False), RuntimeError,
     re.compile(r"all_gather: all ranks must make the same calls, but rank 0 calls .*, and rank 1 has returned")),
    (lambda: one_rank_returns(True), RuntimeError,
     re.compile(r"all_reduce: all ranks must make the same calls, but rank 0 calls .*, and rank 1 has returned")),
    (normalize_other_widths, RuntimeError,
     re.compile(r"all_gather: all ranks must make the same calls, but rank \d calls all_gather of shape \('any', .*")),
    (one_rank_leaves_a_layer_out, RuntimeError,
     re.compile("SharedGradients: in a network with batch norm a parameter must get a gradient on all ranks or on "
                "none, but on some ranks one is missing: all_reduce: all ranks must make the same calls, but .*")),
    (lambda: SharedGradients([]).backward(ndl.Tensor([1.0, 2.0]) * 2), ValueError,
     "SharedGradients: loss must be a mean of one element, but got shape (2,)"),
    (lambda: SharedGradients([], "int8"), ValueError,
     "SharedGradients: compression must be one of 'float16', 'bfloat16', but got 'int8'"),
    (lambda: SharedGradients([1]), TypeError, "SharedGradients: each parameter must be a Tensor, but got int"),
    (lambda: SharedGradients([]).backward(1.0), TypeError, "SharedGradients: loss must be a Tensor, but got float"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert re.fullmatch(message if isinstance(message, re.Pattern) else re.escape(message), str(caught.value))


def test_hooks_are_back_after_an_error():
    def rank(communicator):
        communicator.part = communicator.part_of(2)
        weight = ndl.Tensor([1.0, 2.0])
        handle = weight.register_hook(lambda grad: None)
        hooks = weight.hooks
        with pytest.raises(RuntimeError, match="must require grad"):
            SharedGradients([weight]).backward(weight.detach().sum())
        assert weight.hooks is hooks
        handle.remove()

    run_ranks(2, rank)
