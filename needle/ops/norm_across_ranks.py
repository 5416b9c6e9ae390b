"""Normalization by the statistics of a whole batch of which each of several ranks has a part.

Source for merging the statistics of parts: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances" (1979), equations 1.5a and 1.5b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from needle import kernels
from needle.autograd import Tensor
from needle.backend import xp
from needle.backend.communicator import Communicator, current_communicator
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.across_ranks import AllReduce
from needle.ops.arithmetic import DIVIDE, as_dtype
from needle.ops.base import Array
from needle.ops.norm import Standardize
from needle.ops.reduce import Summation
from needle.ops.tuples import pick

__all__ = ["StandardizeAcrossRanks", "batch_standardizer"]


class StandardizeAcrossRanks(Standardize):
    """`Standardize` of this rank's part of a batch, by the mean and variance of the whole batch.

    Weight and bias hold one number for all elements that are normalized together. After mean and variance the result
    has the number of elements behind each, of shape (1, …, 1). The ranks exchange these once, and the sums that the
    gradients need once more; what they do with x they do as one process does.
    """

    def __init__(
        self, communicator: Communicator, axes: Size, eps: float, scaled: bool, shifted: bool, form: Size | None = None,
        rectified: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(axes, eps, scaled, shifted, form, rectified)
        self.communicator = communicator

    def compute(self, x: Array, *affine: Array) -> tuple[Array, ...]:
        _, average, variance = self.by_rows(_moments, [x], [])
        average, variance, count = self.merge(average, variance, x.size // average.size)
        shift = kernels.find_shift(x.dtype, average, variance)
        rest, shifts = (average, ()) if shift is None else (average - shift, (shift,))
        scale, offset, *_ = kernels.find_line(x.dtype, rest, variance, self.eps, *self.affine(affine))
        y, *_ = self.by_rows(partial(_apply, rectified=self.rectified), [x], [scale, offset, *shifts])
        return y, average, variance, count

    def by_rows(
        self, work: Callable[..., Any], arrays: Sequence[Array], columns: Sequence[Array], out: Array | None = None
    ) -> tuple[Array, ...]:  # fmt: skip
        """`work(mean, *arrays, *columns, out=…)`, on chunks of rows if x, the first array, is laid out in rows."""
        rows = kernels.Rows.of(arrays[0], self.axes)
        if rows is None:
            results = work(kernels.mean_over(self.axes), *arrays, *columns, out=out)
        else:
            columns = [rows.column(column) for column in columns]
            results = rows.apply(partial(work, kernels.mean_of_rows), arrays, columns, out)
        return tuple(results)

    def merge(self, average: Array, variance: Array, count: int) -> tuple[Array, Array, Array]:
        """Mean, variance and count of the whole batch, from those of this rank's part; merged in the order of ranks."""
        size = average.size
        row = xp(average).empty(1 + 2 * size)
        row[0] = count
        row[1 : 1 + size] = average.reshape(-1)
        row[1 + size :] = variance.reshape(-1) * count
        rows = self.communicator.all_gather(row)
        parts = [(row[:1], row[1 : 1 + size], row[1 + size :]) for row in rows]
        whole_count, mean, squares = parts[0]  # squares of the deviations from the mean, added up
        for other_count, other_mean, other_squares in parts[1:]:
            before, whole_count = whole_count, whole_count + other_count
            difference, share = other_mean - mean, other_count / whole_count
            mean = mean + difference * share
            squares = squares + other_squares + difference * difference * (before * share)
        shape = variance.shape
        return mean.reshape(shape), (squares / whole_count).reshape(shape), whole_count.reshape((1,) * len(shape))

    def infer(self, x: Any, *affine: Any) -> tuple[Spec, ...]:
        y, average, variance = super().infer(x, *affine)
        return y, average, variance, Spec((1,) * len(x.shape), average.dtype)

    def mean_of(self, node: Any) -> Callable[[Tensor], Tensor]:
        total, count = Summation(self.axes, keepdims=True), pick(node, 3).detach()
        return lambda x: DIVIDE(AllReduce(self.communicator)(total(x)), as_dtype(count, x.dtype))

    def compute_gradient(
        self, out_grad: tuple[Array, ...], output: tuple[Array, ...], x: Array, *affine: Array, needed: Sequence[bool]
    ) -> tuple[Array | None, ...]:
        (grad, *_), (y, average, variance, count) = out_grad, output
        scale = (variance + self.eps) ** -0.5
        factor = scale * self.affine(affine)[0] if self.scaled else scale
        shift = kernels.find_gradient_shift(x, average, variance)
        rest, shifts = (average, ()) if shift is None else (average - shift, (shift,))
        arrays = [x, grad, y] if self.rectified else [x, grad]
        means = partial(_gradient_means, rectified=self.rectified)
        masked, total, product = self.by_rows(means, arrays, shifts)
        sums = xp(x).stack([total, product - total * rest]) * (x.size // average.size)
        grads: list[Array] = [sums[1] * scale] * self.scaled + [sums[0]] * self.shifted
        grads = [value.reshape(parameter.shape).astype(x.dtype) for value, parameter in zip(grads, affine, strict=True)]
        x_grad = None
        if needed[0]:
            self.communicator.all_reduce(sums)
            total, product = sums / count
            columns = (*kernels.gradient_line(x.dtype, rest, total, product, scale, factor), *shifts)
            work = partial(_input_gradient, in_place=self.rectified)
            # nobody else has `masked`, so it takes the gradient in x
            arrays, out = ([x], masked) if self.rectified else ([x, grad], None)
            x_grad, *_ = self.by_rows(work, arrays, columns, out)
        return tuple(grad if need else None for grad, need in zip([x_grad, *grads], needed, strict=True))


def _moments(mean: kernels.MeanOf, x: Array, out: Array | None) -> tuple[Array, ...]:
    return (out, *kernels.moments(mean, x)[:2])


def _apply(
    mean: kernels.MeanOf, x: Array, scale: Array, offset: Array, shift: Array | None = None, *, rectified: bool,
    out: Array | None,
) -> tuple[Array]:  # fmt: skip
    return (kernels.apply_line(x, shift, scale, offset, rectified=rectified, out=out),)


def _gradient_means(
    mean: kernels.MeanOf, x: Array, grad: Array, *others: Array, rectified: bool, out: Array | None
) -> tuple[Array, ...]:
    """Behind grad, 0 where y is not positive if `rectified`: the means of it and of it · x.

    The others are y if `rectified`, and a column to subtract from x first, if there is one.
    """
    if rectified:
        grad, others = kernels.where_positive(others[0], grad, out), others[1:]
    for shift in others:
        x = x - shift
    return grad, mean(grad), mean(grad, x)


def _input_gradient(mean: kernels.MeanOf, x: Array, *others: Array, in_place: bool, out: Array | None) -> tuple[Array]:
    """The gradient in x. The others are grad, which is `out` if `in_place`, and columns.

    These are the terms of `kernels.gradient_line`, and what to subtract from x first, if anything.
    """
    grad, slope, offset, factor, *shifts = (out, *others) if in_place else others
    for shift in shifts:
        x = xp(x).subtract(x, shift, out=None if in_place else out)
    return (kernels.input_gradient(grad, x, slope, offset, factor, out),)


def batch_standardizer() -> Callable[..., Standardize]:
    """What makes the op that normalizes over a batch: `Standardize`, unless this rank computes a part of it."""
    communicator = current_communicator()
    return Standardize if communicator.part is None else partial(StandardizeAcrossRanks, communicator)
