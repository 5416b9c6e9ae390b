"""Losses of pairs and triplets: one layer for each function of `functional.embedding_loss`.

The result has the widest dtype of the operands, which must be floating (TypeError), and shape () or, with the reduction
"none", one loss per pair or triplet. The mean of an empty batch raises ValueError.
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.loss import Loss

__all__ = ["CosineEmbeddingLoss", "HingeEmbeddingLoss", "MarginRankingLoss", "TripletMarginLoss"]


class _MarginLoss(Loss):
    """A loss with a margin of any sign."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = check.number(type(self).__name__, "margin", margin)


class HingeEmbeddingLoss(_MarginLoss):
    """x where `target` is 1, max(0, margin - x) where it is -1: distances x; both broadcast.

    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping" (2006), equation 4.
    """

    def __init__(self, margin: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(margin, reduction)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.hinge_embedding_loss(x, target, self.margin, self.reduction)


class MarginRankingLoss(_MarginLoss):
    """max(0, margin - target · (x1 - x2)): a `target` of 1 ranks x1 above x2, one of -1 below.

    Raises ValueError unless all three have the same number of axes and broadcast. Herbrich, Graepel and Obermayer,
    "Large Margin Rank Boundaries for Ordinal Regression" (2000), section 3.
    """

    def forward(self, x1: TensorLike, x2: TensorLike, target: TensorLike) -> Tensor:
        return functional.margin_ranking_loss(x1, x2, target, self.margin, self.reduction)


class CosineEmbeddingLoss(_MarginLoss):
    """1 - cos(x1, x2) where `target` is 1, max(0, cos(x1, x2) - margin) where it is -1, else 0: x1, x2 (N, D) -> (N,).

    `target` is (N,), or () for vectors (D,); other shapes raise ValueError.
    """

    def forward(self, x1: TensorLike, x2: TensorLike, target: TensorLike) -> Tensor:
        return functional.cosine_embedding_loss(x1, x2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), where d(a, b) is the p-norm of a - b + eps: (…, D).

    With `swap`, the smaller one of d(anchor, negative) and d(positive, negative) counts. Raises ValueError if `margin`
    or `p` is not positive or shapes do not fit together.

    Balntas, Riba, Ponsa and Mikolajczyk, "Learning Local Feature Descriptors with Triplets and Shallow Convolutional
    Neural Networks" (2016), equations 1 and 3.
    """

    flags = ("swap",)

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False, reduction: str = "mean"
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        name = "TripletMarginLoss"
        self.margin, self.p = check.number(name, "margin", margin, above=0), check.number(name, "p", p, above=0)
        self.eps = check.number(name, "eps", eps)
        self.swap = swap

    def forward(self, anchor: TensorLike, positive: TensorLike, negative: TensorLike) -> Tensor:
        return functional.triplet_margin_loss(
            anchor, positive, negative, self.margin, self.p, self.eps, self.swap, self.reduction
        )
