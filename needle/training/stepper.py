"""From the losses of batches to steps of an optimizer: accumulation of gradients, and clipping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import device_of, to_host
from needle.backend.communicator import current_communicator
from needle.distributed.gradients import SharedGradients
from needle.optim import Optimizer
from needle.training.exchanges import gather_for_rank_0, whole_count

__all__ = ["Stepper"]


class Stepper:
    """Backward and step: `stepper(loss, size)` for each batch, `flush()` after the last one.

    The optimizer steps once per `accumulate` batches, with the gradient of the mean loss over all of their items, as
    one large batch would give it. (Layers that look at a whole batch, such as BatchNorm, still see the small ones.)
    `flush` steps with what an incomplete group has. Losses are means over `size` items.

    `backward` and `step` are the two halves of a call: between them the loss can be looked at.

    Before a step gradients are cut to [-clip_value, clip_value], then scaled so that their common norm is at most
    `clip_norm`.

    Ranks that compute each batch together exchange gradients once for a group, in 16 bits if `compression` says so (see
    `SharedGradients`). Until then they wait outside of `.grad`.

    Raises TypeError or ValueError if `accumulate` is not an integer of at least 1, a limit not a number above 0, or
    `compression` neither "float16" nor "bfloat16".
    """

    def __init__(
        self,
        optimizer: Optimizer,
        accumulate: int = 1,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        compression: str | None = None,
    ) -> None:
        self.optimizer = check.instance("Stepper", "optimizer", optimizer, Optimizer)
        self.accumulate = check.integer("Stepper", "accumulate", accumulate, least=1)
        self.clip_norm = clip_norm if clip_norm is None else check.number("Stepper", "clip_norm", clip_norm, above=0)
        self.clip_value = (
            clip_value if clip_value is None else check.number("Stepper", "clip_value", clip_value, above=0)
        )
        self.gradients = SharedGradients(optimizer.params, compression)
        self.terms: list[list[Any]] = []  # rank -> the gradients that wait there, if this rank has been told
        self.batches = 0  # in the current group
        self.first = self.weight = 0.0  # items of its first batch, and of all of them as a multiple of that

    def __call__(self, loss: Tensor, size: int = 1) -> bool:
        """`backward`, then `step`; returns whether the optimizer stepped."""
        self.backward(loss, size)
        return self.step()

    def backward(self, loss: Tensor, size: int = 1) -> Tensor:
        """Add the gradient of a batch's mean loss () over `size` items; returns the loss as a constant.

        Of several ranks each passes the loss of its own items, and gets that of the whole batch.
        """
        size = whole_count(check.integer("Stepper", "size", size, least=1))
        if not self.batches:
            self.optimizer.reset_grad()
            self.gradients.parameters, self.gradients.waiting = self.optimizer.params, None
            self.first, self.weight = float(size), 0.0
        self._take_terms()
        weight = size / self.first  # 1 for batches of one size, so that nothing is scaled
        is_last = self.batches + 1 == self.accumulate
        whole = self.gradients.backward(loss, weight, accumulate=True, exchange=is_last)
        self.batches += 1
        self.weight += weight
        return whole

    def step(self) -> bool:
        """Step if the group is complete; returns whether the optimizer stepped."""
        return self.batches == self.accumulate and self.flush()

    def flush(self) -> bool:
        """Step with the gradients gathered so far; returns whether there were any."""
        if not self.batches:
            return False
        self._take_terms()
        self.gradients.exchange()
        if self.weight != 1:
            for parameter in self.optimizer.params:
                if parameter.grad is not None:
                    parameter.grad = parameter.grad / self.weight  # constants: no graph
        if self.clip_value is not None:
            self.optimizer.clip_grad_value(self.clip_value)
        if self.clip_norm is not None:
            self.optimizer.clip_grad_norm(self.clip_norm)
        self.optimizer.step()
        self.batches = 0
        return True

    def gather(self) -> None:
        """Tell rank 0 which gradients wait on the others, so that `state_dict` has them. All ranks must call it."""
        if self.gradients.waiting is not None:
            self.terms = gather_for_rank_0(self.gradients.parameters, self.gradients.waiting)

    def _take_terms(self) -> None:
        """Go on with this rank's own of the gradients that wait; on rank 0 with all, if there were other ranks."""
        if not self.terms:
            return
        communicator, terms = current_communicator(), self.terms
        if len(terms) == communicator.size:
            own = terms[communicator.rank]
        else:
            own = [_total(of_ranks) if communicator.rank == 0 else None for of_ranks in zip(*terms, strict=True)]
        self.gradients.waiting = [
            None if term is None else Tensor.make_const(parameter.device.array(term, parameter.dtype))
            for parameter, term in zip(self.optimizer.params, own, strict=True)
        ]
        self.terms = []

    def state_dict(self) -> dict[str, Any]:
        """The gradients of an incomplete group, with their memory order, and the sizes of its batches.

        Raises RuntimeError if gradients wait on other ranks.
        """
        if self.gradients.waiting is not None and not self.terms:
            raise RuntimeError(
                "Stepper: the state of several ranks must be taken after a group of batches, or where Checkpoints "
                f"writes it, but got it after {self.batches} of {self.accumulate} batches"
            )
        grads = [_saved(parameter.grad) if self.batches else None for parameter in self.optimizer.params]
        state = {"batches": self.batches, "first": self.first, "weight": self.weight, "grads": grads}
        return state | {"terms": self.terms} if self.terms else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises ValueError if its gradients do not fit the parameters."""
        op, params = "Stepper", self.optimizer.params
        keys = ("batches", "first", "weight", "grads")
        check.entries(op, "state", state, (*keys, "terms") if "terms" in state else keys)
        batches = check.integer(op, "batches", state["batches"], least=0)
        first, weight = (check.number(op, name, state[name], least=0) for name in ("first", "weight"))
        terms = [[*of_rank] for of_rank in state.get("terms", [])]
        for each in (state["grads"], *terms):
            check.same(op, "number", len(params), len(each), ("parameters", "gradients of the state"))
        grads = [_restored(parameter, saved) for parameter, saved in zip(params, state["grads"], strict=True)]
        for parameter, term in ((x, term) for of_rank in terms for x, term in zip(params, of_rank, strict=True)):
            if term is not None:
                check.same(op, "shape", parameter.shape, term.shape, ("a parameter", "its gradient"))
        self.batches, self.first, self.weight, self.terms = batches, first, weight, terms
        self.gradients.waiting = None
        if batches:  # otherwise the next group begins without gradients
            for parameter, grad in zip(params, grads, strict=True):
                parameter.grad = grad


def _total(terms: Iterable[Any]) -> Any:
    """The sum of those arrays that are there; None if there are none."""
    there = [term for term in terms if term is not None]
    return sum(there[1:], there[0]) if there else None


def _saved(grad: Tensor | None) -> dict[str, Any] | None:
    """A gradient's values in the order of its memory, and the axes in that order.

    The norm of the gradients sums in that order, so a gradient must come back with it.
    """
    if grad is None:
        return None
    strides = grad.array.strides
    axes = sorted(range(grad.ndim), key=lambda axis: -strides[axis])
    values = to_host(grad.array).transpose(axes)
    return {"values": values.copy(order="C"), "axes": axes}


def _restored(parameter: Tensor, saved: Any) -> Tensor | None:
    if saved is None:
        return None
    check.entries("Stepper", "each gradient", saved, ("values", "axes"))
    axes = [check.axis("Stepper", axis, parameter.ndim) for axis in saved["axes"]]
    shape = tuple(parameter.shape[axis] for axis in axes)
    check.same("Stepper", "shape", shape, saved["values"].shape, ("a parameter", "its gradient"))
    array = device_of(parameter.array).array(saved["values"], parameter.dtype)
    return Tensor.make_const(array.transpose([axes.index(axis) for axis in range(len(axes))]))
