"""Pooling layers: values and derivatives against torch, and errors."""

from __future__ import annotations

import pytest
import torch

import needle as ndl
from needle import nn
from tests.nn.compare import assert_as_in_torch, normal
from tests.nn.functional.alike import raises


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda nn: nn.MaxPool2d(2), (2, 3, 4, 6)),
        (lambda nn: nn.MaxPool2d(2), (2, 3, 5, 7)),
        (lambda nn: nn.MaxPool2d((3, 2), (1, 2), 1), (2, 2, 6, 5)),
        (lambda nn: nn.MaxPool2d(3, stride=2, padding=1), (1, 2, 7, 7)),
        (lambda nn: nn.AvgPool2d(2), (2, 3, 5, 6)),
        (lambda nn: nn.AvgPool2d((3, 2), (1, 2), 1), (2, 2, 6, 5)),
        (lambda nn: nn.AvgPool2d(3, stride=2, padding=1), (1, 2, 7, 7)),
    ],
)
def test_pooling_equals_torch(make, shape, device):
    layer = make(nn)
    assert_as_in_torch(layer, make(torch.nn), normal(*shape), device)
    assert layer.parameters() == layer.buffers() == []


# ---- errors ----------------------------------------------------------------------------------------------------------


ERRORS = [
    (
        lambda: nn.MaxPool2d(2)(ndl.zeros(5, 5)),
        ValueError,
        "max_pool2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), of which only N may be 0, but got shape (5, 5)",
    ),
    (
        lambda: nn.AvgPool2d(2)(ndl.zeros(5, 5)),
        ValueError,
        "avg_pool2d: x must have 4 axes, (N, C, *S), or 3, (C, *S), of which only N may be 0, but got shape (5, 5)",
    ),
    (
        lambda: nn.MaxPool2d(2, padding=(1, 2)),
        ValueError,
        "MaxPool2d: padding must be at most half of the kernel (2, 2), but got (1, 2)",
    ),
    (
        lambda: nn.AvgPool1d(3, padding=2),
        ValueError,
        "AvgPool1d: padding must be at most half of the kernel (3,), but got (2,)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)
