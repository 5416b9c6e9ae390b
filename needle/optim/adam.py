"""Adam, and AdamW with decoupled weight decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import refuse, xp
from needle.optim.flat import Numbers
from needle.optim.groups import Group, Option, finite, flag, two_betas
from needle.optim.optimizer import Optimizer, by_kernel, decayed, decays

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam with L2 weight decay.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                 (m = v = 0 at first)
        v = β2·v + (1 - β2)·g²
        θ = θ - lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps)

    t counts the steps of a parameter from 1: those in which it had a gradient. m and v have the shape and dtype of θ.
    torch's word `betas=(beta1, beta2)` sets both. `amsgrad` divides by the root of the largest v so far, `maximize`
    takes -grad for grad, and `decoupled_weight_decay` decays as `AdamW` does.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    Raises what `Optimizer` raises, and ValueError if `beta1` or `beta2` is outside of [0, 1), if `eps` is negative or
    not finite, or if `betas` comes with one of them. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> Adam([x], lr=0.1).step()
    >>> x
    Tensor([0.9 2.1], requires_grad=True)
    """

    betas = Option(two_betas)
    eps = Option(finite)
    amsgrad = Option(flag)
    decoupled_weight_decay = Option(flag)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        betas: tuple[float, float] | None = None,
        amsgrad: bool = False,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if betas is not None and (beta1, beta2) != (0.9, 0.999):
            raise ValueError(f"{type(self).__name__}: betas must not come with beta1 or beta2, but got {betas}")
        options = {"betas": (beta1, beta2) if betas is None else betas, "eps": eps, "amsgrad": amsgrad}
        options["decoupled_weight_decay"] = decoupled_weight_decay
        super().__init__(params, lr, weight_decay, maximize, **options)

    @property
    def beta1(self) -> float:
        """The first of `betas`; setting it keeps the second of each group."""
        return self.betas[0]

    @beta1.setter
    def beta1(self, beta1: float) -> None:
        self._set_beta(0, beta1)

    @property
    def beta2(self) -> float:
        """The second of `betas`; setting it keeps the first of each group."""
        return self.betas[1]

    @beta2.setter
    def beta2(self, beta2: float) -> None:
        self._set_beta(1, beta2)

    def _set_beta(self, position: int, beta: float) -> None:
        beta = check.number(type(self).__name__, f"beta{position + 1}", beta, least=0, below=1)
        refuse(type(self).__name__, f"an assignment to beta{position + 1}")
        for group in self.param_groups:
            pair = [*group["betas"]]
            pair[position] = beta
            group["betas"] = tuple(pair)

    def _new_state(self, group: Group) -> dict[str, float]:
        moments = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return moments | {"max_exp_avg_sq": 0.0} if group["amsgrad"] else moments

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        lr, (beta1, beta2), steps = group["lr"], group["betas"], numbers["step"]
        correction = math.sqrt(1 - beta2**steps)  # taken out of the root, and applied to numbers only
        eps, rate = group["eps"] * correction, lr * correction / (1 - beta1**steps)
        return (*decays(group), beta1 / (1 - beta1), 1 - beta1, beta2, 1 - beta2, eps, rate)

    @by_kernel("adam")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        mean, variance = state[:2]
        keep, decay, ratio, rise1, beta2, rise2, eps, rate = settings
        namespace = xp(theta)
        if group["weight_decay"] and group["decoupled_weight_decay"]:
            theta *= keep
        grad = decayed(theta, grad, scratch, decay, group)
        mean *= ratio  # (β1 / (1 - β1)·m + g)·(1 - β1), without a product (1 - β1)·g
        mean += grad
        mean *= rise1
        variance *= beta2
        namespace.multiply(grad, grad, scratch)
        scratch *= rise2
        variance += scratch
        if group["amsgrad"]:
            variance = namespace.maximum(state[2], variance, out=state[2])
        namespace.sqrt(variance, scratch)
        scratch += eps
        namespace.divide(mean, scratch, scratch)
        scratch *= rate
        theta -= scratch


class AdamW(Adam):
    """Adam with decoupled weight decay: θ = θ - lr·weight_decay·θ, then Adam's step with g = grad.

    Shapes, dtypes and errors as in `Adam`.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        betas: tuple[float, float] | None = None,
        amsgrad: bool = False,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            betas=betas,
            amsgrad=amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )
