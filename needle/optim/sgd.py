"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.flat import Numbers
from needle.optim.groups import Group, Option, finite, flag
from needle.optim.optimizer import Optimizer, by_kernel, decayed

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = grad + weight_decay·θ
        u = momentum·u + (1 - dampening)·g    (u = 0 at first)
        θ = θ - lr·u                          (nesterov: θ - lr·(g + momentum·u))

    `dampening=None` follows `momentum`, so that u is a running mean of gradients, and is 0 with `nesterov`;
    `dampening=0` is torch's default rule. u has the shape and dtype of θ, and stays as it is while `momentum` is 0.
    `maximize` takes -grad for grad.

    Source: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning"
    (2013), with the learning rate taken out of u as in torch.

    Raises what `Optimizer` raises, and ValueError if `momentum` or `dampening` is negative or not finite, or if
    `nesterov` is set without momentum > 0 or with a dampening other than 0. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> SGD([x], lr=0.1).step()
    >>> x
    Tensor([0.95 2.1 ], requires_grad=True)
    """

    momentum = Option(finite)
    dampening = Option(lambda op, name, value: None if value is None else finite(op, name, value))
    nesterov = Option(flag)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        dampening: float | None = None,
        nesterov: bool = False,
        maximize: bool = False,
    ) -> None:
        options = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
        super().__init__(params, lr, weight_decay, maximize, **options)

    def _check_together(self, options: Mapping[str, Any]) -> None:
        momentum, dampening = options["momentum"], options["dampening"] or 0.0
        if options["nesterov"] and (momentum == 0 or dampening != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening=0, but got {momentum} and {dampening}")

    def _new_state(self, group: Group) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def _advance(self, numbers: Numbers, group: Group) -> None:
        """Nothing: every step is alike."""

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        lr, momentum = group["lr"], group["momentum"]
        return group["weight_decay"], momentum, 1 - _dampening(group), lr, lr * momentum

    @by_kernel("sgd")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        decay, momentum, rise, lr, ahead = settings
        multiply = xp(theta).multiply
        grad = decayed(theta, grad, scratch, decay, group)
        velocity = multiply(grad, rise, scratch) if _dampening(group) else grad
        if state:
            (buffer,) = state
            buffer *= momentum
            buffer += velocity
            velocity = buffer
        if group["nesterov"]:
            theta -= multiply(grad, lr, scratch)
            theta -= multiply(velocity, ahead, scratch)
        else:
            theta -= multiply(velocity, lr, scratch)


def _dampening(group: Group) -> float:
    """The dampening of a group, where None follows the other options."""
    if group["dampening"] is None:
        return 0.0 if group["nesterov"] else float(group["momentum"])
    return float(group["dampening"])
