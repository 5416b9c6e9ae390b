"""Operators that draw: from NumPy's global stream, as `needle.init` does, or from one that the attribute `seed` starts.

With a seed, every run draws the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import dtype_of
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("RandomNormal")
def random_normal(node: Node) -> Tensor:
    return _tensor(_normal(node, node["shape"]), dtype_of(node, "dtype"))


@operator("RandomUniform")
def random_uniform(node: Node) -> Tensor:
    return _tensor(_uniform(node, node["shape"]), dtype_of(node, "dtype"))


@operator("RandomNormalLike")
def random_normal_like(node: Node, x: Tensor) -> Tensor:
    return _like(node, x, _normal(node, x.shape))


@operator("RandomUniformLike")
def random_uniform_like(node: Node, x: Tensor) -> Tensor:
    return _like(node, x, _uniform(node, x.shape))


@operator("Bernoulli")
def bernoulli(node: Node, x: Tensor) -> Tensor:
    return _like(node, x, _stream(node).random_sample(x.shape) < x.numpy())


@operator("Multinomial")
def multinomial(node: Node, x: Tensor) -> Tensor:
    """Classes drawn by their logarithms of probabilities: (N, classes) -> (N, sample_size)."""
    ends = ops.softmax(x.astype("float64"), 1).numpy().cumsum(1)
    draws = _stream(node).random_sample((x.shape[0], node["sample_size"])) * ends[:, -1:]
    classes = [np.searchsorted(end, draw, "right") for end, draw in zip(ends, draws, strict=True)]
    return _like(node, x, np.reshape(classes, draws.shape))


def _normal(node: Node, shape: Sequence[int]) -> Any:
    return _stream(node).standard_normal(shape) * node["scale"] + node["mean"]


def _uniform(node: Node, shape: Sequence[int]) -> Any:
    return _stream(node).random_sample(shape) * (node["high"] - node["low"]) + node["low"]


def _stream(node: Node) -> Any:
    seed = node["seed"]
    return np.random if seed is None else np.random.RandomState(np.float32(seed).view("uint32"))


def _like(node: Node, x: Tensor, draws: Any) -> Tensor:
    """Draws in the dtype that the node names, or that of x, on the device of x."""
    return _tensor(draws, x.dtype if node["dtype"] is None else dtype_of(node, "dtype"), x.device)


def _tensor(draws: Any, dtype: Any, device: Any = None) -> Tensor:
    return Tensor(draws, dtype=dtype, device=device, requires_grad=False)
