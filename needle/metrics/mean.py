"""Means over the items of all batches, summed in float64: of losses, and of squared errors."""

from __future__ import annotations

from needle import check
from needle.autograd import TensorLike
from needle.backend import compute_dtype, xp
from needle.metrics.metric import Metric, on_one_device
from needle.ops.operand import tensor

__all__ = ["Mean", "MeanSquaredError"]


class Mean(Metric):
    """The mean of values, each weighted by its count: of the losses of batches, by their sizes. NaN without any.

    >>> from needle.metrics import Mean
    >>> loss = Mean()
    >>> loss.update(0.5, 64)
    >>> loss.update(0.25, 32)
    >>> round(loss.compute(), 6)
    0.416667
    """

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, value: TensorLike, count: int = 1) -> None:  # type: ignore[override]
        """Add a value, one element of any shape, `count` times.

        Raises `ValueError` for more elements, or if `count` is negative; `TypeError` if it is no integer.
        """
        value, count = tensor("Mean", value), check.integer("Mean", "count", count, least=0)
        if value.size != 1:
            raise ValueError(f"Mean: value must have 1 element, but got shape {value.shape}")
        if count:  # no times NaN would be NaN
            self._add(value.array.reshape(()).astype("float64") * count, count)

    def compute(self) -> float:
        """The mean so far."""
        return self._mean()


class MeanSquaredError(Metric):
    """The mean of (outputs - targets)² over all elements. NaN without any.

    >>> from needle.metrics import MeanSquaredError
    >>> error = MeanSquaredError()
    >>> error.update([1.0, 2.0], [1.0, 4.0])
    >>> error.compute()
    2.0
    """

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, outputs: TensorLike, targets: TensorLike) -> None:
        """Add a batch: two tensors of one shape and one floating dtype.

        Raises `ValueError` if the shapes differ, `TypeError` if dtypes or devices do.
        """
        outputs, targets = on_one_device("MeanSquaredError", outputs, targets)
        check.same("MeanSquaredError", "shape", outputs.shape, targets.shape, ("outputs", "targets"))
        check.floats("MeanSquaredError", outputs=outputs, targets=targets)
        wide = compute_dtype(outputs.dtype)
        error = outputs.array.astype(wide, copy=False) - targets.array
        self._add(xp(error).square(error).sum(dtype="float64"), error.size)

    def compute(self) -> float:
        """The mean so far."""
        return self._mean()
