"""Dropout: until version 6 it draws unless `is_test`, from 7 to 11 never, from 12 on if an input says so."""

from __future__ import annotations

from needle import init, ops
from needle.autograd import Tensor
from needle.nn import functional as F
from needle.onnx.registry import Node, operator

__all__: list[str] = []


@operator("Dropout", since=12)
def dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """x with dropped elements, and the mask of those that are kept.

    With a `seed`, the node keeps elements whose uniform draws, from a stream of its own, are at least the ratio.
    """
    is_training = training is not None and bool(training.item())
    return _dropout(node, x, 0.5 if ratio is None else float(ratio.item()), is_training)


@operator("Dropout", since=10)
def no_dropout(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return _dropout(node, x, node["ratio"], is_training=False)


@operator("Dropout", since=7)
def no_dropout_with_float_mask(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    return x, init.ones_like(x, dtype=x.dtype)


@operator("Dropout")
def dropout_with_float_mask(node: Node, x: Tensor) -> tuple[Tensor, Tensor | None]:
    y, mask = _dropout(node, x, node["ratio"], is_training=not node["is_test"])
    return y, mask if mask is None else mask.astype(x.dtype)


def _dropout(node: Node, x: Tensor, p: float, is_training: bool) -> tuple[Tensor, Tensor | None]:
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
