"""Linear layers: x @ w + bias, max(that, 0) if it is rectified, and the gradients."""

from __future__ import annotations

from collections.abc import Sequence

from needle import tuning
from needle.backend import overridable, xp
from needle.kernels.activation import rectify, relu_grad
from needle.kernels.elementwise import elementwise
from needle.kernels.layout import Array
from needle.kernels.matmul import matmul, matmul_like
from needle.kernels.reduce import summed_to

__all__ = ["linear", "linear_backward"]


@overridable
def linear(x: Array, w: Array, bias: Array | None = None, rectified: bool = False) -> Array:
    """x (…, n, I), w (I, O), bias (O,) or (1, O) -> x @ w + bias (…, n, O); matrices keep the memory order of x."""
    y = matmul_like(x, x, w) if x.ndim == 2 else matmul(x, w)
    if bias is not None:
        y = y + bias if y.nbytes < tuning.PARALLEL_ELEMENTWISE_BYTES else elementwise(xp(y).add, y, bias)
    return rectify(y, out=y) if rectified else y


@overridable
def linear_backward(
    out_grad: Array, x: Array, w: Array, needed: Sequence[bool], output: Array | None = None
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of `linear` in x, w and bias (O,), None where not `needed`, for out_grad (…, n, O).

    `output` is the result of a rectified one, whose zeros mask out_grad. The gradients of matrices have the memory
    order of x and w: an optimizer adds others ten times as slowly.
    """
    if output is not None:
        out_grad = relu_grad(output, out_grad)
    x_transposed, w_transposed = x.swapaxes(-1, -2), w.T
    if x.ndim == 2:
        x_grad = matmul_like(x, out_grad, w_transposed) if needed[0] else None
        w_grad = matmul_like(w, x_transposed, out_grad) if needed[1] else None
    else:
        x_grad = matmul(out_grad, w_transposed) if needed[0] else None
        w_grad = summed_to(w.shape, matmul(x_transposed, out_grad)) if needed[1] else None
    return x_grad, w_grad, summed_to(w.shape[1:], out_grad) if needed[2] else None
