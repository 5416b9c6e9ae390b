"""What ops need of the whole batch where each of several ranks computes a part of it: sums and means over the ranks.

A rank's loss is the mean over its items, and the loss of the batch the mean over all items: the sum of the ranks'
losses, each times the share of its items. The gradients that flow here are those of that sum.
"""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorOp
from needle.backend import cpu, xp
from needle.backend.communicator import Communicator, current_communicator
from needle.ops.arithmetic import MulScalar
from needle.ops.base import Array

__all__ = ["AllReduce", "batch_mean", "batch_means", "is_any"]


class AllReduce(TensorOp):
    """The sum over the ranks of a tensor (*S) that each of them has -> (*S), the same on all.

    Its gradient is an AllReduce too: what a rank adds to the sum goes into the losses of all ranks.
    """

    saved_inputs = ()

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator

    def compute(self, x: Array) -> Array:
        total = xp(x).array(x)
        self.communicator.all_reduce(total)
        return total

    def infer(self, x: Any) -> Any:
        return x

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return AllReduce(self.communicator)(out_grad)


def batch_mean(mean: Tensor) -> Tensor:
    """The mean over a batch, from that over the items of this rank; the same if there is no other part."""
    communicator = current_communicator()
    part = communicator.part
    if part is None:
        return mean
    return AllReduce(communicator)(MulScalar(part.share)(mean))


def batch_means(*means: Array) -> list[Array]:
    """`batch_mean` of several raw arrays of one dtype, in one exchange."""
    communicator = current_communicator()
    part = communicator.part
    if part is None:
        return [*means]
    flat = xp(means[0]).concatenate([mean.reshape(-1) for mean in means])
    flat *= part.share
    communicator.all_reduce(flat)
    results = []
    for mean in means:
        results.append(flat[: mean.size].reshape(mean.shape))
        flat = flat[mean.size :]
    return results


def is_any(flag: bool) -> bool:
    """Whether the flag of this rank, or of another one that computes a part of the batch, is True."""
    communicator = current_communicator()
    if communicator.part is None:
        return flag
    flags = cpu().xp.array(flag)
    communicator.all_reduce(flags)
    return bool(flags)
