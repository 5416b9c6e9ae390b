"""Optimizers: each step updates parameters and its own buffers in place, with one scratch buffer per parameter.

Steps compute on raw arrays, so they leave no graph on parameters or state, and they never write into a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend_ndarray import xp
from needle.lazy import check_one_device


class Optimizer:
    """The base of all: `params`, `step()`, `reset_grad()`; parameters whose `.grad` is None are skipped."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, weight_decay: float = 0.0) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor) or not isinstance(params, Iterable):
            raise TypeError(f"{name}: params must be a sequence of tensors, but got {type(params).__name__}")
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{name}: params must hold at least one tensor, but got none")
        for parameter in self.params:
            check.instance(name, "each of params", parameter, Tensor)
            if parameter.dtype.kind != "f":
                raise TypeError(f"{name}: params must have floating dtypes, but got {parameter.dtype}")
        self.lr = check.number(name, "lr", lr, least=0)
        self.weight_decay = check.number(name, "weight_decay", weight_decay, least=0)
        self._buffers: list[tuple[Any, ...] | None] = [None] * len(self.params)

    buffer_count = 0  # of the arrays beside the scratch that the rule keeps for each parameter

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for i, parameter in enumerate(self.params):
            if parameter.grad is None:
                continue
            check_one_device("step", (parameter, parameter.grad))
            array, grad = parameter.array, parameter.grad.array
            if grad.shape != array.shape:
                raise ValueError(f"step: a gradient must have its tensor's shape {array.shape}, but got {grad.shape}")
            buffers = self._buffers[i]
            if buffers is None:
                buffers = self._buffers[i] = tuple(xp(array).zeros_like(array) for _ in range(self.buffer_count + 1))
            elif type(buffers[0]) is not type(array):  # the parameter has moved to another device
                buffers = self._buffers[i] = tuple(map(parameter.device.array, buffers))
            parameter.mark_changed()
            self._update(array, grad, *buffers)

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        """Change `array` in place by the rule; the last of `buffers` is scratch."""
        raise NotImplementedError(f"{type(self).__name__}: the rule is not defined")

    def reset_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.params:
            parameter.grad = None

    def clip_grad_norm(self, max_norm: float = 0.25) -> Tensor:
        """Scale all gradients by min(1, max_norm / (norm + 1e-6)), where norm is the L2 norm of all together: ()."""
        max_norm = check.number("clip_grad_norm", "max_norm", max_norm, least=0)
        grads = [parameter.grad for parameter in self.params if parameter.grad is not None]
        if not grads:
            raise ValueError("clip_grad_norm: at least one parameter must have a gradient, but got none")
        check_one_device("clip_grad_norm", grads)
        namespace = xp(grads[0].array)
        squares = [namespace.square(_widened(grad.array)).sum() for grad in grads]
        norm = namespace.sqrt(sum(squares[1:], squares[0]))
        scale = namespace.minimum(max_norm / (norm + 1e-6), 1)
        for parameter in self.params:
            if parameter.grad is not None:
                grad = parameter.grad.array
                parameter.grad = Tensor.make_const((grad * scale).astype(grad.dtype, copy=False))
        return Tensor(norm, requires_grad=False)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    g = grad + weight_decay·θ;  u = momentum·u + (1 - dampening)·g, u = 0 at first;  θ -= lr·u, and with `nesterov`
    θ -= lr·(g + momentum·u). By default `dampening` is `momentum`, so that u is a running mean of gradients;
    `dampening=0` is torch's default rule.
    """

    buffer_count = 1

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
        self.momentum = check.number("SGD", "momentum", momentum, least=0)
        self.dampening = check.number("SGD", "dampening", momentum if dampening is None else dampening, least=0)
        self.nesterov = nesterov
        if nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening=0, but got {momentum} and {self.dampening}"
            )

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        velocity, scratch = buffers
        multiply, add = xp(array).multiply, xp(array).add
        if self.weight_decay:
            multiply(array, self.weight_decay, scratch)
            grad = add(scratch, grad, scratch)
        velocity *= self.momentum
        if self.nesterov:
            velocity += grad
            array -= multiply(grad, self.lr, scratch)
            array -= multiply(velocity, self.lr * self.momentum, scratch)
        else:
            velocity += multiply(grad, 1 - self.dampening, scratch)
            array -= multiply(velocity, self.lr, scratch)


class Adam(Optimizer):
    """Adam with L2 weight decay: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.

    g = grad + weight_decay·θ;  m = β1·m + (1 - β1)·g;  v = β2·v + (1 - β2)·g²;
    θ -= lr · (m / (1 - β1^t)) / (sqrt(v / (1 - β2^t)) + eps), where t counts the steps from 1.
    """

    buffer_count = 2

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
        """Update every parameter that has a gradient, and count the step."""
        self.t += 1
        super().step()

    def _update(self, array: Any, grad: Any, *buffers: Any) -> None:
        first, second, scratch = buffers
        multiply = xp(array).multiply
        grad = self._decay(array, grad, scratch)
        first *= self.beta1 / (1 - self.beta1)
        first += grad
        first *= 1 - self.beta1
        second *= self.beta2
        multiply(grad, grad, scratch)
        scratch *= 1 - self.beta2
        second += scratch
        multiply(second, 1 / (1 - self.beta2**self.t), scratch)
        xp(array).sqrt(scratch, scratch)
        scratch += self.eps
        xp(array).divide(first, scratch, scratch)
        scratch *= self.lr / (1 - self.beta1**self.t)
        array -= scratch

    def _decay(self, array: Any, grad: Any, scratch: Any) -> Any:
        """The gradient with weight decay, in `scratch` where there is any."""
        if not self.weight_decay:
            return grad
        xp(array).multiply(array, self.weight_decay, scratch)
        return xp(array).add(scratch, grad, scratch)


class AdamW(Adam):
    """Adam with decoupled weight decay: θ -= lr·weight_decay·θ before Adam's own step, with g = grad.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
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

    def _decay(self, array: Any, grad: Any, scratch: Any) -> Any:
        array *= 1 - self.lr * self.weight_decay
        return grad


def _widened(array: Any) -> Any:
    """The array in a dtype that holds the squares of its values: float32 for float16."""
    return array.astype("float32") if array.dtype == "float16" else array
