"""Batch-last order is kept through a whole training step: only the images are copied to it."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import kernels, nn, tuning
from needle.kernels import layout
from needle.kernels.conv import dispatch


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
@pytest.mark.parametrize("size", [1, 1 << 20], ids=["by blocks", "at once"])
def test_a_training_step_copies_only_its_images(name, model, shape, size, monkeypatch):
    """Large ones before the first convolution, which then keeps them for its gradient; small ones in its kernels."""
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
    monkeypatch.setattr(tuning, "BLOCKED_COPY_SIZE", size)
    images = np.random.randn(*shape).astype("float32")
    labels = ndl.Tensor(np.arange(8) % 10, requires_grad=False)
    loss = nn.CrossEntropyLoss()(model(ndl.Tensor(images, requires_grad=False)), labels)
    loss.backward(create_graph=False)
    assert {kernel for kernel, _ in arguments} == {"correlate", "correlate_transpose", "correlate_weight"}
    copied = [(kernel, x.shape) for kernel, x in arguments if not is_batch_last(x)]
    assert copied == ([] if size == 1 else [("correlate", shape), ("correlate_weight", shape)])


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
