"""Normalization by a mean square, without centring, under torch's names. float16 is computed in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import compute_dtype
from needle.nn.functional.norm import last_axes
from needle.ops.arithmetic import DIVIDE, MULTIPLY, AddScalar, DivScalar, MulScalar, PowerScalar, as_dtype
from needle.ops.operand import make_window, tensor
from needle.ops.pool import SumPool
from needle.ops.reduce import Mean
from needle.ops.shape import Reshape

__all__ = ["local_response_norm", "rms_norm"]


def rms_norm(
    x: TensorLike, normalized_shape: int | Sequence[int], weight: TensorLike | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last axes of x (…, *normalized_shape), times `weight`.

    The weight has the shape `normalized_shape`, which may be one integer. `eps` is by default the spacing of the dtype
    at 1; for float16 that of float32.

    Raises `ValueError` if shapes do not fit together, `TypeError` if dtypes or devices do not.

    Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019), equation 4.
    """
    op = "rms_norm"
    x = tensor(op, x)
    shape = last_axes(op, x, normalized_shape)
    check.floats(op, x=x)
    if weight is not None:
        weight = tensor(op, weight, x)
        if weight.shape != shape:
            raise ValueError(f"{op}: weight must have shape {shape} for x {x.shape}, but got {weight.shape}")
        if not (x.dtype == "float16" and weight.dtype == "float32"):
            check.floats(op, x=x, weight=weight)
    wide = compute_dtype(x.dtype)
    eps = float(x.device.xp.finfo(wide).eps) if eps is None else check.number(op, "eps", eps, least=0)
    if not x.size:
        return x
    y = as_dtype(x, wide)
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    y = MULTIPLY(y, PowerScalar(-0.5)(AddScalar(eps)(Mean(axes, keepdims=True)(MULTIPLY(y, y)))))
    return as_dtype(y if weight is None else MULTIPLY(y, weight), x.dtype)


def local_response_norm(x: TensorLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha · m) ** beta, where m is the mean of x² over `size` channels around each: x (N, C, L, …).

    The window of an even size reaches one channel further back. Channels beyond the first and last count as zeros.

    Raises `ValueError` if x has fewer than 3 axes or `size` is not positive, `TypeError` unless the dtype of x is
    floating.

    Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012), section
    3.3, but with alpha divided by `size`, as in torch.
    """
    op = "local_response_norm"
    x = tensor(op, x)
    if x.ndim < 3:
        raise ValueError(f"{op}: x must have at least 3 axes, (N, C, L, …), but got shape {x.shape}")
    check.floats(op, x=x)
    size = check.integer(op, "size", size, least=1)
    alpha, beta = check.number(op, "alpha", alpha), check.number(op, "beta", beta)
    k = check.number(op, "k", k)
    if not x.size:
        return x
    return over_channels(x, size, (size // 2, (size - 1) // 2), alpha, beta, k)


def over_channels(x: Tensor, size: int, sides: tuple[int, int], alpha: float, beta: float, k: float) -> Tensor:
    """`local_response_norm` of checked arguments; `sides` are the channels before and after each in its window."""
    wide = as_dtype(x, compute_dtype(x.dtype))
    n, c = x.shape[:2]
    image = Reshape((n, 1, c, math.prod(x.shape[2:])))(MULTIPLY(wide, wide))
    window = make_window("local_response_norm", 2, 1, (sides, (0, 0)))
    mean = Reshape(x.shape)(DivScalar(size)(SumPool((size, 1), window)(image)))
    return as_dtype(DIVIDE(wide, PowerScalar(beta)(AddScalar(k)(MulScalar(alpha)(mean)))), x.dtype)
