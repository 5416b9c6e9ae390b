"""The confusion matrix, and what follows from it: precision, recall, F1 and IoU."""

from __future__ import annotations

from typing import Any

import numpy as np

from needle import check
from needle.autograd import TensorLike
from needle.backend import HostArray, index_array, to_host, xp
from needle.kernels import class_axis
from needle.metrics.metric import Array, Metric, check_classes, classes_of, is_class, kept_of, optional_index

__all__ = ["F1", "ConfusionMatrix", "IoU", "Precision", "Recall", "confusion_matrix", "precision_recall_f1"]


class ClassCounts(Metric):
    """How often each class was predicted as each; the base of all that follows from these counts."""

    def __init__(self, classes: int, ignore_index: int | None = None) -> None:
        op = type(self).__name__
        self.classes = check.integer(op, "classes", classes, least=1)
        self.ignore_index = optional_index(op, ignore_index)
        super().__init__(self.classes**2 + 1)  # the last place counts what is no class

    def update(self, outputs: TensorLike, targets: TensorLike) -> None:
        """Add a batch: logits (N, classes, *S) or (classes,), or class indices (N, *S); and targets (N, *S) or ().

        The predicted class has the largest logit, the first of those that tie.

        Raises `ValueError` if the shapes do not fit or, on the CPU, if an index is no class (on other devices `compute`
        tells); `TypeError` if dtypes or devices do not fit.
        """
        op, n = type(self).__name__, self.classes
        outputs, targets = classes_of(op, outputs, targets)
        predicted, device = outputs.array, outputs.device
        actual = index_array(op, "targets", targets.array)
        check_classes(op, "targets", actual, n, self.ignore_index)
        if predicted.dtype.kind == "f":
            axis = class_axis(predicted)
            if predicted.shape[axis] != n:
                raise ValueError(f"{op}: outputs must have {n} classes, but got shape {predicted.shape}")
            predicted = predicted.argmax(axis)
        else:
            predicted = index_array(op, "outputs", predicted)
            check_classes(op, "outputs", predicted, n)
        cells = xp(actual).where(is_class(predicted, n) & is_class(actual, n), actual * n + predicted, n * n)
        kept = kept_of(actual, self.ignore_index)
        device.add_at(self._totals_on(device), cells.ravel(), 1.0 if kept is None else kept.ravel().astype("float64"))

    def _matrix(self) -> HostArray:
        totals = to_host(self._totals)
        if totals[-1]:
            limits, unknown = f"[0, {self.classes - 1}]", int(totals[-1])
            raise ValueError(f"{type(self).__name__}: targets and outputs must lie in {limits}, but {unknown} did not")
        matrix: HostArray = totals[:-1].astype("int64").reshape(self.classes, self.classes)
        return matrix


class ConfusionMatrix(ClassCounts):
    """How often each class (row) was predicted as each class (column). Targets equal to `ignore_index` do not count.

    >>> from needle.metrics import ConfusionMatrix
    >>> metric = ConfusionMatrix(2)
    >>> metric.update([1, 0, 1], [1, 0, 0])
    >>> metric.compute()
    array([[1, 1],
           [0, 1]])

    Raises `ValueError` if `classes` is less than 1; `TypeError` if it is no integer, or `ignore_index` neither that nor
    None.
    """

    def compute(self) -> HostArray:
        """The counts so far: int64 (classes, classes)."""
        return self._matrix()


