"""The adapter of DeZero.

A 1-d convolution becomes one over images of height 1, and a dilated kernel is spread out by a matrix product. DeZero's
own cross-entropy and mean compute in float64, so they are composed here of functions that stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

vars(np).setdefault("int", int)  # NumPy removed this name after DeZero was written

import dezero  # noqa: E402
import dezero.functions as F  # noqa: E402
import dezero.layers  # noqa: E402
import dezero.optimizers  # noqa: E402

from ..cases import Layer  # noqa: E402
from .base import Functions, blas  # noqa: E402

__all__ = ["DeZero"]

Tensor = Any


class DeZero(Functions):
    """DeZero."""

    parameter = staticmethod(dezero.Parameter)
    tensor = staticmethod(dezero.Variable)

    def about(self) -> str:
        return f"DeZero {version('dezero')} on {blas()}"

    def leaf(self, x: Tensor) -> Tensor:
        return dezero.Variable(x.data)

    def conv(self, layer: Layer, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        stride: Any = layer.stride
        pad: Any = layer.padding
        if x.ndim == 3:
            x = F.reshape(x, (*x.shape[:2], 1, x.shape[2]))
        if weight.ndim == 3:
            out, channels, kernel = weight.shape
            spread = np.eye(layer.dilation * (kernel - 1) + 1, dtype="float32")[:: layer.dilation]
            weight = F.matmul(F.reshape(weight, (out * channels, kernel)), spread)
            weight, pad = F.reshape(weight, (out, channels, 1, -1)), (0, pad)
        return F.conv2d(x, weight, bias, stride, pad)

    def relu(self, *layer_and_x: Any) -> Tensor:
        return F.relu(layer_and_x[-1])

    def max_pool(self, layer: Layer, x: Tensor) -> Tensor:
        return F.pooling(x, layer.kernel, layer.stride)

    def flatten(self, layer: Layer, x: Tensor) -> Tensor:
        return F.reshape(x, (len(x), -1))

    def average(self, layer: Layer, x: Tensor) -> Tensor:
        x = F.reshape(x, (*x.shape[:2], -1))  # DeZero's sum over two axes has no backward
        return F.sum(x, axis=2) * np.float32(1 / x.shape[2])

    def linear(self, layer: Layer, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def loss(self, name: str) -> Callable[[Tensor, Tensor], Tensor]:
        def cross_entropy(x: Tensor, target: Tensor) -> Tensor:
            one_hot = np.eye(x.shape[1], dtype=x.dtype)[target.data]
            return F.sum(F.log_softmax(x) * one_hot) * np.float32(-1 / len(x))

        return {"cross_entropy": cross_entropy}[name]

    def optimizer(self, name: str, parameters: list[Tensor], options: dict[str, float]) -> Any:
        model = dezero.Layer()
        for i, parameter in enumerate(parameters):
            setattr(model, f"parameter{i}", parameter)
        return getattr(dezero.optimizers, name)(options["lr"]).setup(model)

    def learn(self, loss: Tensor, optimizer: Any) -> Tensor:
        optimizer.target.cleargrads()
        loss.backward()
        optimizer.update()
        return loss

    def gradients(self, y: Tensor, leaves: Sequence[Tensor], out_grad: Tensor, keep: bool) -> list[Tensor]:
        y.grad = out_grad
        y.backward()
        return [leaf.grad for leaf in leaves]
