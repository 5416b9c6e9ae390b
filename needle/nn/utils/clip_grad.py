"""Gradients clipped by their norm and by value.

Gradients may be shared, so none is written to: each `.grad` is replaced by a new constant of the same dtype. Infinities
and NaN go where torch sends them, without a warning of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from needle import check, kernels
from needle.autograd import Tensor
from needle.backend import device_of, refuse, without_warnings, xp
from needle.graph import check_one_device

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)) and return norm, a constant tensor of shape ().

    norm is that of all gradients taken as one vector: (Σ|g|^p)^(1/p) with p = `norm_type`, max|g| for infinity, and 0
    without gradients. Powers of float16 are summed in float32. An infinite norm sends finite gradients to 0 and
    infinite ones to NaN; a norm of NaN sends all to NaN.

    Raises ValueError if `max_norm` is negative, if `norm_type` is not above 0, or if the norm is not finite and
    `error_if_nonfinite` is set; TypeError if the gradients are on different devices.
    """
    op = "clip_grad_norm_"
    max_norm = check.number(op, "max_norm", max_norm, least=0)
    norm_type = check.number(op, "norm_type", norm_type, above=0)
    check.instance(op, "error_if_nonfinite", error_if_nonfinite, bool)
    tensors = _with_gradient(op, parameters)
    grads = [tensor.grad.array for tensor in tensors]
    if not grads:
        return Tensor(0.0, requires_grad=False)
    check_one_device(op, [tensor.grad for tensor in tensors])
    with without_warnings():
        norm, clipped = kernels.clip_norm(grads[0], grads, max_norm, norm_type)
        if error_if_nonfinite:
            refuse(op, "a norm that is read on the host")
            if not math.isfinite(norm.item()):
                raise ValueError(f"{op}: the norm must be finite to clip by it, but got {norm.item()}")
    for tensor, grad in zip(tensors, clipped, strict=True):
        tensor.grad = Tensor.make_const(grad)
    return Tensor.make_const(device_of(norm).asarray(norm))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip each element of all gradients to [-clip_value, clip_value]; NaN stays.

    Raises ValueError if `clip_value` is negative.
    """
    op = "clip_grad_value_"
    clip_value = check.number(op, "clip_value", clip_value, least=0)
    for tensor in _with_gradient(op, parameters):
        with without_warnings():  # float16 may not hold the value
            grad = tensor.grad.array
            tensor.grad = Tensor.make_const(xp(grad).clip(grad, -clip_value, clip_value))


def _with_gradient(op: str, parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    """The parameters that have a gradient."""
    if not isinstance(parameters, Iterable):
        raise TypeError(f"{op}: parameters must be tensors, but got {type(parameters).__name__}")
    tensors = [parameters] if isinstance(parameters, Tensor) else [*parameters]
    return [x for x in tensors if check.instance(op, "each of parameters", x, Tensor).grad is not None]
