"""Variants of Adam: NAdam, RAdam and Adamax."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.flat import Numbers
from needle.optim.groups import Group, Option, finite, flag, two_betas
from needle.optim.optimizer import Optimizer, by_kernel, decayed, decays

__all__ = ["Adamax", "NAdam", "RAdam"]


class MomentOptimizer(Optimizer):
    """Running means of gradients and of their squares, as in Adam.

    g = grad + weight_decay·θ                   (decoupled: g = grad, and θ = θ - lr·weight_decay·θ before)
    m = β1·m + (1 - β1)·g                       (m = v = 0 at first)
    v = β2·v + (1 - β2)·g²
    """

    betas = Option(two_betas)
    eps = Option(finite)
    decoupled_weight_decay = Option(flag)

    def _new_state(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _settings_of_moments(self, group: Group) -> tuple[float, ...]:
        """The first six settings."""
        beta1, beta2 = group["betas"]
        return (*decays(group), beta1, 1 - beta1, beta2, 1 - beta2)

    def _moments(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> Any:
        """Decay `theta`, bring the means up to this step, and return g."""
        mean, variance = state
        keep, decay, beta1, rise1, beta2, rise2 = settings
        if group["weight_decay"] and group["decoupled_weight_decay"]:
            theta *= keep
        grad = decayed(theta, grad, scratch, decay, group)
        mean *= beta1
        mean += rise1 * grad
        variance *= beta2
        variance += rise2 * grad * grad
        return grad


class NAdam(MomentOptimizer):
    """Adam with Nesterov's momentum, and a momentum that grows with the steps.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                       (m = v = 0 at first)
        v = β2·v + (1 - β2)·g²
        μ(t) = β1·(1 - 0.96^(t·momentum_decay) / 2),    M(t) = μ(1) · μ(2) · … · μ(t)
        n = μ(t + 1)·m / (1 - M(t + 1)) + (1 - μ(t))·g / (1 - M(t))
        θ = θ - lr · n / (sqrt(v / (1 - β2^t)) + eps)

    t counts the steps of a parameter from 1: those in which it had a gradient. With `decoupled_weight_decay`, g = grad,
    and θ = θ - lr·weight_decay·θ comes first. `maximize` takes -grad for grad. m and v have the shape and dtype of θ.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam" (2016), algorithm 2.

    Raises what `Optimizer` raises, and ValueError if one of `betas` is outside of [0, 1), or if `eps` or
    `momentum_decay` is negative or not finite. Assigned options are checked likewise.
    """

    momentum_decay = Option(finite)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, lr, weight_decay, maximize, betas=betas, eps=eps, **options)

    def _advance(self, numbers: Numbers, group: Group) -> None:
        super()._advance(numbers, group)
        numbers["mu_product"] = numbers.get("mu_product", 1.0) * momentum_at(numbers["step"], group)

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        step, product = numbers["step"], numbers["mu_product"]
        now, then = momentum_at(step, group), momentum_at(step + 1, group)
        of_mean, of_grad, bias = then / (1 - product * then), (1 - now) / (1 - product), 1 - group["betas"][1] ** step
        return (*self._settings_of_moments(group), of_mean, of_grad, bias, group["eps"], group["lr"])

    @by_kernel("nadam")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        *of_moments, of_mean, of_grad, bias, eps, lr = settings
        grad = self._moments(theta, grad, state, scratch, group, of_moments)
        mean, variance = state
        ahead = of_mean * mean + of_grad * grad
        root = xp(theta).sqrt(variance / bias)
        theta -= lr * (ahead / (root + eps))


def momentum_at(step: float, group: Group) -> float:
    """NAdam's μ(step)."""
    return float(group["betas"][0] * (1 - 0.5 * 0.96 ** (step * group["momentum_decay"])))


class RAdam(MomentOptimizer):
    """Adam with a rectified variance: plain momentum until the variance can be estimated.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                       (m = v = 0 at first)
        v = β2·v + (1 - β2)·g²
        ρ = R - 2·t·β2^t / (1 - β2^t),    R = 2 / (1 - β2) - 1
        ρ > 5:   θ = θ - lr · m / (1 - β1^t) · sqrt(1 - β2^t) / (sqrt(v) + eps) · r
                     r² = (ρ - 4)·(ρ - 2)·R / ((R - 4)·(R - 2)·ρ)
        else:    θ = θ - lr · m / (1 - β1^t)

    t counts the steps of a parameter from 1: those in which it had a gradient. With `decoupled_weight_decay`, g = grad,
    and θ = θ - lr·weight_decay·θ comes first. `maximize` takes -grad for grad. m and v have the shape and dtype of θ.

    Source: Liu, Jiang, He, Chen, Liu, Gao and Han, "On the Variance of the Adaptive Learning Rate and Beyond" (2020),
    algorithm 2.

    Raises what `Optimizer` raises, and ValueError if one of `betas` is outside of [0, 1), or if `eps` is negative or
    not finite. Assigned options are checked likewise.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"betas": betas, "eps": eps, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, lr, weight_decay, maximize, **options)

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        (beta1, beta2), step = group["betas"], numbers["step"]
        lr, bias = group["lr"] / (1 - beta1**step), 1 - beta2**step
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / bias
        is_rectified = length > 5
        if is_rectified:
            squared = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            lr *= math.sqrt(squared * bias)
        return (*self._settings_of_moments(group), lr, group["eps"], is_rectified)

    @by_kernel("radam")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        *of_moments, lr, eps, is_rectified = settings
        self._moments(theta, grad, state, scratch, group, of_moments)
        mean, variance = state
        if is_rectified is False:
            theta -= lr * mean
            return
        root = xp(theta).sqrt(variance) + eps
        if is_rectified is not True:  # recorded: either may be the case when the step is replayed
            root = xp(theta).where(is_rectified, root, 1)
        theta -= lr * (mean / root)


class Adamax(Optimizer):
    """Adam with the largest of the decayed gradients in place of the root mean square.

        g = grad + weight_decay·θ
        m = β1·m + (1 - β1)·g                       (m = u = 0 at first)
        u = max(β2·u, |g| + eps)
        θ = θ - lr / (1 - β1^t) · m / u

    t counts the steps of a parameter from 1: those in which it had a gradient. `maximize` takes -grad for grad. m and u
    have the shape and dtype of θ.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 2; eps as in torch.

    Raises what `Optimizer` raises, and ValueError if one of `betas` is outside of [0, 1), or if `eps` is negative or
    not finite. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> Adamax([x], lr=0.1).step()
    >>> x
    Tensor([0.9 2.1], requires_grad=True)
    """

    betas = Option(two_betas)
    eps = Option(finite)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, maximize, betas=betas, eps=eps)

    def _new_state(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        rate = group["lr"] / (1 - beta1 ** numbers["step"])
        return group["weight_decay"], beta1, 1 - beta1, beta2, group["eps"], rate

    @by_kernel("adamax")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        mean, largest = state
        decay, beta1, rise, beta2, eps, rate = settings
        grad = decayed(theta, grad, scratch, decay, group)
        mean *= beta1
        mean += rise * grad
        largest *= beta2
        xp(theta).maximum(largest, abs(grad) + eps, out=largest)
        theta -= rate * (mean / largest)
