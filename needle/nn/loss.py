"""Losses: modules around the functions of `functional`; weights are buffers."""

from __future__ import annotations

from needle import check
from needle.nn import functional
from needle.nn.module import Module
from needle.ops.operand import tensor


class _Loss(Module):
    """A loss and its reduction: "mean", "sum" or "none"."""

    def __init__(self, reduction):
        super().__init__()
        self.reduction = check.one_of(type(self).__name__, "reduction", reduction, ("none", "mean", "sum"))

    def weights(self, weight):
        """Weights as a tensor: a buffer."""
        return weight if weight is None else tensor(type(self).__name__, weight)


class CrossEntropyLoss(_Loss):
    """-log softmax(x)[target]: logits (N, C), (N, C, *S) or (C,), and class indices or probabilities.

    See `functional.cross_entropy`.
    """

    def __init__(self, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        super().__init__(reduction)
        self.weight = self.weights(weight)
        self.ignore_index = check.integer("CrossEntropyLoss", "ignore_index", ignore_index)
        self.label_smoothing = check.number("CrossEntropyLoss", "label_smoothing", label_smoothing, least=0, most=1)

    def forward(self, x, target):
        options = (self.weight, self.ignore_index, self.reduction, self.label_smoothing)
        return functional.cross_entropy(x, target, *options)


class SoftmaxLoss(Module):
    """The mean over the batch of logsumexp(x) - x[target]: logits (N, C) and class indices (N,) of any dtype -> ().

    A name of the course for `CrossEntropyLoss` as it is by default; see `functional.cross_entropy`.
    """

    def forward(self, x, target):
        x, target = tensor("SoftmaxLoss", x), tensor("SoftmaxLoss", target)
        if x.ndim != 2 or target.shape != x.shape[:1]:
            raise ValueError(
                f"SoftmaxLoss: x (N, C) and target (N,) are needed, but got {x.shape} and {target.shape}"
            )
        return functional.cross_entropy(x, target)


class NLLLoss(_Loss):
    """-x[target]: log-probabilities (N, C), (N, C, *S) or (C,), and class indices; see `functional.nll_loss`."""

    def __init__(self, weight=None, ignore_index=-100, reduction="mean"):
        super().__init__(reduction)
        self.weight = self.weights(weight)
        self.ignore_index = check.integer("NLLLoss", "ignore_index", ignore_index)

    def forward(self, x, target):
        return functional.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(_Loss):
    """(x - target)²."""

    def __init__(self, reduction="mean"):
        super().__init__(reduction)

    def forward(self, x, target):
        return functional.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """|x - target|."""

    def __init__(self, reduction="mean"):
        super().__init__(reduction)

    def forward(self, x, target):
        return functional.l1_loss(x, target, self.reduction)


class SmoothL1Loss(_Loss):
    """d² / (2·beta) where d = |x - target| is below `beta`, else d - beta / 2."""

    def __init__(self, reduction="mean", beta=1.0):
        super().__init__(reduction)
        self.beta = check.number("SmoothL1Loss", "beta", beta, least=0)

    def forward(self, x, target):
        return functional.smooth_l1_loss(x, target, self.reduction, self.beta)


class HuberLoss(_Loss):
    """d² / 2 where d = |x - target| is below `delta`, else delta · (d - delta / 2)."""

    def __init__(self, reduction="mean", delta=1.0):
        super().__init__(reduction)
        self.delta = check.number("HuberLoss", "delta", delta, above=0)

    def forward(self, x, target):
        return functional.huber_loss(x, target, self.reduction, self.delta)


class BCELoss(_Loss):
    """-(target · log x + (1 - target) · log(1 - x)) for probabilities; see `functional.binary_cross_entropy`."""

    def __init__(self, weight=None, reduction="mean"):
        super().__init__(reduction)
        self.weight = self.weights(weight)

    def forward(self, x, target):
        return functional.binary_cross_entropy(x, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_Loss):
    """`BCELoss` of sigmoid(x), without overflow; see `functional.binary_cross_entropy_with_logits`."""

    def __init__(self, weight=None, reduction="mean", pos_weight=None):
        super().__init__(reduction)
        self.weight, self.pos_weight = self.weights(weight), self.weights(pos_weight)

    def forward(self, x, target):
        options = (self.weight, self.reduction, self.pos_weight)
        return functional.binary_cross_entropy_with_logits(x, target, *options)
