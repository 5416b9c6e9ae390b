"""The gradients of a batch of which each rank computes a part: summed over the ranks while backward still runs.

The sum is cheap where it hides behind the rest of backward. So each gradient is copied, once it is complete, into a
flat array that it shares with others, a bucket; a bucket that is full is on its way while earlier layers compute. The
idea and the order of the buckets, that of backward, are those of Li et al., "PyTorch Distributed: Experiences on
Accelerating Data Parallel Training" (2020), section 3.2.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import ref
from zlib import crc32

from needle import check
from needle.autograd import Tensor
from needle.backend import Recorder, depend, recording, refuse, to_host, within, xp
from needle.backend.communicator import Array, CallsDiffer, Communicator, current_communicator, require_alike
from needle.backend.narrow import WIRES
from needle.distributed.buckets import Sums
from needle.distributed.launchers import warn_of_others
from needle.grad_mode import no_grad

__all__ = ["SharedGradients"]


class SharedGradients:
    """Backward for a batch that several ranks compute together: `.grad` is the gradient of the whole batch's loss.

    `backward(loss)` takes the place of `loss.backward(create_graph=False)`, in a loop over `worker_batches(loader)`,
    which divides the batches. Where there is one rank, or each computes the whole batch (`current_communicator().part`
    is None), it does exactly that, and warns if no batch was ever divided. Otherwise the losses, each the mean
    over a rank's items, count by their numbers of items, and `.grad` of the parameters has the same bits on every rank.
    It is set if a gradient came to the parameter on any rank. Hooks of the parameters see the gradient of the whole
    batch; other leaves get that of their rank's items.

    With `compression`, "float16" or "bfloat16", the gradients of parameters of more than 16 bits travel in 16: each
    rank's term is rounded, and so is the sum. bfloat16 keeps eight binary digits and the range of float32. float16
    keeps eleven, but what is below 3e-8 becomes 0, and from 65520 on it is infinite. Losses are not rounded.

    All ranks must pass their parameters in the same order and with the same values, and divide the same batch, which
    the first `backward` of a batch that is divided compares. `parameters` may be assigned anew. In a network with batch
    norm, which exchanges in between, a parameter that had a gradient on all ranks must have it on all of them again.

    Raises TypeError if a parameter is no tensor, ValueError for another `compression`.

    >>> import needle as ndl
    >>> model = ndl.nn.Linear(2, 1)
    >>> gradients = SharedGradients(model.parameters())
    >>> loss = gradients.backward((model(ndl.ones(4, 2)) ** 2).mean())
    >>> loss.shape, model.weight.grad.shape
    ((), (2, 1))
    """

    def __init__(self, parameters: Iterable[Tensor], compression: str | None = None) -> None:
        self.parameters = [check.instance("SharedGradients", "each parameter", x, Tensor) for x in parameters]
        if compression is not None:
            check.one_of("SharedGradients", "compression", compression, WIRES)
        self.compression = compression
        self._irregular: frozenset[Tensor] = frozenset()  # those that had no gradient on some rank the last time
        self._waiting: dict[Tensor, Tensor | None] = {}  # parameter -> this rank's term of what is not exchanged
        self._filled_by: Recorder | None = None  # the recorder under way when the last of it came
        self._noted: Any = bool  # the recorder that has noted what it depends on
        self._has_begun = False  # whether a batch was computed that is not divided
        self._are_alike = False  # whether the parameters have been compared between the ranks

    def backward(self, loss: Tensor, weight: float = 1.0, *, accumulate: bool = False, exchange: bool = True) -> Tensor:
        """Set the gradients to those of `weight` times the mean loss of the batch, which is returned: () -> ().

        `loss` is the mean over this rank's items. With `accumulate` gradients are added to. They are constants.

        With `exchange=False` only the loss is exchanged: the gradients wait until the next call that exchanges, with
        `accumulate=True`, and go there in one sum. Without `accumulate`, `.grad` is None until then. If a parameter has
        hooks, which see the gradient of each batch, the call exchanges nevertheless; it must have them on all ranks.

        Raises ValueError if `loss` has other than one element or the ranks' parameters differ, RuntimeError if
        gradients are missing on some ranks only where batch norm exchanges in between, and what `Tensor.backward`
        raises.
        """
        check.instance("SharedGradients", "loss", loss, Tensor)
        self._depend()
        if loss.size != 1:
            raise ValueError(f"SharedGradients: loss must be a mean of one element, but got shape {loss.shape}")
        communicator = current_communicator()
        part = communicator.part
        share = 1.0 if part is None else part.share
        weight *= share
        scale = None if weight == 1 else Tensor.make_const(xp(loss.array).full(loss.shape, weight, loss.dtype))
        if not accumulate:
            self._waiting = {}
        if part is None:
            if not self._has_begun:
                warn_of_others("SharedGradients")
                if communicator.rank == 0 and communicator.size > 1 and not communicator.divides:
                    warnings.warn(
                        f"SharedGradients: each of {communicator.size} ranks computes whole batches, so no gradients "
                        "are exchanged: read the batches by `worker_batches(loader)`; where each rank has items of its "
                        "own, of a loader of `Shard(dataset)`",
                        RuntimeWarning,
                        stacklevel=2,
                    )
                self._has_begun = True
            loss.backward(scale, create_graph=False, accumulate=accumulate)
            if exchange:
                self.exchange()
            return loss.detach()
        if not self._are_alike:
            self._compare(communicator)
        parameters, term = self._summed(), Tensor.make_const(loss.array * share)
        earlier = [parameter.grad if accumulate else None for parameter in parameters]
        if not exchange and not any(getattr(parameter, "hooks", None) for parameter in parameters):
            sums = Sums(communicator, [term])
            sums.add(term, term.array)
            self._keep(loss, scale, accumulate, parameters, earlier)
            return Tensor.make_const(sums.finish()[0][term])
        sums = Sums(communicator, [term], reversed(parameters), self._irregular, self.compression)
        sums.add(term, term.array)
        waiting, self._waiting = self._terms(), {}
        within(_explained, partial(sums.collect, loss, scale, parameters, waiting))
        totals, self._irregular = sums.finish()
        with no_grad():
            for parameter, before in zip(parameters, earlier, strict=True):
                if parameter in totals:
                    grad = parameter.finish_grad(Tensor.make_const(totals[parameter]))
                    parameter.grad = grad if before is None else before + grad
        return Tensor.make_const(totals[term])

    def exchange(self) -> None:
        """Add to `.grad` the gradients that `backward(…, exchange=False)` has left waiting, summed over the ranks."""
        self._depend()
        if not self._waiting:
            return
        sums = Sums(current_communicator(), [], reversed(self._summed()), self._irregular, self.compression)
        for parameter, term in self._terms().items():
            sums.add(parameter, term)
        totals, self._irregular = sums.finish()
        self._waiting = {}
        for parameter, array in totals.items():
            total = Tensor.make_const(array)
            parameter.grad = total if parameter.grad is None else parameter.grad.detach() + total

    @property
    def waiting(self) -> list[Tensor | None] | None:
        """This rank's terms of what waits to be exchanged, by parameter, None for those without; None if nothing waits.

        It may be assigned: None, or a list, on all ranks alike.
        """
        return [self._waiting.get(parameter) for parameter in self.parameters] if self._waiting else None

    @waiting.setter
    def waiting(self, terms: Sequence[Tensor | None] | None) -> None:
        given = {} if terms is None else dict(zip(self.parameters, terms, strict=True))
        self._waiting = {x: term for x, term in given.items() if x.requires_grad or term is not None}

    def _compare(self, communicator: Communicator) -> None:
        """Raise ValueError, on all ranks, if their parameters differ: nothing would make those equal again."""
        values = {
            f"values of parameter {i} {x.shape} (a checksum)": crc32(to_host(x.array).tobytes())
            for i, x in enumerate(self.parameters)
        }
        values |= {f"requires_grad of parameter {i}": x.requires_grad for i, x in enumerate(self.parameters)}
        items = communicator.part.total if communicator.part else None
        require_alike("SharedGradients", communicator, {"number of items in the batch": items, **values})
        self._are_alike = communicator.shares_gradients = True

    def _depend(self) -> None:
        """Let a recording under way depend on what decides which sums there are."""
        if recording() is None:
            return
        if self._waiting and self._filled_by is not recording():
            refuse("SharedGradients", "gradients that wait since an earlier call")
        if self._noted() is recording():
            return  # what decides this exchange follows from the state before the step's first one
        self._noted = ref(recording())
        state = self._state()
        depend(lambda: self._state() == state and not (self._waiting and recording() is None))

    def _state(self) -> Any:
        return self.compression, self._irregular, [id(parameter) for parameter in self._summed()]

    def _summed(self) -> list[Tensor]:
        """The parameters whose gradients the ranks add up."""
        return [x for x in dict.fromkeys(self.parameters) if x.requires_grad or x in self._waiting]

    def _terms(self) -> dict[Tensor, Array]:
        """What waits on this rank."""
        return {parameter: term.array for parameter, term in self._waiting.items() if term is not None}

    def _keep(
        self, loss: Tensor, scale: Tensor | None, accumulate: bool, parameters: list[Tensor], grads: list[Any]
    ) -> None:
        """Backward into what waits; `.grad` of the parameters becomes one of `grads`."""
        try:
            for parameter in parameters:
                parameter.grad = self._waiting.get(parameter)
            loss.backward(scale, create_graph=False, accumulate=accumulate)
            self._waiting = {parameter: parameter.grad for parameter in parameters}
            self._filled_by = recording()
        finally:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad


@contextmanager
def _explained() -> Iterator[None]:
    """Backward, in which batch norm exchanges, too."""
    try:
        yield
    except CallsDiffer as error:
        if not error.are_sums:  # a rank has returned, or is elsewhere in its program
            raise
        raise RuntimeError(
            "SharedGradients: in a network with batch norm a parameter must get a gradient on all ranks or on "
            f"none, but on some ranks one is missing: {error}"
        ) from error
