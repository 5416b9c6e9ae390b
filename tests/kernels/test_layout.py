"""Batch-last order is kept through a whole training step: only the images are copied to it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import needle as ndl
from needle import kernels, nn
from needle.kernels import layout
from needle.kernels.conv import dispatch
from tests.kernels.memory_orders import draw, every_order
from tests.kernels.thresholds import thresholds


def networks():
    conv = [nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1)]
    head = [nn.Flatten(), nn.Linear(6 * 49, 10)]
    yield "lenet", nn.Sequential(*conv, nn.ReLU(), *head), (8, 1, 14, 14)
    norm = [nn.BatchNorm2d(6), nn.ReLU(), nn.Residual(nn.Conv2d(6, 6, 3, padding=1)), nn.AvgPool2d(7)]
    yield "norm", nn.Sequential(*conv, *norm, nn.Flatten(), nn.Linear(6, 10)), (8, 1, 14, 14)
    separable = [nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.ReLU(), nn.Conv2d(3, 6, 1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10)]
    yield "separable", nn.Sequential(*separable, nn.Conv2d(6, 6, 3, 2), nn.ReLU(), *head), (8, 3, 9, 9)
    line = [nn.Conv1d(2, 4, 3, padding=2, dilation=2), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.MaxPool1d(2)]
    yield "line", nn.Sequential(*line, nn.Flatten(), nn.Linear(4 * 8, 10)), (8, 2, 18)


NETWORKS = list(networks())


def is_batch_last(x):
    return layout.batch_last(x).flags.c_contiguous


@pytest.mark.parametrize(("name", "model", "shape"), NETWORKS, ids=[name for name, *_ in NETWORKS])
@pytest.mark.parametrize("is_laid_out", [True, False], ids=["batch-last images", "row-major images"])
def test_a_training_step_copies_only_its_images(name, model, shape, is_laid_out, monkeypatch):
    """Row-major images are copied by the first convolution and again by its gradient; batch-last ones never."""
    arguments = []

    def recorded(kernel, arrays):
        def call(*args):
            arguments.extend((kernel.__name__, x) for x in args[:arrays])
            return kernel(*args)

        return call

    for kernel, arrays in (("correlate", 1), ("correlate_transpose", 1), ("correlate_weight", 2)):
        call = recorded(getattr(kernels, kernel), arrays)
        monkeypatch.setattr(kernels, kernel, call)
        monkeypatch.setattr(dispatch, kernel, call)
    images = np.random.randn(*shape).astype("float32")
    images = ndl.Tensor.make_const(kernels.to_batch_last(images) if is_laid_out else images)
    labels = ndl.Tensor(np.arange(8) % 10, requires_grad=False)
    loss = nn.CrossEntropyLoss()(model(images), labels)
    loss.backward(create_graph=False)
    assert {kernel for kernel, _ in arguments} == {"correlate", "correlate_transpose", "correlate_weight"}
    copied = [(kernel, x.shape) for kernel, x in arguments if not is_batch_last(x)]
    assert copied == ([] if is_laid_out else [("correlate", shape), ("correlate_weight", shape)])


@pytest.mark.parametrize("pairs", [0, 1])
@pytest.mark.parametrize(
    "shape", [(64, 3, 32, 32), (128, 5, 7, 33), (128, 130, 2, 2), (2, 1, 1 << 16), (3, 1, 5), (8, 4, 30, 9, 9)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copying_by_blocks_is_copying(shape, dtype, pairs):
    x = np.random.randn(*shape).astype(dtype)
    rank = len(shape) - 2
    window = kernels.Window((1,) * rank, ((pairs, 2 * pairs),) * rank, (1,) * rank)
    result = layout.pad_to_batch_last(x, window)
    expected = np.pad(layout.batch_last(x), ((0, 0), *window.padding, (0, 0)))
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == dtype
    assert result.flags.c_contiguous
    inner = np.ascontiguousarray(layout.batch_last(x))
    assert np.shares_memory(layout.pad_to_batch_last(layout.batch_first(inner), window), inner) == (pairs == 0)


@every_order
@pytest.mark.parametrize("pairs", [0, 1])
def test_copying_large_arrays_of_any_order_is_copying(order, pairs, threads):
    x = order(draw(6, 5, 4, 7))
    with thresholds(BLOCKED_COPY_SIZE=1, SPLIT_BYTES=1):
        result = layout.pad_to_batch_last(x, kernels.Window((1, 1), ((pairs, pairs),) * 2, (1, 1)))
    np.testing.assert_array_equal(result, np.pad(layout.batch_last(x), ((0, 0), *((pairs, pairs),) * 2, (0, 0))))


KERNELS = {  # of w (12, 7, 3, 5): what convolutions copy
    "live taps": lambda w: w[..., 1:, 1:3],
    "one live tap": lambda w: w[..., 1:2, 2:3],
    "rows": lambda w: w.swapaxes(1, 2),
    "reversed rows": lambda w: w[..., ::-1, ::-1].swapaxes(1, 2),
    "reversed": lambda w: w[..., ::-1, ::-1].swapaxes(0, 1),
    "of taps": lambda w: w.transpose(2, 3, 1, 0),
    "one axis": lambda w: w[..., 0, 1:4],
    "row-major": lambda w: w,
}


@pytest.mark.parametrize("least", [1, 1 << 20])
@pytest.mark.parametrize("cut", KERNELS.values(), ids=KERNELS)
def test_copying_a_kernel_tap_by_tap_is_copying(cut, least, device):
    w = draw(12, 7, 3, 5)
    expected, on_device = np.ascontiguousarray(cut(w)), device.array(w)
    kernel = cut(on_device)
    with thresholds(TAP_COPY_ELEMENTS=least):
        compact = layout.compact_kernel(kernel)
        whole = device.filled(w.shape, 0)
        layout.copy_kernel(kernel, cut(whole))
    assert compact.flags.c_contiguous
    assert (compact is kernel) == kernel.flags.c_contiguous
    np.testing.assert_array_equal(device.to_host(compact), expected)
    np.testing.assert_array_equal(cut(device.to_host(whole)), expected)


class Counted(np.ndarray):
    """An array that counts the assignments to it."""

    count = 0

    def __setitem__(self, index, value):
        Counted.count += 1
        super().__setitem__(index, value)


@pytest.mark.parametrize(
    ("cut", "copies"), [("live taps", 4), ("one live tap", 1), ("rows", 5), ("reversed rows", 5), ("reversed", 1)]
)
def test_a_kernel_is_copied_by_as_few_loops_as_run_over_channels(cut, copies, monkeypatch):
    w = draw(64, 64, 3, 5)
    monkeypatch.setattr(Counted, "count", 0)
    target = np.zeros(KERNELS[cut](w).shape, w.dtype).view(Counted)
    layout.copy_kernel(KERNELS[cut](w), target)
    np.testing.assert_array_equal(target, KERNELS[cut](w))
    assert Counted.count == copies


@every_order
@pytest.mark.parametrize("pairs", [((0, 0), (0, 0)), ((1, 2), (0, 3)), ((3, 0), (2, 1))])
def test_a_part_of_a_padded_array_is_that_part(order, pairs):
    x = order(draw(6, 5, 4, 7))
    window = kernels.Window((1, 1), pairs, (1, 1))
    expected = np.pad(layout.batch_last(x), ((0, 0), *pairs, (0, 0)))
    with thresholds(PADDED_PARTS_BYTES=1):
        padded = layout.Padded(x, window)
    for start, stop in itertools.combinations(range(expected.shape[1] + 1), 2):
        rows = slice(start, stop)
        np.testing.assert_array_equal(padded.part((rows,)), expected[:, rows])
        for first in range(0, expected.shape[2], 2):
            box = (rows, slice(first, first + 2 if first + 2 < expected.shape[2] else expected.shape[2]))
            np.testing.assert_array_equal(padded.part(box), expected[:, box[0], box[1]])
