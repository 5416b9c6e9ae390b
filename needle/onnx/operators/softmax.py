"""Softmax, LogSoftmax and Hardmax: until version 12 of all axes from `axis` on at once, from 13 of the axis alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from needle import init, ops
from needle.autograd import Tensor
from needle.onnx.operators.arguments import axis_of
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Softmax", since=13)
def softmax(node: Node, x: Tensor) -> Tensor:
    return ops.softmax(x, node["axis"])


@operator("LogSoftmax", since=13)
def log_softmax(node: Node, x: Tensor) -> Tensor:
    return ops.logsoftmax(x, node["axis"])


@operator("Hardmax", since=13)
def hardmax(node: Node, x: Tensor) -> Tensor:
    return _hardmax(x, axis_of(node, x.ndim))


@operator("Softmax")
def softmax_of_rest(node: Node, x: Tensor) -> Tensor:
    return _of_rest(ops.softmax, x, axis_of(node, x.ndim))


@operator("LogSoftmax")
def log_softmax_of_rest(node: Node, x: Tensor) -> Tensor:
    return _of_rest(ops.logsoftmax, x, axis_of(node, x.ndim))


@operator("Hardmax")
def hardmax_of_rest(node: Node, x: Tensor) -> Tensor:
    return _of_rest(_hardmax, x, axis_of(node, x.ndim))


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the largest element along an axis, the first if tied, 0 elsewhere; a constant."""
    axis %= x.ndim
    positions = ops.reshape(init.arange(x.shape[axis], device=x.device), (-1, *(1,) * (x.ndim - 1 - axis)))
    return ops.equal(ops.argmax(x, axis, keepdims=True), positions).astype(x.dtype)


def _of_rest(function: Callable[[Tensor, int], Tensor], x: Tensor, axis: int) -> Tensor:
    """A function along the last axis of x in two axes, of which the second holds the axes from `axis` on."""
    rows = math.prod(x.shape[:axis])
    flat = ops.reshape(x, (rows, x.size // max(rows, 1)))
    return ops.reshape(function(flat, -1), x.shape)
