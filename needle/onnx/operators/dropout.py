"""Dropout: until version 6 it draws unless `is_test`, from 12 on if an input says so, and if the module is in training.

With a `seed`, a node keeps elements whose uniform draws, from a stream of its own, are at least the ratio.
"""

from __future__ import annotations

from needle import init, ops
from needle.autograd import Tensor
from needle.nn import functional as F
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Dropout", since=12, buffers=(1,))
def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """x with dropped elements, and the mask of those that are kept."""
    is_training = training is not None and bool(training.item())
    return _dropout(node, x, 0.5 if ratio is None else float(ratio.item()), is_training)


@operator("Dropout", since=10)
def dropout_of_training(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return _dropout(node, x, node["ratio"], is_training=False)


@operator("Dropout", since=7)
def dropout_of_training_with_float_mask(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return _with_float_mask(*_dropout(node, x, node["ratio"], is_training=False))


@operator("Dropout")
def dropout_with_float_mask(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return _with_float_mask(*_dropout(node, x, node["ratio"], is_training=not node["is_test"]))


def _with_float_mask(y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return y, mask if mask is None else mask.astype(y.dtype)


def _dropout(node: Node, x: Tensor, p: float, is_training: bool) -> tuple[Tensor, Tensor | None]:
    is_training = is_training or node.training
    if node.random_state is None and not node.has_output(1):
        return F.dropout(x, p, is_training), None
    ones = init.ones_like(x)
    if not is_training or not p:
        return x, ones.astype("bool")
    if node.random_state is None:
        kept = ops.not_equal(F.dropout(ones, p), 0)
    else:
        kept = Tensor(node.random_state.random_sample(x.shape) >= p, device=x.device, requires_grad=False)
    return x * kept / ((1 - p) or 1), kept
