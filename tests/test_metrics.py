"""Metrics against scikit-learn: results, state, and that a batch neither waits for the device nor stays in memory."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import sklearn.metrics as oracle
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import metrics
from tests.nn.functional.alike import raises
from tests.standin.array import Counts, counting
from tests.standin.device import PEER, STANDIN

AVERAGES = [None, "micro", "macro", "weighted"]
X = ndl.ones(4, 3)
LABELS = ndl.Tensor([0, 1, 2, 0], requires_grad=False)


def batches(classes=5, sizes=(7, 1, 20), seed=0, low=0, high=None):
    """Batches of logits, of which many tie, and labels in [low, high)."""
    rng = np.random.default_rng(seed)
    for n in sizes:
        yield rng.integers(0, 4, (n, classes)).astype("float32"), rng.integers(low, high or classes, n)


def joined(pairs):
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


def measured(metric, pairs, device=None):
    """The figure of a metric over batches that lie on a device."""
    for outputs, targets in pairs:
        metric.update(ndl.Tensor(outputs, device=device), ndl.Tensor(targets, device=device))
    return metric.compute()


def everything():
    """One metric of each kind for 5 classes."""
    return [
        metrics.Accuracy(), metrics.Accuracy(2), metrics.TopKAccuracy(2), metrics.ConfusionMatrix(5),
        metrics.Precision(5), metrics.Recall(5, "weighted"), metrics.F1(5, None, ignore_index=1),
    ]  # fmt: skip


# ---- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0, 5), (1, 3), (4, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_scikit_learn(seed, low, high, device):
    pairs = list(batches(seed=seed, low=low, high=high))
    logits, labels = joined(pairs)
    predicted, classes = logits.argmax(1), range(5)
    assert measured(metrics.Accuracy(), pairs, device) == oracle.accuracy_score(labels, predicted)
    for k in (1, 2, 4):
        expected = oracle.top_k_accuracy_score(labels, logits, k=k, labels=classes)
        assert measured(metrics.TopKAccuracy(k), pairs, device) == expected
    matrix = measured(metrics.ConfusionMatrix(5), pairs, device)
    assert matrix.dtype == "int64"
    assert_array_equal(matrix, oracle.confusion_matrix(labels, predicted, labels=classes))
    for average in AVERAGES:
        for zero in (0, 1, math.nan):
            expected = oracle.precision_recall_fscore_support(
                labels, predicted, labels=classes, average=average, zero_division=zero
            )
            kinds = metrics.Precision, metrics.Recall, metrics.F1
            figures = [measured(kind(5, average, zero), pairs, device) for kind in kinds]
            for figure, number in zip(figures, expected, strict=False):
                assert_allclose(figure, number, rtol=1e-15, atol=0)
            assert_array_equal(np.array(figures), np.array(metrics.precision_recall_f1(matrix, average, zero)))
        expected = oracle.jaccard_score(labels, predicted, labels=classes, average=average, zero_division=0)
        assert_allclose(measured(metrics.IoU(5, average), pairs, device), expected, rtol=1e-15, atol=0)


def test_one_class(device):
    pairs = [(np.ones((3, 1), "float32"), np.zeros(3, int))]
    assert measured(metrics.Accuracy(), pairs, device) == 1
    assert measured(metrics.TopKAccuracy(1), pairs, device) == 1
    assert measured(metrics.ConfusionMatrix(1), pairs, device).tolist() == [[3]]
    assert measured(metrics.F1(1), pairs, device) == 1


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("zero", [0, 1, math.nan])
@pytest.mark.parametrize("matrix", [[[0, 0], [0, 5]], [[0, 0], [4, 0]], [[0, 3], [0, 0]]])
def test_shares_of_nothing(matrix, average, zero):
    """Also where no sample is weighted: scikit-learn then takes the plain mean."""
    counts = np.array(matrix)
    labels, predicted = (np.repeat(grid.ravel(), counts.ravel()) for grid in np.indices((2, 2)))
    expected = oracle.precision_recall_fscore_support(
        labels, predicted, labels=[0, 1], average=average, zero_division=zero
    )
    for figure, number in zip(metrics.precision_recall_f1(matrix, average, zero), expected, strict=False):
        assert_array_equal(figure, number)


def test_pixels_count_as_samples(device):
    """Logits (N, C, *S) beside targets (N, *S), also in the memory order of convolutions."""
    rng = np.random.default_rng(1)
    logits = np.asfortranarray(rng.standard_normal((2, 3, 4, 5)).astype("float32"))
    labels = rng.integers(0, 3, (2, 4, 5))
    rows = np.moveaxis(logits, 1, -1).reshape(-1, 3)
    for metric in (metrics.Accuracy(), metrics.TopKAccuracy(2), metrics.ConfusionMatrix(3), metrics.F1(3)):
        fresh = copy.deepcopy(metric)
        assert_array_equal(
            measured(metric, [(logits, labels)], device), measured(fresh, [(rows, labels.ravel())], device)
        )


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "uint64", "float32"])
def test_indices_in_place_of_logits(dtype, device):
    pairs = list(batches())
    indices = [(logits.argmax(1), labels.astype(dtype)) for logits, labels in pairs]
    for metric in (metrics.Accuracy(), metrics.ConfusionMatrix(5)):
        fresh = copy.deepcopy(metric)
        assert_array_equal(measured(metric, pairs, device), measured(fresh, indices, device))


def test_one_sample_without_a_batch():
    for metric in (metrics.Accuracy(), metrics.TopKAccuracy(1), metrics.Precision(3, "micro")):
        metric.update(ndl.Tensor([0.0, 2.0, 1.0]), 1)
        metric.update([0.0, 2.0, 1.0], ndl.Tensor(2))
        assert metric.compute() == 0.5


@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_ignored_targets_count_nothing(ignored, device):
    pairs = list(batches())
    masked = [(logits, np.where(labels == 2, ignored, labels)) for logits, labels in pairs]
    kept = [(logits[labels != 2], labels[labels != 2]) for logits, labels in pairs]
    for metric in (
        metrics.Accuracy(ignored), metrics.TopKAccuracy(2, ignored), metrics.ConfusionMatrix(5, ignored),
        metrics.F1(5, ignore_index=ignored),
    ):  # fmt: skip
        fresh = copy.deepcopy(metric)
        assert_array_equal(measured(metric, masked, device), measured(fresh, kept, device))


def test_nan_is_no_hit(device):
    """A model whose loss is NaN has no top-k accuracy."""
    logits = np.full((4, 3), np.nan, "float32")
    assert measured(metrics.TopKAccuracy(2), [(logits, np.arange(4) % 3)], device) == 0
    logits = np.array([[np.nan, 2, 1]], "float32")
    assert measured(metrics.TopKAccuracy(1), [(logits, np.array([1]))], device) == 0
    assert measured(metrics.TopKAccuracy(2), [(logits, np.array([1]))], device) == 1


def test_functions_are_the_metrics_of_one_batch():
    logits, labels = joined(batches())
    predicted = logits.argmax(1)
    assert metrics.accuracy(logits, labels) == oracle.accuracy_score(labels, predicted)
    expected = oracle.top_k_accuracy_score(labels, logits, k=3, labels=range(5))
    assert metrics.top_k_accuracy(logits, labels, 3) == expected
    assert_array_equal(metrics.confusion_matrix(logits, labels, 5), oracle.confusion_matrix(labels, predicted))


# ---- means -----------------------------------------------------------------------------------------------------------


def test_a_mean_is_weighted_and_summed_in_float64(device):
    values = np.random.default_rng(0).standard_normal(50).astype("float32") * 10.0 ** np.arange(-25, 25)
    counts = np.arange(50)
    metric = metrics.Mean()
    for value, count in zip(values.astype("float32"), counts, strict=True):
        metric.update(ndl.Tensor(value, device=device), count)
    expected = sum(float(value) * int(count) for value, count in zip(values.astype("float32"), counts, strict=True))
    assert metric.compute() == expected / counts.sum()


def test_a_mean_takes_numbers_and_single_elements():
    metric = metrics.Mean()
    metric.update(1)
    metric.update(np.float32(2.5), 2)
    metric.update(ndl.Tensor([[4.0]]))
    metric.update(np.nan, 0)  # the loss of no items
    assert metric.compute() == 2.5


def test_squared_errors_are_those_of_scikit_learn(device):
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.standard_normal((2, n, 3))) for n in (4, 1, 9)]
    metric = metrics.MeanSquaredError()
    assert_allclose(measured(metric, pairs, device), oracle.mean_squared_error(*joined(pairs)), rtol=1e-14)
    half = [tuple(np.array(part, "float16") for part in ([300.0], [-300.0]))]
    metric.reset()
    assert measured(metric, half, device) == 360000


def test_figures_of_nothing_are_nan():
    for metric in (metrics.Accuracy(), metrics.TopKAccuracy(), metrics.Mean(), metrics.MeanSquaredError()):
        assert math.isnan(metric.compute())
    assert metrics.ConfusionMatrix(2).compute().tolist() == [[0, 0], [0, 0]]
    assert [metrics.F1(2, average, 1.0).compute() for average in AVERAGES[1:]] == [1, 1, 1]
    metric = metrics.Accuracy()
    metric.update(np.ones((0, 3)), np.ones(0, int))
    assert math.isnan(metric.compute())


# ---- what all of them do ---------------------------------------------------------------------------------------------


def test_a_resumed_metric_continues_bit_for_bit(device):
    pairs = list(batches())
    for whole, part, rest in zip(everything(), everything(), everything(), strict=True):
        expected = measured(whole, pairs, device)
        measured(part, pairs[:2], device)
        state = part.state_dict()
        kept = state["totals"].copy()
        rest.load_state_dict(state)
        assert_array_equal(measured(rest, pairs[2:], device), expected)
        assert_array_equal(state["totals"], kept)  # the state is not written to


def test_a_resumed_mean_continues_bit_for_bit():
    values = np.random.default_rng(0).standard_normal(9).astype("float32")
    whole, part, rest = metrics.Mean(), metrics.Mean(), metrics.Mean()
    for value in values:
        whole.update(value, 3)
    for value in values[:5]:
        part.update(value, 3)
    rest.load_state_dict(part.state_dict())
    for value in values[5:]:
        rest.update(value, 3)
    assert rest.state_dict()["totals"].tobytes() == whole.state_dict()["totals"].tobytes()


def test_a_batch_is_counted_without_waiting():
    """No transfer and no synchronization, once the totals are on the device; and what is kept does not grow."""
    logits, labels = (ndl.Tensor(part, device=STANDIN) for part in joined(batches()))
    for metric in (*everything(), metrics.MeanSquaredError()):
        targets = logits if isinstance(metric, metrics.MeanSquaredError) else labels
        metric.update(logits, targets)
        size = len(pickle.dumps(metric))
        with counting() as counts:
            metric.update(logits, targets)
        assert counts == Counts()
        assert 0 < counts.calls < 30
        assert len(pickle.dumps(metric)) == size


def test_a_mean_of_losses_does_not_wait():
    metric, loss = metrics.Mean(), ndl.Tensor(0.5, device=STANDIN)
    metric.update(loss, 2)
    with counting() as counts:
        metric.update(loss, 2)
    assert counts == Counts()
    assert metric.compute() == 0.5


def test_a_metric_follows_its_batches_to_another_device():
    metric = metrics.Accuracy()
    for device in (ndl.cpu(), STANDIN, PEER, ndl.cpu()):
        with device.current():
            metric.update(ndl.ones(2, 3, device=device), ndl.zeros(2, device=device))
    assert metric.compute() == 1


def test_no_class_on_a_device_is_told_by_compute():
    metric = metrics.ConfusionMatrix(3)
    metric.update(ndl.ones(4, 3, device=STANDIN), ndl.Tensor([0, 3, -1, 2], device=STANDIN))
    message = "ConfusionMatrix: targets and outputs must lie in [0, 2], but 2 did not"
    raises(metric.compute, ValueError, message)
    metric.reset()
    assert not metric.compute().any()
    top = metrics.TopKAccuracy(3)
    top.update(ndl.ones(3, 3, device=STANDIN), ndl.Tensor([0, 3, -1], device=STANDIN))
    assert top.compute() == 1 / 3


def test_copies_are_independent():
    metric = metrics.ConfusionMatrix(3)
    metric.update(X, LABELS)
    for twin in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        metric.update(X, LABELS)
        assert twin.compute().sum() == 4
        metric.reset()
        metric.update(X, LABELS)


def test_a_subclass_can_be_of_the_users_own():
    class Largest(metrics.Metric):
        def __init__(self):
            super().__init__(1)

    assert repr(Largest()) == "Largest()"
    assert repr(metrics.TopKAccuracy(3)) == "TopKAccuracy(k=3, ignore_index=None)"


# ---- errors ----------------------------------------------------------------------------------------------------------


def with_unknown():
    """A confusion matrix of a device that counted what is no class."""
    metric = metrics.ConfusionMatrix(1)
    metric.load_state_dict({"totals": np.array([3.0, 2.0])})
    return metric.compute()


def test_of_probabilities_the_most_probable_class_counts(device):
    """Targets of MixUp, CutMix and label smoothing."""
    draw = np.random.default_rng(0)
    logits, targets = (draw.random((50, 4, 3)).astype("float32") for _ in range(2))
    for part, axis in ((..., 1), ((..., 0), 1), ((0, slice(None), 0), 0)):
        outputs, probabilities = logits[part], targets[part]
        x, y = ndl.Tensor(outputs, device=device), ndl.Tensor(probabilities, device=device)
        classes = probabilities.argmax(axis)
        assert metrics.accuracy(x, y) == metrics.accuracy(outputs, classes)
        assert metrics.top_k_accuracy(x, y, 2) == metrics.top_k_accuracy(outputs, classes, 2)
        expected = metrics.confusion_matrix(outputs, classes, 4)
        np.testing.assert_array_equal(metrics.confusion_matrix(x, y, 4), expected)


ERRORS = [
    (metrics.Metric(1).compute, NotImplementedError, "Metric: compute is not defined"),
    (lambda: metrics.Metric(1).update(X, LABELS), NotImplementedError, "Metric: update is not defined"),
    (lambda: metrics.accuracy(X, ndl.ones(4) > 0), TypeError,
     "Accuracy: targets must be class indices, but got dtype bool"),
    (lambda: metrics.accuracy(X > 0, LABELS), TypeError,
     "Accuracy: outputs must be logits or class indices, but got dtype bool"),
    (lambda: metrics.accuracy(X, LABELS[:3]), ValueError,
     "Accuracy: targets must hold class indices (4,) for outputs (4, 3), but got (3,)"),
    (lambda: metrics.accuracy(X, np.zeros((4, 3), int)), ValueError,
     "Accuracy: targets must hold class indices (4,) for outputs (4, 3), but got (4, 3)"),
    (lambda: metrics.accuracy(LABELS, LABELS[:3]), ValueError,
     "Accuracy: targets must hold class indices (4,) for outputs (4,), but got (3,)"),
    (lambda: metrics.accuracy(ndl.ones(4, 0), LABELS), ValueError,
     "Accuracy: outputs must have an axis of at least 1 class, but got shape (4, 0)"),
    (lambda: metrics.accuracy(1.5, LABELS[0]), ValueError,
     "Accuracy: outputs must have an axis of at least 1 class, but got shape ()"),
    (lambda: metrics.accuracy("a", LABELS), TypeError,
     "Accuracy: operands must be tensors, arrays, rectangular lists or numbers, but got str"),
    (lambda: metrics.accuracy(ndl.ones(4, 3, device=STANDIN), LABELS), TypeError,
     "Accuracy: inputs must be on one device, but got standin() and cpu()"),
    (lambda: metrics.accuracy(ndl.ones(4, 1), LABELS), ValueError,
     "Accuracy: targets must lie in [0, 0], but got 0 to 2"),
    (lambda: metrics.Accuracy(1.5), TypeError, "Accuracy: ignore_index must be an integer, but got 1.5"),
    (lambda: metrics.TopKAccuracy(0), ValueError, "TopKAccuracy: k must be at least 1, but got 0"),
    (lambda: metrics.top_k_accuracy(X, LABELS), ValueError,
     "TopKAccuracy: outputs must have at least k = 5 classes, but got shape (4, 3)"),
    (lambda: metrics.top_k_accuracy(LABELS, LABELS), TypeError,
     "TopKAccuracy: outputs must have a floating dtype, but got int64"),
    (lambda: metrics.top_k_accuracy(X, LABELS + 1, 2), ValueError,
     "TopKAccuracy: targets must lie in [0, 2], but got 1 to 3"),
    (lambda: metrics.ConfusionMatrix(0), ValueError, "ConfusionMatrix: classes must be at least 1, but got 0"),
    (lambda: metrics.confusion_matrix(X, LABELS, 4), ValueError,
     "ConfusionMatrix: outputs must have 4 classes, but got shape (4, 3)"),
    (lambda: metrics.confusion_matrix(X, LABELS + 1, 3), ValueError,
     "ConfusionMatrix: targets must lie in [0, 2], but got 1 to 3"),
    (lambda: metrics.confusion_matrix(LABELS - 1, LABELS, 3), ValueError,
     "ConfusionMatrix: outputs must lie in [0, 2], but got -1 to 1"),
    (lambda: metrics.confusion_matrix(X, ndl.ones(4) / 2, 3), ValueError,
     "ConfusionMatrix: targets must be integers, but got 0.5"),
    (lambda: metrics.F1(3, "mean"), ValueError,
     "F1: average must be one of None, 'micro', 'macro', 'weighted', but got 'mean'"),
    (lambda: metrics.Recall(3, zero_division="warn"), ValueError,
     "Recall: zero_division must be 0, 1 or NaN, but got 'warn'"),
    (lambda: metrics.precision_recall_f1(np.ones((2, 3))), ValueError,
     "precision_recall_f1: matrix must be square and hold counts, but got shape (2, 3)"),
    (lambda: metrics.precision_recall_f1([[1, -1], [0, 1]]), ValueError,
     "precision_recall_f1: matrix must be square and hold counts, but got shape (2, 2)"),
    (with_unknown, ValueError, "ConfusionMatrix: targets and outputs must lie in [0, 0], but 2 did not"),
    (lambda: metrics.Mean().update([1.0, 2.0]), ValueError, "Mean: value must have 1 element, but got shape (2,)"),
    (lambda: metrics.Mean().update(1.0, -1), ValueError, "Mean: count must be at least 0, but got -1"),
    (lambda: metrics.MeanSquaredError().update(X, ndl.ones(3, 4)), ValueError,
     "MeanSquaredError: outputs and targets must agree in shape, but got (4, 3) and (3, 4)"),
    (lambda: metrics.MeanSquaredError().update(LABELS, LABELS), TypeError,
     "MeanSquaredError: outputs and targets must have one floating dtype, but got int64 and int64"),
    (lambda: metrics.Mean().load_state_dict({"total": 1}), ValueError,
     "Mean: state must be a dict with the key 'totals', but got {'total': 1}"),
    (lambda: metrics.Mean().load_state_dict({"totals": np.zeros(3)}), ValueError,
     "Mean: totals must be of shape (2,) and dtype float64, but got (3,) and float64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_errors(call, error, message):
    raises(call, error, message)


def test_a_refused_batch_changes_nothing():
    metric = metrics.ConfusionMatrix(3)
    metric.update(X, LABELS)
    before = metric.state_dict()["totals"].tobytes()
    for outputs, targets in ((X, LABELS + 1), (X, LABELS[:2])):
        with pytest.raises(ValueError, match="targets"):
            metric.update(outputs, targets)
    with pytest.raises(ValueError, match="totals"):
        metric.load_state_dict({"totals": np.zeros(3)})
    assert metric.state_dict()["totals"].tobytes() == before
