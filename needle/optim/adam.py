"""Adam, and AdamW with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.optimizer import Optimizer

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam with L2 weight decay.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                 (m = v = 0 at first)
        v = β2·v + (1 - β2)·g²
        θ = θ - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    t counts the steps from 1, for all parameters together. m and v have the shape and dtype of θ.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    Raises what `Optimizer` raises, and ValueError if `beta1` or `beta2` is outside of [0, 1) or `eps` is negative.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> Adam([x], lr=0.1).step()
    >>> x
    Tensor([0.9 2.1], requires_grad=True)
    """

    state_count = 2

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        name = type(self).__name__
        self.beta1 = check.number(name, "beta1", beta1, least=0, below=1)
        self.beta2 = check.number(name, "beta2", beta2, least=0, below=1)
        self.eps = check.number(name, "eps", eps, least=0)
        self.t = 0

    def step(self) -> None:
        """Count the step, and update every parameter that has a gradient; errors as in `Optimizer.step`."""
        self.t += 1
        super().step()

    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any) -> None:
        mean, variance = state
        multiply = xp(theta).multiply
        grad = self._decay(theta, grad, scratch)
        mean *= self.beta1 / (1 - self.beta1)  # (β1 / (1 - β1)·m + g)·(1 - β1), without a product (1 - β1)·g
        mean += grad
        mean *= 1 - self.beta1
        variance *= self.beta2
        multiply(grad, grad, scratch)
        scratch *= 1 - self.beta2
        variance += scratch
        xp(theta).sqrt(variance, scratch)
        correction = math.sqrt(1 - self.beta2**self.t)  # taken out of the root, and applied to numbers only
        scratch += self.eps * correction
        xp(theta).divide(mean, scratch, scratch)
        scratch *= self.lr * correction / (1 - self.beta1**self.t)
        theta -= scratch

    def _decay(self, theta: Any, grad: Any, scratch: Any) -> Any:
        """The gradient with weight decay: written to `scratch`, or `grad` itself if there is none."""
        if not self.weight_decay:
            return grad
        xp(theta).multiply(theta, self.weight_decay, scratch)
        return xp(theta).add(scratch, grad, scratch)


class AdamW(Adam):
    """Adam with decoupled weight decay: θ = θ - lr·weight_decay·θ, then Adam's step with g = grad.

    Shapes, dtypes and errors as in `Adam`.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, beta1, beta2, eps, weight_decay)

    def _decay(self, theta: Any, grad: Any, scratch: Any) -> Any:
        theta *= 1 - self.lr * self.weight_decay
        return grad
