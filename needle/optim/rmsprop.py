"""RMSprop, Adagrad and Adadelta: each element's step is divided by a root of its squared gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from needle.autograd import Tensor
from needle.backend import xp
from needle.optim.flat import Numbers
from needle.optim.groups import Group, Option, finite, flag
from needle.optim.optimizer import Optimizer, by_kernel, decayed

__all__ = ["Adadelta", "Adagrad", "RMSprop"]


class RMSprop(Optimizer):
    """Steps divided by a running root mean square of gradients.

        g = grad + weight_decay·θ
        v = alpha·v + (1 - alpha)·g²                (v = 0 at first)
        θ = θ - lr · g / (sqrt(v) + eps)

    With `momentum`, u = momentum·u + g / (sqrt(v) + eps) and θ = θ - lr·u. With `centered`, v is replaced by v - m²,
    which is at least 0, where m = alpha·m + (1 - alpha)·g: an estimate of the variance. `maximize` takes -grad for
    grad. State has the shape and dtype of θ.

    Source: Hinton, "Neural Networks for Machine Learning" (2012), lecture 6e; Graves, "Generating Sequences With
    Recurrent Neural Networks" (2013), equations 38 to 45, for `centered`.

    Raises what `Optimizer` raises, and ValueError if `alpha` is outside of [0, 1], or if `eps` or `momentum` is
    negative or not finite. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> RMSprop([x], lr=0.1, alpha=0.75, eps=0).step()
    >>> x
    Tensor([0.8 2.2], requires_grad=True)
    """

    alpha = Option(partial(finite, most=1))
    eps = Option(finite)
    momentum = Option(finite)
    centered = Option(flag)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(params, lr, weight_decay, maximize, **options)

    def _new_state(self, group: Group) -> dict[str, float]:
        names = ["square_avg"]
        names += ["momentum_buffer"] * (group["momentum"] > 0) + ["grad_avg"] * group["centered"]
        return dict.fromkeys(names, 0.0)

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        alpha = group["alpha"]
        return group["weight_decay"], alpha, 1 - alpha, group["eps"], group["momentum"], group["lr"]

    @by_kernel("rmsprop")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        square, *others = state
        decay, alpha, rise, eps, momentum, lr = settings
        grad = decayed(theta, grad, scratch, decay, group)
        square *= alpha
        square += rise * grad * grad
        variance = square
        if group["centered"]:
            mean = others[-1]
            mean += rise * (grad - mean)
            variance = xp(theta).maximum(square - mean * mean, 0)
        step = grad / (xp(theta).sqrt(variance) + eps)
        if group["momentum"]:
            buffer = others[0]
            buffer *= momentum
            buffer += step
            step = buffer
        theta -= lr * step


class Adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients.

        g = grad + weight_decay·θ
        s = s + g²                                  (s = initial_accumulator_value at first)
        θ = θ - lr / (1 + (t - 1)·lr_decay) · g / (sqrt(s) + eps)

    t counts the steps of a parameter from 1: those in which it had a gradient. `maximize` takes -grad for grad. s has
    the shape and dtype of θ.

    Source: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization"
    (2011), section 1.1, with the diagonal of the matrix.

    Raises what `Optimizer` raises, and ValueError if `lr_decay`, `initial_accumulator_value` or `eps` is negative or
    not finite. Assigned options are checked likewise.

    >>> x = Tensor([1.0, 2.0])
    >>> x.grad = Tensor([0.5, -1.0])
    >>> Adagrad([x], lr=0.1).step()
    >>> x
    Tensor([0.9 2.1], requires_grad=True)
    """

    lr_decay = Option(finite)
    initial_accumulator_value = Option(finite)
    eps = Option(finite)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        options = {"lr_decay": lr_decay, "initial_accumulator_value": initial_accumulator_value, "eps": eps}
        super().__init__(params, lr, weight_decay, maximize, **options)

    def _new_state(self, group: Group) -> dict[str, float]:
        return {"sum": group["initial_accumulator_value"]}

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        lr = group["lr"] / (1 + (numbers["step"] - 1) * group["lr_decay"])
        return group["weight_decay"], group["eps"], lr

    @by_kernel("adagrad")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        (total,) = state
        decay, eps, lr = settings
        grad = decayed(theta, grad, scratch, decay, group)
        total += grad * grad
        theta -= lr * (grad / (xp(theta).sqrt(total) + eps))


class Adadelta(Optimizer):
    """Steps in units of the parameter: the ratio of running root mean squares of steps and of gradients.

        g = grad + weight_decay·θ
        v = rho·v + (1 - rho)·g²                    (v = d = 0 at first)
        Δ = sqrt(d + eps) / sqrt(v + eps) · g
        d = rho·d + (1 - rho)·Δ²
        θ = θ - lr·Δ

    `maximize` takes -grad for grad. State has the shape and dtype of θ.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012), algorithm 1.

    Raises what `Optimizer` raises, and ValueError if `rho` is outside of [0, 1], or if `eps` is negative or not finite.
    Assigned options are checked likewise.
    """

    rho = Option(partial(finite, most=1))
    eps = Option(finite)

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, maximize, rho=rho, eps=eps)

    def _new_state(self, group: Group) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def _settings(self, group: Group, numbers: Numbers) -> tuple[float, ...]:
        return group["weight_decay"], group["rho"], 1 - group["rho"], group["eps"], group["lr"]

    @by_kernel("adadelta")
    def _update(self, theta: Any, grad: Any, state: Sequence[Any], scratch: Any, group: Group, settings: Any) -> None:
        square, moved = state
        (decay, rho, rise, eps, lr), sqrt = settings, xp(theta).sqrt
        grad = decayed(theta, grad, scratch, decay, group)
        square *= rho
        square += rise * grad * grad
        delta = sqrt(moved + eps) / sqrt(square + eps) * grad
        moved *= rho
        moved += rise * delta * delta
        theta -= lr * delta
