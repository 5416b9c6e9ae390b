"""Losses of distributions: one layer for each function of `functional.likelihood_loss`.

Operands broadcast; the result has their widest dtype, and shape () or, with the reduction "none", one loss per element.
The mean of an empty batch raises ValueError, an x that is not floating TypeError.
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.likelihood_loss import KL_REDUCTIONS
from needle.nn.loss import Loss

__all__ = ["GaussianNLLLoss", "KLDivLoss", "PoissonNLLLoss"]


class KLDivLoss(Loss):
    """target · (log target - x): log-probabilities x and probabilities `target`, or their logarithms with `log_target`.

    The reduction "batchmean", the divergence by its definition, divides the sum by the size of the first axis of x.

    Kullback and Leibler, "On Information and Sufficiency" (1951), equation 2.4.
    """

    reductions = KL_REDUCTIONS

    flags = ("log_target",)

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.kl_div(x, target, self.reduction, self.log_target)


class PoissonNLLLoss(Loss):
    """e ** x - target · x: the logarithm x of the mean of a Poisson law, and counts `target`.

    With `log_input=False`, x is the mean itself: x - target · log(x + eps). `full` adds log(target!), by Stirling's
    formula, for targets above 1. `eps` is at least 0 (ValueError).
    """

    flags = ("log_input", "full")

    def __init__(
        self, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
    ) -> None:  # fmt: skip
        super().__init__(reduction)
        self.log_input = log_input
        self.full = full
        self.eps = check.number("PoissonNLLLoss", "eps", eps, least=0)

    def forward(self, x: TensorLike, target: TensorLike) -> Tensor:
        return functional.poisson_nll_loss(x, target, self.log_input, self.full, self.eps, self.reduction)


class GaussianNLLLoss(Loss):
    """(log v + (x - target)² / v) / 2: the mean x and variance v = max(var, eps) of a normal law, and values `target`.

    `var` is a number, has the shape of x, lacks its last axis, or has size 1 in one axis. `full` adds log(2π) / 2.
    Raises ValueError if `eps` or, on the CPU, a variance is negative.

    Nix and Weigend, "Estimating the Mean and Variance of the Target Probability Distribution" (1994), equation 5.
    """

    flags = ("full",)

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full = full
        self.eps = check.number("GaussianNLLLoss", "eps", eps, least=0)

    def forward(self, x: TensorLike, target: TensorLike, var: TensorLike) -> Tensor:
        return functional.gaussian_nll_loss(x, target, var, self.full, self.eps, self.reduction)
