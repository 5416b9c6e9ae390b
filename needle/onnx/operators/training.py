"""One step of an optimizer: Adagrad, Adam and Momentum, for several tensors at once.

The inputs are the learning rate r, the number of steps t before this one, the tensors x, their gradients g, and the
states of the optimizer; the outputs are the new tensors and states. All decay the weights: g + norm_coefficient · x.
"""

from __future__ import annotations

from collections.abc import Callable

from needle import ops
from needle.autograd import Tensor
from needle.onnx.registry import Node, operator

__all__: list[str] = []

DOMAIN = "ai.onnx.preview.training"


@operator("Adagrad", domain=DOMAIN)
def adagrad(node: Node, r: Tensor, t: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    rate = r / (1 + t.astype(r.dtype) * node["decay_factor"])

    def update(x: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = node["norm_coefficient"] * x + g
        h = h + g * g
        return x - rate * g / (ops.sqrt(h) + node["epsilon"]), h

    return _updated(update, 3, inputs)


@operator("Adam", domain=DOMAIN)
def adam(node: Node, r: Tensor, t: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    alpha, beta = node["alpha"], node["beta"]
    steps = t.astype(r.dtype)
    corrected = r * ops.sqrt(1 - beta**steps) / (1 - alpha**steps)
    rate = ops.where(ops.greater(t, 0), corrected, r)

    def update(x: Tensor, g: Tensor, v: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        g = node["norm_coefficient"] * x + g
        v, h = alpha * v + (1 - alpha) * g, beta * h + (1 - beta) * (g * g)
        x = x - rate * v / (ops.sqrt(h) + node["epsilon"])
        return (1 - node["norm_coefficient_post"]) * x, v, h

    return _updated(update, 4, inputs)


@operator("Momentum", domain=DOMAIN)
def momentum(node: Node, r: Tensor, t: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Momentum, plain or Nesterov's."""
    alpha = node["alpha"]
    beta = ops.where(ops.greater(t, 0), node["beta"], 1).astype(r.dtype)

    def update(x: Tensor, g: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        g = node["norm_coefficient"] * x + g
        v = alpha * v + beta * g
        return x - r * (g + alpha * v if node["mode"] == "nesterov" else v), v

    return _updated(update, 3, inputs)


def _updated(update: Callable[..., tuple[Tensor, ...]], kinds: int, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Update each tensor with its gradient and states: all tensors, then all gradients, then each kind of state."""
    count = len(inputs) // kinds
    results = [update(*inputs[i::count]) for i in range(count)]
    return tuple(result for kind in zip(*results, strict=True) for result in kind)
