"""The adapter of MyGrad, which has no optimizers: Adam is written here in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import mygrad
import mygrad.nnet
import numpy as np

from ..cases import Layer
from .base import Functions, blas

__all__ = ["MyGrad"]

Tensor = Any


class MyGrad(Functions):
    """MyGrad."""

    leaf = parameter = staticmethod(mygrad.tensor)
    tensor = staticmethod(partial(mygrad.tensor, constant=True))

    def about(self) -> str:
        return f"MyGrad {mygrad.__version__} on {blas()}"

    def conv(self, layer: Layer, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        y = mygrad.nnet.conv_nd(x, weight, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
        return y + bias.reshape(-1, *[1] * (x.ndim - 2))

    def relu(self, *layer_and_x: Any) -> Tensor:
        return mygrad.nnet.relu(layer_and_x[-1])

    def max_pool(self, layer: Layer, x: Tensor) -> Tensor:
        return mygrad.nnet.max_pool(x, (layer.kernel,) * (x.ndim - 2), layer.stride)

    def flatten(self, layer: Layer, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)

    def average(self, layer: Layer, x: Tensor) -> Tensor:
        return x.mean(axis=tuple(range(2, x.ndim)))

    def linear(self, layer: Layer, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        return x @ weight + bias

    def loss(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        return {"cross_entropy": lambda x, target: mygrad.nnet.softmax_crossentropy(x, target.data)}[name]

    def optimizer(self, name: str, parameters: list[Tensor], options: dict[str, float]) -> SimpleNamespace:
        zeros = [[np.zeros_like(parameter.data) for parameter in parameters] for _ in range(2)]
        return SimpleNamespace(parameters=parameters, moments=zeros, steps=0, **{"Adam": options}[name])

    def learn(self, loss: Tensor, optimizer: SimpleNamespace) -> Tensor:
        loss.backward()
        optimizer.steps += 1
        size = optimizer.lr * (1 - 0.999**optimizer.steps) ** 0.5 / (1 - 0.9**optimizer.steps)
        for parameter, mean, square in zip(optimizer.parameters, *optimizer.moments, strict=True):
            mean += 0.1 * (parameter.grad - mean)
            square += 0.001 * (parameter.grad**2 - square)
            parameter.data -= size * mean / (np.sqrt(square) + 1e-8)
            parameter.null_grad()
        return loss

    def gradients(self, y: Tensor, leaves: Sequence[Tensor], out_grad: Tensor, keep: bool) -> list[Tensor]:
        y.backward(out_grad.data)
        return [self.tensor(leaf.grad) for leaf in leaves]
