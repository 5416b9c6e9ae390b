"""Losses of class indices: scores (N, C, *S), classes (N, *S)."""

from __future__ import annotations

from needle import ops
from needle.autograd import Tensor
from needle.nn import functional as F
from needle.onnx.registry import Node, operator

__all__: list[str] = []

NOTHING = -(1 << 63)  # the index to ignore if the model names none


@operator("NegativeLogLikelihoodLoss", buffers=(2,))
def nll_loss(node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return F.nll_loss(x, target, weight, _ignored(node), node["reduction"])


@operator("SoftmaxCrossEntropyLoss", buffers=(2,))
def cross_entropy(
    node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The loss and, if the model asks for it, the log-probabilities."""
    if not node.has_output(1):
        return F.cross_entropy(x, target, weight, _ignored(node), node["reduction"])
    log_p = ops.logsoftmax(x, 1)
    return F.nll_loss(log_p, target, weight, _ignored(node), node["reduction"]), log_p


def _ignored(node: Node) -> int:
    return NOTHING if node["ignore_index"] is None else node["ignore_index"]
