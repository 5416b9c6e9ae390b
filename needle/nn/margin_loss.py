"""Losses of classifiers by margins: one layer for each function of `functional.margin_loss`.

The result has the dtype of x, which must be floating (TypeError), and shape () or, with the reduction "none", one loss
per sample. The mean of an empty batch raises ValueError. Weights are buffers, saved with the state and moved by `to`.
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.loss import Loss

__all__ = ["MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss", "SoftMarginLoss"]


class MultiMarginLoss(Loss):
    """The sum over the other classes i of max(0, margin - x[target] + x[i]) ** p, divided by C: x (N, C) or (C,).

    `target` holds class indices, integers of any dtype, (N,) or (). `p` is 1 or 2. `weight` (C,) multiplies the losses
    by that of the target's class; the mean is divided by N.

    Raises ValueError if shapes or options do not fit together or, on the CPU, if an index is not in [0, C).

    Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines" (2001), section
    2.
    """

    weight: Tensor | None

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: TensorLike | None = None, reduction: str = "mean"
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self.p: int = check.one_of("MultiMarginLoss", "p", p, (1, 2))
        self.margin = check.number("MultiMarginLoss", "margin", margin)
        self._register_weight("weight", weight)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.multi_margin_loss(x, target, self.p, self.margin, self.weight, self.reduction)


class MultiLabelMarginLoss(Loss):
    """The sum over the sample's classes y and the others i of max(0, 1 - x[y] + x[i]), divided by C: x (N, C) or (C,).

    `target`, of the shape of x, holds the classes of each sample, integers of any dtype; what follows the first -1 does
    not count. Raises ValueError if shapes differ or, on the CPU, if an index is not in [-1, C).

    Zhang and Zhou, "Multilabel Neural Networks" (2006), equation 3, with hinges in place of exponentials.
    """

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.multilabel_margin_loss(x, target, self.reduction)


class SoftMarginLoss(Loss):
    """log(1 + e ** (-target · x)), elementwise, without overflow: x of any shape, `target` of 1 and -1."""

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.soft_margin_loss(x, target, self.reduction)


class MultiLabelSoftMarginLoss(Loss):
    """The mean over C of -(target · log s + (1 - target) · log(1 - s)), s = sigmoid(x): x (…, C), target of 1 and 0.

    `weight` multiplies the losses before that mean, and broadcasts to x. Raises ValueError if shapes do not fit.
    """

    weight: Tensor | None

    def __init__(self, weight: TensorLike | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.multilabel_soft_margin_loss(x, target, self.weight, self.reduction)
