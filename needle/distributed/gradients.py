"""The gradients of a batch of which each rank computes a part: summed over the ranks while backward still runs.

The sum is cheap where it hides behind the rest of backward. So each gradient is copied, once it is complete, into a
flat array that it shares with others, a bucket; a bucket that is full is on its way while earlier layers compute. The
idea and the order of the buckets, that of backward, are those of Li et al., "PyTorch Distributed: Experiences on
Accelerating Data Parallel Training" (2020), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from needle import check, tuning
from needle.autograd import Tensor
from needle.backend import to_host, xp
from needle.backend.communicator import Communicator, Request, current_communicator
from needle.distributed.shared_memory import CallsDiffer
from needle.grad_mode import no_grad
from needle.graph import Value

__all__ = ["SharedGradients"]

Array = Any


class SharedGradients:
    """Backward for a batch that several ranks compute together: `.grad` is the gradient of the whole batch's loss.

    `backward(loss)` takes the place of `loss.backward(create_graph=False)`. Where there is one rank, or each computes
    the whole batch (`current_communicator().part` is None), it does exactly that. Otherwise the losses, each the mean
    over a rank's items, count by their numbers of items, and `.grad` of the parameters has the same bits on every rank.
    It is set if a gradient came to the parameter on any rank. Hooks of the parameters see the gradient of the whole
    batch; other leaves get that of their rank's items.

    All ranks must pass their parameters in the same order. `parameters` may be assigned anew. In a network with batch
    norm, which exchanges in between, a parameter that had a gradient on all ranks must have it on all of them again.

    >>> import needle as ndl
    >>> model = ndl.nn.Linear(2, 1)
    >>> gradients = SharedGradients(model.parameters())
    >>> loss = gradients.backward((model(ndl.ones(4, 2)) ** 2).mean())
    >>> loss.shape, model.weight.grad.shape
    ((), (2, 1))
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self.parameters = [check.instance("SharedGradients", "each parameter", x, Tensor) for x in parameters]
        self._irregular: set[Tensor] = set()  # those that had no gradient on some rank the last time

    def backward(self, loss: Tensor, weight: float = 1.0, *, accumulate: bool = False) -> Tensor:
        """Set the gradients to those of `weight` times the mean loss of the batch, which is returned: () -> ().

        `loss` is the mean over this rank's items. With `accumulate` gradients are added to. They are constants.

        Raises ValueError if `loss` has other than one element, RuntimeError if gradients are missing on some ranks only
        where batch norm exchanges in between, and what `Tensor.backward` raises.
        """
        check.instance("SharedGradients", "loss", loss, Tensor)
        if loss.size != 1:
            raise ValueError(f"SharedGradients: loss must be a mean of one element, but got shape {loss.shape}")
        communicator = current_communicator()
        part = communicator.part
        share = 1.0 if part is None else part.share
        weight *= share
        scale = None if weight == 1 else Tensor.make_const(xp(loss.array).full(loss.shape, weight, loss.dtype))
        if part is None:
            loss.backward(scale, create_graph=False, accumulate=accumulate)
            return loss.detach()
        parameters = [parameter for parameter in dict.fromkeys(self.parameters) if parameter.requires_grad]
        earlier = [parameter.grad if accumulate else None for parameter in parameters]
        sums = _Sums(communicator, [loss, *reversed(parameters)], self._irregular)
        sums.add(loss, loss.array * share)
        with sums.collecting(parameters) as hooks:
            try:
                loss.backward(scale, create_graph=False)
            except CallsDiffer as error:
                raise RuntimeError(
                    "SharedGradients: in a network with batch norm a parameter must get a gradient on all ranks or on "
                    f"none, but on some ranks one is missing: {error}"
                ) from error
        totals, self._irregular = sums.finish()
        with no_grad():
            for parameter, before in zip(parameters, earlier, strict=True):
                if parameter in totals:
                    grad = Tensor.make_const(totals[parameter])
                    if parameter in hooks:
                        grad = hooks[parameter](parameter, grad)
                    parameter.grad = grad if before is None else before + grad
        return Tensor.make_const(totals[loss])


