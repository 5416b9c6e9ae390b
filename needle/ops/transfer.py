"""Moving tensors between devices."""

from __future__ import annotations

from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import Device
from needle.graph import Spec
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


def to(x: TensorLike, device: Device) -> Tensor:
    """x on `device`, of the same shape and dtype: x itself if it is there, else a copy. Gradients flow back.

    Raises `TypeError` unless `device` is a device, `RuntimeError` if it cannot be used.
    """
    x = tensor("to", x)
    check.instance("to", "device", device, Device)
    return x if x.device == device else To(device)(x)
