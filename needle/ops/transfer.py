"""Moving tensors between devices."""

from __future__ import annotations

from typing import Any

from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import Device, DTypeLike
from needle.graph import Spec
from needle.ops.arithmetic import cast
from needle.ops.base import Array
from needle.ops.operand import tensor

__all__ = ["to"]


class To(TensorOp):
    """x on another device; the gradient goes back to the device of x."""

    saved_inputs = ()
    device: Device

    def __init__(self, device: Device) -> None:
        self.device = device

    def compute(self, x: Array) -> Array:
        return self.device.asarray(x)

    def infer(self, x: Any) -> Spec:
        return Spec(x.shape, x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Tensor:
        return To(node.inputs[0].device)(out_grad)


def to(x: TensorLike, device: Device | DTypeLike) -> Tensor:
    """x on `device`, of the same shape and dtype: x itself if it is there, else a copy. Gradients flow back.

    A dtype in its place casts as `x.astype` does. Raises `TypeError` unless it is a device or a dtype, `RuntimeError`
    if the device cannot be used.
    """
    x = tensor("to", x)
    if isinstance(device, Device):
        return x if x.device == device else To(device)(x)
    try:
        return cast(x, device)
    except TypeError as error:
        raise TypeError(f"to: device must be a Device or a dtype, but got {device!r}") from error
