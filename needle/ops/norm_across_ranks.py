"""Normalization by the statistics of a whole batch of which each of several ranks has a part."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from needle import kernels
from needle.autograd import Tensor
from needle.backend.communicator import Communicator, current_communicator
from needle.graph import Spec
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
    gradients need once more.
    """

    def __init__(self, communicator: Communicator, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.communicator = communicator

    def normalize(
        self, x: Array, weight: Array | None, bias: Array | None, running: kernels.Running | None
    ) -> tuple[Array, ...]:
        # A row of a matrix, whose length all ranks must agree on.
        rows = [row[0] for row in self.communicator.all_gather(kernels.part_moments(x, self.axes)[None])]
        return kernels.standardize_part(x, weight, bias, rows, self.axes, self.eps, self.rectified, running)

    def infer(self, x: Any, *affine: Any) -> tuple[Spec, ...]:
        y, average, variance = super().infer(x, *affine)
        return y, average, variance, Spec((1,) * len(x.shape), average.dtype)

    def mean_of(self, node: Any) -> Callable[[Tensor], Tensor]:
        total, count = Summation(self.axes, keepdims=True), pick(node, 3).detach()
        return lambda x: DIVIDE(AllReduce(self.communicator)(total(x)), as_dtype(count, x.dtype))

    def gradients(
        self, grad: Array, x: Array, masks: Array | None, weight: Array | None, bias: Array | None, average: Array,
        variance: Array, *counts: Array, is_x_needed: bool,
    ) -> tuple[Array | None, ...]:  # fmt: skip
        grad, sums, *grads = kernels.part_gradient_sums(
            grad, x, masks, weight, bias, average, variance, self.axes, self.eps
        )
        x_grad = None
        if is_x_needed:
            self.communicator.all_reduce(sums)
            x_grad = kernels.part_gradient(
                grad, x, weight, average, variance, sums, counts[0], self.axes, self.eps, in_place=masks is not None
            )
        return x_grad, *grads


def batch_standardizer() -> Callable[..., Standardize]:
    """What makes the op that normalizes over a batch: `Standardize`, unless this rank computes a part of it."""
    communicator = current_communicator()
    return Standardize if communicator.part is None else partial(StandardizeAcrossRanks, communicator)
