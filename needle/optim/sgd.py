"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from needle import check
from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.optimizer import Optimizer, finite

__all__ = ["SGD"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

        g = grad + weight_decay·θ
        u = momentum·u + (1 - dampening)·g    (u = 0 at first)
        θ = θ - lr·u                          (nesterov: θ - lr·(g + momentum·u))

    `dampening=None` follows `momentum`, so that u is a running mean of gradients, and is 0 with `nesterov`;
    `dampening=0` is torch's default rule. u has the shape and dtype of θ.

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

    state_count = 1
    options: ClassVar[dict[str, Callable[..., Any]]] = Optimizer.options | {
        "momentum": finite,
        "dampening": lambda op, name, value: None if value is None else finite(op, name, value),
        "nesterov": lambda op, name, value: check.instance(op, name, value, bool),
    }
    momentum: float
    dampening: float | None
    nesterov: bool

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        dampening: float | None = None,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov

    def _check_together(self, options: dict[str, Any]) -> None:
        momentum, dampening = options.get("momentum"), options.get("dampening") or 0.0
        if options.get("nesterov") and (momentum == 0 or dampening != 0):
            raise ValueError(f"SGD: nesterov needs momentum > 0 and dampening=0, but got {momentum} and {dampening}")

    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any) -> None:
        (velocity,) = state
        dampening = self.dampening
        if dampening is None:
            dampening = 0.0 if self.nesterov else self.momentum
        multiply, add = xp(theta).multiply, xp(theta).add
        if self.weight_decay:
            multiply(theta, self.weight_decay, scratch)
            grad = add(scratch, grad, scratch)
        if self.momentum:
            velocity *= self.momentum
            velocity += multiply(grad, 1 - dampening, scratch) if dampening else grad
        else:
            multiply(grad, 1 - dampening, velocity)
        if self.nesterov:
            theta -= multiply(grad, self.lr, scratch)
            theta -= multiply(velocity, self.lr * self.momentum, scratch)
        else:
            theta -= multiply(velocity, self.lr, scratch)
