"""Adam, and AdamW with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.optimizer import Optimizer, finite

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam with L2 weight decay.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                 (m = v = 0 at first)
        v = β2·v + (1 - β2)·g²
        θ = θ - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    t counts the steps of a parameter from 1: those in which it had a gradient. m and v have the shape and dtype of θ.
    torch's word `betas=(beta1, beta2)` sets both.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    Raises what `Optimizer` raises, and ValueError if `beta1` or `beta2` is outside of [0, 1), if `eps` is negative or
    not finite, or if `betas` comes with one of them. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> Adam([x], lr=0.1).step()
    >>> x
    Tensor([0.9 2.1], requires_grad=True)
    """

    state_count = 2
    options: ClassVar[dict[str, Callable[..., Any]]] = Optimizer.options | {
        "beta1": partial(finite, below=1),
        "beta2": partial(finite, below=1),
        "eps": finite,
    }
    beta1: float
    beta2: float
    eps: float

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        betas: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        if betas is not None:
            if (beta1, beta2) != (0.9, 0.999):
                raise ValueError(f"{type(self).__name__}: betas must not come with beta1 or beta2, but got {betas}")
            self.betas = betas

    @property
    def betas(self) -> tuple[float, float]:
        """`beta1` and `beta2`."""
        return self.beta1, self.beta2

    @betas.setter
    def betas(self, betas: tuple[float, float]) -> None:
        name = type(self).__name__
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"{name}: betas must be a pair of numbers, but got {betas!r}")
        checked = [self.options[f"beta{i}"](name, f"beta{i}", beta) for i, beta in enumerate(betas, 1)]
        self.beta1, self.beta2 = checked  # both are right before one is set

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
        correction = math.sqrt(1 - self.beta2**self._steps)  # taken out of the root, and applied to numbers only
        scratch += self.eps * correction
        xp(theta).divide(mean, scratch, scratch)
        scratch *= self.lr * correction / (1 - self.beta1**self._steps)
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
        *,
        betas: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(params, lr, beta1, beta2, eps, weight_decay, betas=betas)

    def _decay(self, theta: Any, grad: Any, scratch: Any) -> Any:
        theta *= 1 - self.lr * self.weight_decay
        return grad
