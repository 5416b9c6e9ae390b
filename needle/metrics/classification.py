"""The share of samples whose class is the predicted one, or among the k most probable."""

from __future__ import annotations

from needle import check
from needle.autograd import TensorLike
from needle.backend import index_array, xp
from needle.kernels import class_axis
from needle.metrics.metric import Array, Metric, check_classes, classes_of, is_class, kept_of, optional_index

__all__ = ["Accuracy", "TopKAccuracy", "accuracy", "top_k_accuracy"]


class Accuracy(Metric):
    """The share of samples whose predicted class is the target, from 0 to 1. NaN without samples.

    Targets equal to `ignore_index` do not count. Of targets that are probabilities (N, C, *S), as `MixUp` makes them,
    the most probable class counts; so it does in the other metrics of classes.

    >>> from needle.metrics import Accuracy
    >>> metric = Accuracy()
    >>> metric.update([[0.1, 2.0], [1.0, 0.0], [0.3, 0.2]], [1, 0, 1])
    >>> metric.update([1, 0], [1, 0])
    >>> metric.compute()
    0.8

    Raises `TypeError` if `ignore_index` is neither None nor an integer.
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__(2)
        self.ignore_index = optional_index(type(self).__name__, ignore_index)

    def update(self, outputs: TensorLike, targets: TensorLike) -> None:
        """Add a batch: logits (N, C, *S) or (C,), or class indices (N, *S), and class indices (N, *S) or ().

        The predicted class has the largest logit, the first of those that tie.

        Raises `ValueError` if the shapes do not fit or, on the CPU, a target is no class of the logits; `TypeError` if
        dtypes or devices do not fit.
        """
        op = "Accuracy"
        outputs, targets = classes_of(op, outputs, targets)
        predicted, actual = outputs.array, index_array(op, "targets", targets.array)
        if predicted.dtype.kind == "f":
            axis = class_axis(predicted)
            check_classes(op, "targets", actual, predicted.shape[axis], self.ignore_index)
            predicted = predicted.argmax(axis)
        self._count(predicted == actual, actual)

    def compute(self) -> float:
        """The share so far."""
        return self._mean()

    def _count(self, hits: Array, targets: Array) -> None:
        """Add the hits among the targets that are not ignored."""
        kept = kept_of(targets, self.ignore_index)
        if kept is None:
            self._add(xp(hits).count_nonzero(hits), hits.size)
        else:
            self._add((hits & kept).sum(), kept.sum())


class TopKAccuracy(Accuracy):
    """The share of samples whose target is among the `k` classes of the largest logits. NaN without samples.

    Of tied logits the one of the higher class counts as larger, as in scikit-learn. NaN counts as larger than others,
    but is no hit itself. Targets equal to `ignore_index` do not count.

    >>> from needle.metrics import TopKAccuracy
    >>> metric = TopKAccuracy(2)
    >>> metric.update([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], [2, 2])
    >>> metric.compute()
    0.5

    Raises `ValueError` if `k` is less than 1; `TypeError` if it is no integer, or `ignore_index` neither that nor None.
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None) -> None:
        self.k = check.integer("TopKAccuracy", "k", k, least=1)
        super().__init__(ignore_index)

    def update(self, outputs: TensorLike, targets: TensorLike) -> None:
        """Add a batch: logits (N, C, *S) or (C,), and class indices (N, *S) or ().

        Raises `ValueError` if the shapes do not fit, there are fewer classes than k or, on the CPU, a target is no
        class; `TypeError` if dtypes or devices do not fit.
        """
        op = "TopKAccuracy"
        outputs, targets = classes_of(op, outputs, targets)
        check.floats(op, outputs=outputs)
        scores, axis = outputs.array, class_axis(outputs)
        n = scores.shape[axis]
        if self.k > n:
            raise ValueError(f"{op}: outputs must have at least k = {self.k} classes, but got shape {scores.shape}")
        actual, names = index_array(op, "targets", targets.array), xp(scores)
        check_classes(op, "targets", actual, n, self.ignore_index)
        index = names.expand_dims(actual, axis)
        score = names.take_along_axis(scores, index % n, axis)  # elsewhere than on the CPU it may be no class
        classes = names.arange(n).reshape((n,) + (1,) * (scores.ndim - axis - 1))
        beaten = (scores < score) | ((scores == score) & (classes <= index))
        self._count((beaten.sum(axis) > n - self.k) & is_class(actual, n), actual)


def accuracy(outputs: TensorLike, targets: TensorLike) -> float:
    """The share of samples whose predicted class is the target; arguments and errors as in `Accuracy.update`.

    >>> accuracy([[0.1, 2.0], [1.0, 0.0], [0.3, 0.2]], [1, 0, 0])
    1.0
    """
    metric = Accuracy()
    metric.update(outputs, targets)
    return metric.compute()


def top_k_accuracy(outputs: TensorLike, targets: TensorLike, k: int = 5) -> float:
    """The share of samples whose target is among the `k` largest logits; as in `TopKAccuracy`.

    >>> top_k_accuracy([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], [2, 2], k=2)
    0.5
    """
    metric = TopKAccuracy(k)
    metric.update(outputs, targets)
    return metric.compute()
