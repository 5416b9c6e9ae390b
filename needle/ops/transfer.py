"""The way from one device to another."""

from __future__ import annotations

from needle import check
from needle.autograd import TensorOp
from needle.backend_ndarray import BackendDevice
from needle.lazy import Spec
from needle.ops.operand import tensor


class To(TensorOp):
    """x on another device; its gradient goes back to that of x."""

    reads_inputs = False

    def __init__(self, device):
        self.device = device

    def compute(self, x):
        return self.device.asarray(x)

    def infer(self, x):
        return Spec(x.shape, x.dtype)

    def gradient(self, out_grad, node):
        return to(out_grad, node.inputs[0].device)


def to(x, device):
    """x on `device`: x itself where it is there, else a copy; gradients flow back."""
    x = tensor("to", x)
    check.instance("to", "device", device, BackendDevice)
    return x if x.device == device else To(device)(x)
