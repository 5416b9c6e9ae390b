"""The linear layer."""

from __future__ import annotations

from typing import ClassVar

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn.module import Module
from needle.nn.parameter import Parameter
from needle.ops import relu, reshape
from needle.ops.linear import affine, fit
from needle.ops.operand import cast_like

__all__ = ["Linear"]


class Linear(Module):
    """x @ weight + bias: x (…, in_features) -> (…, out_features).

    `weight` is (in_features, out_features), the transpose of torch's, and `bias` (1, out_features), or None with
    `bias=False`. Both are drawn by `init.kaiming_uniform`, first the weight with fan_in = in_features, then the bias
    with fan_in = out_features. `functional.linear` takes a weight in torch's layout.

    The result has the dtype of `weight`; x of another floating dtype is cast to it, as the course needs. Raises
    ValueError if the sizes are not positive, or if the last axis of x is not in_features; TypeError if x is not
    floating-point or weight and bias differ in dtype.

    He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), for the draws.

    >>> import needle as ndl
    >>> Linear(3, 2)(ndl.ones(5, 3)).shape
    (5, 2)
    """

    bias: Tensor | None
    fixed = ("in_features", "out_features")
    layouts: ClassVar = {"weight": (1, 0)}

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Device | None = None,
        dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.in_features = check.integer("Linear", "in_features", in_features, least=1)
        self.out_features = check.integer("Linear", "out_features", out_features, least=1)
        self.weight: Tensor = Parameter(init.kaiming_uniform(in_features, out_features, device=device, dtype=dtype))
        self.register_parameter("bias", None)
        if check.instance("Linear", "bias", bias, bool):
            column = init.kaiming_uniform(out_features, 1, device=device, dtype=dtype)
            self.bias = Parameter(reshape(column, (1, out_features)))

    def forward(self, x: TensorLike) -> Tensor:
        return self._applied(x, rectified=False)

    def forward_relu(self, x: TensorLike) -> Tensor:
        return self._applied(x, rectified=True)

    def _applied(self, x: TensorLike, rectified: bool) -> Tensor:
        x = cast_like("Linear", x, self.weight)
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"Linear: x must have {self.in_features} features in its last axis, but got {x.shape}")
        weight, bias = self.weight, self.bias
        if bias is not None and bias.dtype != x.dtype:
            check.floats("Linear", weight=weight, bias=bias)
        if x.ndim > 1 and fit(weight, bias, self.in_features):
            return affine(x, weight, bias, rectified)
        y = x @ weight
        if bias is not None:
            y = y + (bias if x.ndim > 1 else reshape(bias, (-1,)))
        return relu(y) if rectified else y

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
