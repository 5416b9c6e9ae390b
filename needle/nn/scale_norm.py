"""Layers that normalize by a mean square, without centring: x of a floating dtype (TypeError) -> the same shape."""

from __future__ import annotations

from collections.abc import Sequence

from needle import check, init
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike
from needle.nn import functional
from needle.nn.functional.norm import as_normalized_shape
from needle.nn.module import Module
from needle.nn.parameter import Parameter

__all__ = ["LocalResponseNorm", "RMSNorm"]


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) over the last axes of x (…, *normalized_shape), times `weight`, which starts as ones.

    `normalized_shape` is one size or several. `eps` is by default the spacing of the dtype at 1;
    `elementwise_affine=False` leaves out the weight. Raises ValueError if x does not end in these axes.

    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
    """

    weight: Tensor | None
    fixed = ("normalized_shape", "elementwise_affine")
    flags = ("elementwise_affine",)

    def __init__(
        self, normalized_shape: int | Sequence[int], eps: float | None = None, elementwise_affine: bool = True,
        device: Device | None = None, dtype: DTypeLike = "float32",
    ) -> None:  # fmt: skip
        super().__init__()
        self.normalized_shape = as_normalized_shape("RMSNorm", normalized_shape)
        self.eps = eps if eps is None else check.number("RMSNorm", "eps", eps, least=0)
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", None)
        if elementwise_affine:
            self.weight = Parameter(init.ones(*self.normalized_shape, device=device, dtype=dtype))

    def forward(self, x: TensorLike) -> Tensor:
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """x / (k + alpha · m) ** beta, where m is the mean of x² over `size` channels around each: x (N, C, L, …).

    Channels beyond the first and last count as zeros. Raises ValueError if `size` is not positive or x has fewer axes.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section
    3.3, but with alpha divided by `size`, as in torch.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        name = "LocalResponseNorm"
        self.size = check.integer(name, "size", size, least=1)
        for option, value in ("alpha", alpha), ("beta", beta), ("k", k):
            check.number(name, option, value)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, x: TensorLike) -> Tensor:
        return functional.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
