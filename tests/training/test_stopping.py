"""Early stopping against a list of figures; its best weights; its state."""

from __future__ import annotations

import math

import numpy as np
import pytest

import needle as ndl
from needle import nn
from needle.training import EarlyStopping


@pytest.mark.parametrize(
    ("figures", "options", "end"),
    [
        ([3, 2, 1, 0], {}, None),
        ([3, 2, 2, 2], {}, 3),
        ([3, 2, 4, 1, 5, 1], {}, 5),
        ([1, math.nan, 0.5, math.nan, math.nan], {}, 4),
        ([math.nan, math.nan], {}, 1),
        ([math.nan, 1, 2, 2], {}, 3),
        ([3, 2.95, 2.9, 2.5], {"min_delta": 0.1}, 2),  # by no more than 0.1 below 3
        ([3, 2.95, 2.85, 2.8], {"min_delta": 0.1}, None),
        ([1, 2, 3, 1], {"mode": "max"}, None),
        ([1, 2, 2.05, 2.1, 2.2], {"mode": "max", "min_delta": 0.1}, 3),
        ([1, 1], {"patience": 1}, 1),
    ],
)
def test_the_epoch_at_which_the_patience_is_used_up(figures, options, end):
    stopping = EarlyStopping(**{"patience": 2} | options)
    over = [stopping.update(figure) for figure in figures]
    assert (over.index(True) if True in over else None) == end


def test_the_best_weights_are_those_of_the_best_figure_whatever_min_delta_is():
    model, stopping = nn.Linear(2, 1), EarlyStopping(patience=2, min_delta=1.0)
    for i, figure in enumerate([2.0, 1.5, 1.7]):
        with ndl.no_grad():
            model.weight.fill_(i)
        stopping.update(figure, model)
    again = EarlyStopping(patience=2)
    again.load_state_dict(stopping.state_dict())
    assert again.is_over
    for one in (stopping, again):
        with ndl.no_grad():
            model.weight.fill_(9)
        one.restore(model)
        assert model.weight.numpy().tolist() == [[1], [1]]


def test_without_best_weights_nothing_is_restored():
    model, stopping = nn.Linear(2, 1), EarlyStopping(restore_best=False)
    stopping.update(1.0, model)
    before = model.weight.numpy()
    stopping.restore(model)
    EarlyStopping().restore(model)
    np.testing.assert_array_equal(model.weight.numpy(), before)
