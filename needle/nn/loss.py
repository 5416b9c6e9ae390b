"""Losses: one layer for each function of `functional.loss`.

`reduction` is "mean", "sum" or "none": the result has shape (), or with "none" one loss per element. It has the dtype
of x, which must be floating (TypeError). The mean of an empty batch raises ValueError. Weights are buffers, saved
with the state and moved by `to`.
"""

from __future__ import annotations

from typing import ClassVar

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.reduction import REDUCTIONS
from needle.nn.module import Module
from needle.ops.operand import tensor

__all__ = [
    "BCELoss",
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "HuberLoss",
    "L1Loss",
    "MSELoss",
    "NLLLoss",
    "SmoothL1Loss",
    "SoftmaxLoss",
]


class Loss(Module):
    """A loss and its reduction: "mean", "sum" or "none"."""

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction: str = check.one_of(type(self).__name__, "reduction", reduction, self.reductions)

    def _register_weight(self, name: str, weight: TensorLike | None) -> None:
        """A buffer that shares the memory of a tensor, as an operand does."""
        self.register_buffer(name, None if weight is None else tensor(type(self).__name__, weight))


# ---- classes ---------------------------------------------------------------------------------------------------------


class CrossEntropyLoss(Loss):
    """-log softmax(x)[target], weighted by class: logits x (N, C), (N, C, *S) or (C,).

    `target` holds class indices, integers of any dtype: (N,), (N, *S) or (). Those equal to `ignore_index` do not
    count; the mean is weighted by `weight` (C,). Or it holds class probabilities, of the shape and dtype of x; their
    mean is over N and *S. `label_smoothing` moves this fraction of each target evenly to all classes.

    Raises ValueError if shapes or options do not fit or, on the CPU, if an index is not in [0, C); TypeError if dtypes
    do not fit.

    Label smoothing: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), section 7.

    >>> import needle as ndl
    >>> CrossEntropyLoss()(ndl.Tensor([[0.0, 0.0], [2.0, 2.0]]), ndl.Tensor([0, 1])).item()
    0.6931471805599453
    """

    weight: Tensor | None

    def __init__(
        self, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self.ignore_index = check.integer("CrossEntropyLoss", "ignore_index", ignore_index)
        self.label_smoothing = check.number("CrossEntropyLoss", "label_smoothing", label_smoothing, least=0, most=1)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.cross_entropy(x, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing)


class SoftmaxLoss(Module):
    """The mean over the batch of logsumexp(x) - x[target]: logits x (N, C), class indices target (N,) -> ().

    The course's name for `CrossEntropyLoss()`. Indices are integers of any dtype. Errors as in `CrossEntropyLoss`.
    """

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        x, target = tensor("SoftmaxLoss", x), tensor("SoftmaxLoss", target)
        if x.ndim != 2 or target.shape != x.shape[:1]:
            raise ValueError(f"SoftmaxLoss: x (N, C) and target (N,) are needed, but got {x.shape} and {target.shape}")
        return functional.cross_entropy(x, target)


class NLLLoss(Loss):
    """-x[target], weighted by class: log-probabilities x (N, C), (N, C, *S) or (C,), and class indices target.

    Indices, `weight` (C,), `ignore_index` and errors as in `CrossEntropyLoss`.
    """

    weight: Tensor | None

    def __init__(
        self, weight: TensorLike | None = None, ignore_index: int = -100, reduction: str = "mean"
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self.ignore_index = check.integer("NLLLoss", "ignore_index", ignore_index)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.nll_loss(x, target, self.weight, self.ignore_index, self.reduction)


# ---- distances -------------------------------------------------------------------------------------------------------


class MSELoss(Loss):
    """(x - target)², elementwise: x and target of shapes that broadcast (with a warning if they differ)."""

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.mse_loss(x, target, self.reduction)


class L1Loss(Loss):
    """|x - target|, elementwise: x and target of shapes that broadcast (with a warning if they differ)."""

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.l1_loss(x, target, self.reduction)


class SmoothL1Loss(Loss):
    """d² / (2·beta) where d = |x - target| is below `beta`, d - beta / 2 elsewhere; shapes as in `L1Loss`.

    `beta` is at least 0 (ValueError). Girshick, "Fast R-CNN" (2015), equation 3, where beta is 1.
    """

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = check.number("SmoothL1Loss", "beta", beta, least=0)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.smooth_l1_loss(x, target, self.reduction, self.beta)


class HuberLoss(Loss):
    """d² / 2 where d = |x - target| is below `delta`, delta · (d - delta / 2) elsewhere; shapes as in `L1Loss`.

    `delta` is positive (ValueError). Huber, "Robust Estimation of a Location Parameter" (1964).
    """

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = check.number("HuberLoss", "delta", delta, above=0)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.huber_loss(x, target, self.reduction, self.delta)


# ---- two classes -----------------------------------------------------------------------------------------------------


class BCELoss(Loss):
    """-(target · log x + (1 - target) · log(1 - x)), elementwise: probabilities x and target of equal shape and dtype.

    Logarithms are clamped to at least -100. `weight` broadcasts to x. Raises ValueError if shapes differ or, on the
    CPU, if a value is not in [0, 1]; TypeError if dtypes differ.
    """

    weight: Tensor | None

    def __init__(self, weight: TensorLike | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._register_weight("weight", weight)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.binary_cross_entropy(x, target, self.weight, self.reduction)


class BCEWithLogitsLoss(Loss):
    """`BCELoss` of sigmoid(x) without overflow, elementwise: logits x and target of equal shape and dtype.

    `pos_weight` multiplies the loss of the positive part, target · log sigmoid(x). Both weights broadcast to x. Raises
    ValueError if shapes differ, TypeError if dtypes differ.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self, weight: TensorLike | None = None, reduction: str = "mean", pos_weight: TensorLike | None = None
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self._register_weight("weight", weight)
        self._register_weight("pos_weight", pos_weight)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)
