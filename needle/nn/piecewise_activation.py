"""Layers of activations made of pieces: one for each function of `functional.piecewise_activation`.

Results have the shape and dtype of x, which must be floating (TypeError otherwise).
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.init import constant
from needle.nn import functional
from needle.nn.module import Module
from needle.nn.parameter import Parameter

__all__ = ["Hardshrink", "Hardsigmoid", "Hardswish", "PReLU", "Softshrink", "Threshold"]


class PReLU(Module):
    """x where it is positive, weight · x elsewhere, of any shape; the derivative in x at 0 is the weight.

    `weight` (num_parameters,) starts as `init` and is learned: one number, or one per channel of x (N, C, …). Raises
    ValueError if x has other channels. He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 1.
    """

    fixed = ("init",)

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Device | None = None, dtype: DTypeLike = "float32"
    ) -> None:  # fmt: skip
        super().__init__()
        size = check.integer("PReLU", "num_parameters", num_parameters, least=1)
        self.init = check.number("PReLU", "init", init)
        self.weight = Parameter(constant(size, c=self.init, device=device, dtype=dtype))

    @property
    def num_parameters(self) -> int:
        """The size of the weight."""
        return self.weight.size

    def forward(self, x: TensorLike) -> Tensor:
        return functional.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class Hardswish(Module):
    """x · min(max(x + 3, 0), 6) / 6, of any shape; the derivative at -3 is 0, at 3 it is 1.

    Howard et al., "Searching for MobileNetV3" (2019), section 5.2.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.hardswish(x)


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6, of any shape; the derivative at -3 and at 3 is 0.

    Howard et al., "Searching for MobileNetV3" (2019), section 5.2.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.hardsigmoid(x)


class Softshrink(Module):
    """x moved towards 0 by `lambd`, and 0 where |x| is at most that, of any shape.

    Raises ValueError if `lambd` is negative. Donoho, "De-noising by Soft-thresholding" (1995), equation 1.2.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        check.number("Softshrink", "lambd", lambd, least=0)
        self.lambd = lambd

    def forward(self, x: TensorLike) -> Tensor:
        return functional.softshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Hardshrink(Module):
    """x where |x| exceeds `lambd`, else 0, of any shape. A negative `lambd` changes nothing."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        check.number("Hardshrink", "lambd", lambd)
        self.lambd = lambd

    def forward(self, x: TensorLike) -> Tensor:
        return functional.hardshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return str(self.lambd)


class Threshold(Module):
    """x where it exceeds `threshold`, else `value`, of any shape; there the derivative is 0."""

    def __init__(self, threshold: float, value: float) -> None:
        super().__init__()
        check.number("Threshold", "threshold", threshold)
        check.number("Threshold", "value", value)
        self.threshold, self.value = threshold, value

    def forward(self, x: TensorLike) -> Tensor:
        return functional.threshold(x, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}"
