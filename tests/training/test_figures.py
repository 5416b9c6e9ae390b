"""Mean losses and metrics of a pass; evaluation: modes, graphs, what is returned."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import nn, training
from needle.metrics import Accuracy, ConfusionMatrix
from needle.training import Figures


class First(nn.Module):
    """A loss that shows which batch it saw: the first logit of the last row."""

    def forward(self, x, target):
        return x[-1, 0] * 1


def identity():
    model = nn.Sequential(nn.Linear(2, 2))
    model.load_state_dict({"0.weight": np.eye(2), "0.bias": np.zeros((1, 2))})
    return model


BATCHES = [
    (ndl.Tensor([[9.0, 0], [0, 9], [4, 0]], dtype="float32"), ndl.Tensor([0, 1, 1])),
    (ndl.Tensor([[8.0, 0]], dtype="float32"), ndl.Tensor([0])),
]


def test_the_figures_are_means_over_items():
    metrics = {"accuracy": Accuracy(), "confusion": ConfusionMatrix(2)}
    figures = training.evaluate(identity(), First(), BATCHES, metrics)
    assert (figures["loss"], figures["accuracy"]) == ((3 * 4 + 1 * 8) / 4, 3 / 4)
    assert np.asarray(figures["confusion"]).tolist() == [[2, 0], [1, 1]]
    assert np.isnan(metrics["accuracy"].compute())  # copies were used


def test_modes_and_graphs_of_an_evaluation():
    seen = []

    class Probe(nn.Linear):
        def forward(self, x):
            seen.append((self.training, ndl.is_grad_enabled()))
            return super().forward(x)

    model = nn.Sequential(Probe(2, 2), nn.Sequential(nn.ReLU()))
    model[1].eval()
    training.evaluate(model, nn.CrossEntropyLoss(), BATCHES)
    assert seen == [(False, False)] * 2
    assert [module.training for _, module in model.named_modules()] == [True, True, False, False]
    with pytest.raises(ZeroDivisionError):
        training.evaluate(model, lambda outputs, targets: 1 / 0, BATCHES)
    assert [module.training for _, module in model.named_modules()] == [True, True, False, False]


@pytest.mark.parametrize("pack", [lambda y: (y, y[:1]), lambda y: [[y], 3], lambda y: {"boxes": y, "names": y}])
def test_the_first_of_several_targets_counts(pack):
    batches = [(inputs, pack(targets)) for inputs, targets in BATCHES]
    assert training.evaluate(identity(), First(), batches) == {"loss": (3 * 4 + 1 * 8) / 4}


def test_modes_come_back_if_a_pass_cannot_begin():
    class Forward:
        def reset(self):
            raise ZeroDivisionError

    model = identity()
    with pytest.raises(ZeroDivisionError):
        training.evaluate(model, First(), BATCHES, forward=Forward())
    assert model.training


def test_a_forward_may_carry_something_through_a_pass():
    class Counting:
        def reset(self):
            self.count = 0

        def __call__(self, model, batch):
            self.count += 1
            return ndl.Tensor([[float(self.count), 0]]), ndl.Tensor([0])

    for _ in range(2):
        assert training.evaluate(identity(), First(), BATCHES, forward=Counting()) == {"loss": 1.5}


def test_several_targets_count_as_the_first():
    figures = Figures()
    figures.update(ndl.Tensor(2.0), None, (ndl.ones(3), ndl.ones(3, 2)))
    figures.update(ndl.Tensor(4.0), None, ndl.ones(1, 5))
    assert (figures.items, figures.compute()) == (4, {"loss": 2.5})


def test_figures_go_on_bit_for_bit(device):
    losses, metrics = np.random.rand(6).astype("float32"), {"accuracy": Accuracy()}
    whole, half = Figures(metrics), Figures(metrics)

    def update(figures, i):
        logits = ndl.Tensor(np.random.RandomState(i).randn(i + 1, 3), device=device)
        figures.update(ndl.Tensor(losses[i], device=device), logits, ndl.Tensor(np.zeros(i + 1, int), device=device))

    for i in range(6):
        update(whole, i)
        if i == 2:
            half.load_state_dict(whole.state_dict())
        elif i > 2:
            update(half, i)
    assert half.compute() == whole.compute()
    assert half.items == whole.items == 21
    assert whole.compute()["loss"] == pytest.approx(np.dot(losses, range(1, 7)) / 21, rel=1e-6)
    whole.reset()
    assert (whole.items, whole.loss.state_dict()["totals"].tolist()) == (0, [0, 0])


@pytest.mark.parametrize("size", [64, 5000])  # small batches wait, and are added several at a time
def test_a_batch_may_be_overwritten_after_its_update(size):
    figures, hits = Figures({"accuracy": Accuracy()}), []
    labels = np.zeros(size, int)
    targets, loss = ndl.from_numpy(labels), ndl.Tensor(0.0, requires_grad=False)
    for i in range(40):
        labels[:] = i % 3
        loss.data = ndl.Tensor(float(i))
        logits = np.random.rand(size, 3)
        figures.update(loss, ndl.Tensor(logits, requires_grad=False), targets)
        hits.append((logits.argmax(1) == labels).mean())
    assert figures.compute() == {"loss": 19.5, "accuracy": pytest.approx(np.mean(hits))}


def test_a_metric_tells_what_does_not_fit_at_the_first_batch():
    with pytest.raises(ValueError, match="targets must hold class indices"):
        Figures({"accuracy": Accuracy()}).update(ndl.Tensor(0.0), ndl.ones(2, 3), ndl.Tensor([0, 1, 2]))
