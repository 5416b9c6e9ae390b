"""What a training step costs on a device: no transfer and no synchronization, counted on the stand-in.

Only the batch is uploaded, before the step. Dropout layers are the exception: on every device they draw from NumPy's
stream on the host and upload the draws.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import needle as ndl
import needle.nn.functional as F
from needle import kernels, nn, optim, tuning
from needle.autograd import find_topo_sort
from needle.ops.operand import make_window
from tests.nn.functional.alike import normal
from tests.nn.functional.test_gradcheck import FUNCTIONS
from tests.nn.test_layers import LAYERS, OPTIMIZERS
from tests.ops.table import ROWS, each_row, tensors
from tests.standin.array import Counts, counting
from tests.standin.device import STANDIN

FREE = Counts()
# Layer -> how many Dropout layers run in it.
UPLOADS = {"Dropout": 1, "AttentionLayer": 1, "Sequential": 1, "Transformer": 4, "TransformerLayer": 4}
ON_HOST = {"list", "array", "ndarray"}  # words in the setting of rows with operands on the host


MORE_LAYERS = {
    "BatchNorm3d(momentum=None)": (lambda **options: nn.BatchNorm3d(3, momentum=None, **options), (4, 3, 4, 4, 4)),
    "InstanceNorm2d(tracking)": (
        lambda **options: nn.InstanceNorm2d(3, track_running_stats=True, **options),
        (4, 3, 6, 6),
    ),
    "AdaptiveAvgPool2d(uneven)": (lambda **options: nn.AdaptiveAvgPool2d((4, 5)), (4, 3, 6, 6)),
    "AdaptiveMaxPool2d(uneven)": (lambda **options: nn.AdaptiveMaxPool2d((4, 5)), (4, 3, 6, 6)),
    "AvgPool2d(uneven)": (lambda **options: nn.AvgPool2d(3, 2, 1, count_include_pad=False), (4, 3, 6, 6)),
    "LSTM": (lambda **options: First(nn.LSTM(3, 2, 2, **options)), (5, 4, 3)),
    "RNN": (lambda **options: First(nn.RNN(3, 2, 2, **options)), (5, 4, 3)),
    "Transformer": (
        lambda **options: First(nn.Transformer(6, 4, 1, num_head=2, dim_head=3, dropout=0.1, **options)),
        (5, 4, 6),
    ),
    "Dropout(0)": (lambda **options: nn.Dropout(0), (4, 3)),  # draws, but uploads nothing
    "Embedding": (lambda **options: Lookup(nn.Embedding(5, 3, padding_idx=1, **options)), (4, 3)),
}


class First(nn.Module):
    """The first result of a layer, with its first two axes exchanged."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return ndl.transpose(self.layer(x)[0], (0, 1))