class Precision(ClassCounts):
    """Of the samples predicted as a class, the share that are of it. Targets equal to `ignore_index` do not count.

    `average` and `zero_division` as in `precision_recall_f1`.

    >>> from needle.metrics import Precision
    >>> metric = Precision(2, average=None)
    >>> metric.update([1, 0, 1], [1, 0, 0])
    >>> metric.compute()
    array([1. , 0.5])

    Raises `ValueError` or `TypeError` for bad arguments.
    """

    position = 0  # in the results of `class_shares`

    def __init__(
        self,
        classes: int,
        average: str | None = "macro",
        zero_division: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(classes, ignore_index)
        self.average, self.zero_division = check_averaging(type(self).__name__, average, zero_division)

    def compute(self) -> Any:
        """The figure so far: a float, or float64 (classes,) without an average."""
        return class_shares(self._matrix(), self.average, self.zero_division)[self.position]


class Recall(Precision):
    """Of the samples of a class, the share predicted as it; otherwise as `Precision`.

    >>> from needle.metrics import Recall
    >>> metric = Recall(2, average=None)
    >>> metric.update([1, 0, 1], [1, 0, 0])
    >>> metric.compute()
    array([0.5, 1. ])
    """

    position = 1


class F1(Precision):
    """The harmonic mean of precision and recall; otherwise as `Precision`.

    >>> from needle.metrics import F1
    >>> metric = F1(2)
    >>> metric.update([1, 0, 1], [1, 0, 0])
    >>> round(metric.compute(), 6)
    0.666667
    """

    position = 2


class IoU(Precision):
    """Of the samples that are of a class or predicted as it, the share that are both; otherwise as `Precision`.

    The intersection over union of masks, also called Jaccard index.

    >>> from needle.metrics import IoU
    >>> metric = IoU(2, average=None)
    >>> metric.update([[1, 0], [1, 0]], [[1, 0], [0, 0]])
    >>> metric.compute()
    array([0.66666667, 0.5       ])
    """

    position = 3


def confusion_matrix(outputs: TensorLike, targets: TensorLike, classes: int) -> HostArray:
    """How often each class (row) was predicted as each (column): int64 (classes, classes); as in `ConfusionMatrix`."""
    metric = ConfusionMatrix(classes)
    metric.update(outputs, targets)
    return metric.compute()


def precision_recall_f1(matrix: Any, average: str | None = None, zero_division: float = 0.0) -> tuple[Any, Any, Any]:
    """Precision, recall and F1 of each class, float64 (C,), or their averages, floats, from a confusion matrix (C, C).

    Averages are `"macro"`, the mean over classes; `"weighted"`, by the number of samples of each class; `"micro"`, of
    all decisions together. As in scikit-learn, a share of no samples is `zero_division`: 0, 1 or NaN, which averages
    leave out.

    >>> precision_recall_f1([[1, 1], [0, 1]], "macro")
    (0.75, 0.75, 0.6666666666666666)

    Raises `ValueError` if the matrix is not square or a count negative, and for another `average` or `zero_division`.
    """
    op = "precision_recall_f1"
    average, zero_division = check_averaging(op, average, zero_division)
    counts = np.asarray(to_host(matrix), "float64")
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not (counts >= 0).all():
        raise ValueError(f"{op}: matrix must be square and hold counts, but got shape {counts.shape}")
    return class_shares(counts, average, zero_division)[:3]


def class_shares(counts: HostArray, average: str | None, zero_division: float) -> tuple[Any, Any, Any, Any]:
    """Precision, recall, F1 and IoU of a confusion matrix, per class or averaged."""
    right, predicted, actual = counts.diagonal(), counts.sum(0), counts.sum(1)
    weights = actual if average == "weighted" else None
    if average == "micro":
        right, predicted, actual = right.sum(keepdims=True), predicted.sum(keepdims=True), actual.sum(keepdims=True)
    precision, recall, f1, iou = (
        np.divide(part, whole, out=np.full(whole.shape, zero_division), where=whole > 0)
        for part, whole in (
            (right, predicted), (right, actual), (2 * right, predicted + actual), (right, predicted + actual - right)
        )
    )  # fmt: skip
    if average is None:
        return precision, recall, f1, iou
    return tuple(average_share(share, weights) for share in (precision, recall, f1, iou))  # type: ignore[return-value]


def average_share(shares: Array, weights: Array | None) -> float:
    """The mean of the shares that are not NaN; unweighted, too, if all their weights are 0."""
    known = ~np.isnan(shares)
    if not known.any():
        return float("nan")
    if weights is not None and weights[known].any():
        return float(np.average(shares[known], weights=weights[known]))
    return float(shares[known].mean())


def check_averaging(op: str, average: str | None, zero_division: float) -> tuple[str | None, float]:
    """The two options, checked."""
    check.one_of(op, "average", average, (None, "micro", "macro", "weighted"))
    if zero_division not in (0, 1) and zero_division == zero_division:
        raise ValueError(f"{op}: zero_division must be 0, 1 or NaN, but got {zero_division!r}")
    return average, float(zero_division)