class _Sums:
    """The sums over the ranks of arrays in the shapes, dtypes and on the devices of `values`, in buckets.

    Of what is `irregular`, nobody knows whether it comes on all ranks: it has buckets of its own, the last ones.
    """

    def __init__(self, communicator: Communicator, values: Iterable[Tensor], irregular: set[Tensor]) -> None:
        self.communicator = communicator
        self.buckets: list[_Bucket] = []
        self.bucket_of: dict[Tensor, _Bucket] = {}
        self.sent = 0  # buckets
        fillable: dict[Any, _Bucket] = {}
        for value in sorted(values, key=irregular.__contains__) if irregular else values:
            kind = (value.device, value.dtype, value in irregular)
            bucket = fillable.get(kind)
            if bucket is None or bucket.size * value.dtype.itemsize >= tuning.GRADIENT_BUCKET_BYTES:
                bucket = fillable[kind] = _Bucket(is_regular=value not in irregular)
                self.buckets.append(bucket)
            bucket.append(value)
            self.bucket_of[value] = bucket

    def add(self, value: Tensor, array: Array) -> None:
        """Copy this rank's term into its bucket; send those that are full, in their order."""
        self.bucket_of[value].put(value, array)
        while self.sent < len(self.buckets) and self.buckets[self.sent].is_full:
            self._send_next()

    def _send_next(self) -> None:
        self.buckets[self.sent].send(self.communicator)
        self.sent += 1

    @contextmanager
    def collecting(self, parameters: Iterable[Tensor]) -> Iterator[dict[Tensor, Any]]:
        """Add the gradient of each parameter as soon as backward has completed it, instead of calling its hooks.

        Until the block ends, the hooks are in the dict that it gets.
        """
        hooks = {parameter: parameter.hooks for parameter in parameters if hasattr(parameter, "hooks")}
        added: list[Tensor] = []

        def collect(parameter: Tensor, grad: Tensor) -> Tensor:
            self.add(parameter, grad.array)
            for other in added:  # frees what has been copied
                other.grad = None
            added[:] = [parameter]
            return grad

        def restore() -> None:
            for parameter in parameters:
                if parameter in hooks:
                    parameter.hooks = hooks[parameter]
                elif hasattr(parameter, "hooks"):
                    del parameter.hooks

        try:
            try:
                for parameter in parameters:
                    parameter.hooks = collect
                Value.hooks_exist = True
                yield hooks
            finally:
                restore()
        finally:  # once more: an interrupt may come before the line above, or in it
            restore()

    def finish(self) -> tuple[dict[Tensor, Array], set[Tensor]]:
        """The sums of what came on any rank, and what did not come on all."""
        while self.sent < len(self.buckets):
            self._send_next()
        totals: dict[Tensor, Array] = {}
        irregular = set()
        for bucket in self.buckets:
            for value, count, total in bucket.wait():
                if count:
                    totals[value] = total
                if count < self.communicator.size:
                    irregular.add(value)
        return totals, irregular


class _Bucket:
    """Terms of one dtype on one device, one after the other in a flat array, then for each a 1 if it has come, or 0."""

    def __init__(self, is_regular: bool) -> None:
        self.is_regular = is_regular
        self.starts: dict[Tensor, int] = {}
        self.size = 0  # of all terms
        self.views: dict[Tensor, Array] = {}  # the places of terms that have been put
        self.flat: Array = None
        self.request: Request

    def append(self, value: Tensor) -> None:
        """Make room for a term like `value`."""
        self.starts[value] = self.size
        self.size += value.size

    @property
    def is_full(self) -> bool:
        return self.is_regular and len(self.views) == len(self.starts)

    def put(self, value: Tensor, term: Array) -> None:
        """Copy a term to its place."""
        if self.flat is None:
            with value.device.current():
                self.flat = value.device.xp.empty(self.size + len(self.starts), value.dtype)
            self.flat[self.size :] = 1
        start = self.starts[value]
        view = self.views[value] = self.flat[start : start + value.size].reshape(value.shape)
        view[...] = term

    def send(self, communicator: Communicator) -> None:
        """Begin to sum the terms of all ranks."""
        for i, value in enumerate(self.starts):
            if value not in self.views:
                self.put(value, 0)
                self.flat[self.size + i] = 0
        self.request = communicator.start_all_reduce(self.flat)

    def wait(self) -> Iterator[tuple[Tensor, int, Array]]:
        """Each value, the number of ranks on which its term has come, and the sum."""
        self.request.wait()
        counts = to_host(self.flat[self.size :]).tolist()
        for value, count in zip(self.starts, counts, strict=True):
            yield value, round(count), self.views[value]