class Lookup(nn.Module):
    """Rows of a table at indices that depend on x."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self, x):
        return self.table((x > 0).astype("int64"))


@pytest.mark.parametrize("name", [*LAYERS, *MORE_LAYERS])
def test_a_step_of_each_layer(name):
    make, shape = (LAYERS | MORE_LAYERS)[name]
    layer = make(device=STANDIN)
    x = ndl.Tensor(normal(*shape).astype("float32"), device=STANDIN)
    width = math.prod(layer(x).shape[1:])
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(width, 3, device=STANDIN))
    optimizer = optim.SGD([x, *model.parameters()], lr=0.1)
    labels = ndl.Tensor(np.array([0, 1, 2, 0]), device=STANDIN, requires_grad=False)
    for create_graph in (True, False):
        with counting() as counts:
            loss = nn.CrossEntropyLoss()(model(x), labels)
            loss.backward(create_graph=create_graph)
            optimizer.step()
            optimizer.reset_grad()
        assert counts == Counts(uploads=UPLOADS.get(name, 0))
    with counting() as counts:
        model.eval()(x)
    assert counts == FREE


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_of_each_optimizer(name):
    parameters = [ndl.Tensor(normal(3, 4).astype(dtype), device=STANDIN) for dtype in ("float32", "float64")]
    optimizer = OPTIMIZERS[name](parameters)
    with counting() as counts:
        for _ in range(3):
            loss = sum((x * x).sum().astype("float64") for x in parameters)
            optimizer.reset_grad()
            loss.backward(create_graph=False)
            optimizer.clip_grad_norm(0.1)
            optimizer.step()
    assert counts == FREE


@pytest.mark.parametrize("title", FUNCTIONS)
def test_each_function_and_its_derivatives(title):
    name, inputs, constants, names, options = FUNCTIONS[title]
    x = [ndl.Tensor(value, device=STANDIN) for value in inputs]
    fixed = [ndl.Tensor(value, device=STANDIN, requires_grad=False) for value in constants]
    named = {
        key: ndl.Tensor(value, device=STANDIN, requires_grad=False) if isinstance(value, np.ndarray) else value
        for key, value in options.items()
    }
    named |= zip(names, x[len(x) - len(names) :], strict=True)
    with counting() as counts:
        y = getattr(F, name)(*x[: len(x) - len(names)], *fixed, **named)
        (y * y).sum().backward()
        for leaf in x:
            if leaf.grad is not None and leaf.grad.requires_grad:
                leaf.grad.sum().backward(create_graph=False)
    assert counts == FREE


def indexed_by_arrays(y):
    """Whether the graph below y indexes by arrays: arrays from the host are uploaded, masks synchronize."""
    return any(isinstance(node.op, ndl.ops.index.GetItem) and len(node.inputs) > 1 for node in find_topo_sort([y]))


@each_row(row for row in ROWS if row.op != "to")  # `to` transfers by definition
def test_each_op_and_its_derivatives(row):
    inputs, leaves = tensors(row, [STANDIN.asarray(value) for value in row.values()])
    with counting() as counts:
        y = row.apply(*inputs)
    if not (ON_HOST & set(re.findall(r"\w+", row.setting)) or indexed_by_arrays(y)):
        assert counts == FREE
    if row.constant:
        return
    with counting() as counts:
        y = sum((part * part).sum() for part in (y if isinstance(y, ndl.TensorTuple) else (y,)))
        y.backward()
    assert counts == FREE
    with counting() as counts:
        for leaf in leaves:
            if leaf.grad is not None and leaf.grad.requires_grad:
                leaf.grad.sum().backward(create_graph=False)
    assert (counts.uploads, counts.downloads) == (0, 0)


def test_training_a_network_sends_its_batches_and_nothing_else():
    with counting() as counts:
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, device=STANDIN), nn.BatchNorm2d(4, device=STANDIN), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(36, 3, device=STANDIN),
        )  # fmt: skip
    assert counts == Counts(uploads=4)  # the draws of the initializers: two weights, two biases
    optimizer = optim.Adam(model.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(3):
        with counting() as counts:
            x = ndl.Tensor(normal(4, 3, 6, 6).astype("float32"), device=STANDIN, requires_grad=False)
            labels = ndl.Tensor(np.array([0, 1, 2, 0]), device=STANDIN, requires_grad=False)
            loss = nn.CrossEntropyLoss()(model(x), labels)
            optimizer.reset_grad()
            loss.backward(create_graph=False)
            optimizer.step()
        assert counts == Counts(uploads=2 + 1)  # images, labels, and the draws of Dropout
    with counting() as counts:
        loss.item()
    assert counts == Counts(downloads=1)


# ---- the number of calls ---------------------------------------------------------------------------------------------


def calls(function, *arguments):
    """The number of calls that a function makes into the device."""
    with counting() as counts:
        function(*arguments)
    return counts.calls


def products(rank, size, kernel):
    """The calls of a convolution's three passes, of unfold and of fold, on `rank` axes of that size and kernel size."""
    window = make_window("test", rank, 1, 1, 1)
    x = STANDIN.xp.ones((2, 3, *(size,) * rank))
    w = STANDIN.xp.ones((4, 3, *(kernel,) * rank))
    y, unfolded = kernels.correlate(x, w, window), kernels.unfold(x, window, w.shape[2:])
    return {
        "conv": calls(kernels.correlate, x, w, window),
        "weight": calls(kernels.correlate_weight, x, y, window, w.shape[2:]),
        "unfold": calls(kernels.unfold, x, window, w.shape[2:]),
        "transpose": calls(kernels.correlate_transpose, y, w, window, x.shape[2:]),
        "fold": calls(kernels.fold, unfolded, window, w.shape[2:], x.shape[2:]),
    }


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_does_not_loop_over_positions(rank):
    """Gathering passes make the same calls for any size of input and kernel, folding passes for any size of input."""
    smaller = products(rank, 5, 2)
    assert products(rank, 12, 2) == smaller
    larger = products(rank, 12, 3)
    for name in ("conv", "weight", "unfold"):
        assert larger[name] == smaller[name] < 30
    for name in ("transpose", "fold"):  # add and store for each tap of the kernel
        assert larger[name] - smaller[name] <= 2 * (3**rank - 2**rank)


def test_a_loop_over_positions_would_be_noticed(monkeypatch):
    monkeypatch.setattr(tuning, "BLOCK_BYTES", 1)
    assert products(2, 12, 2)["conv"] > products(2, 5, 2)["conv"]


# ---- the counters ----------------------------------------------------------------------------------------------------


def test_uploads_downloads_and_synchronisations_are_counted():
    with counting() as counts:
        x = ndl.Tensor([1.0, -2.0, 3.0], device=STANDIN)
    assert counts == Counts(uploads=1)
    with counting() as counts:
        assert x.numpy().tolist() == [1, -2, 3]
        assert x[1].item() == -2
    assert counts == Counts(downloads=2)
    with counting() as counts:
        assert x[x > 0].shape == (2,)
    assert counts == Counts(waits=1)
