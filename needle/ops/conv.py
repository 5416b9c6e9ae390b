"""Convolution: three ops, each the derivative of the others.

⟨y, conv(x, w)⟩ is linear in x, in w and in y. Its partial derivatives are `Conv`, `ConvTranspose` and `ConvWeight`, and
the gradient of each is the other two.
"""

from __future__ import annotations

from needle import kernels
from needle.autograd import TensorOp
from needle.kernels import Window
from needle.ops.operand import tensor
from needle.ops.shape import permute


class Conv(TensorOp):
    """Cross-correlate: x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)."""

    def __init__(self, window):
        self.window = window

    def compute(self, x, w):
        return kernels.correlate(x, w, self.window)

    def gradient(self, out_grad, node):
        x, w = node.inputs
        return (
            ConvTranspose(self.window, x.shape[2:])(out_grad, w) if x.requires_grad else None,
            ConvWeight(self.window, w.shape[2:])(x, out_grad) if w.requires_grad else None,
        )


class ConvTranspose(TensorOp):
    """The derivative in x, of sizes `size`: y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)."""

    def __init__(self, window, size):
        self.window, self.size = window, size

    def compute(self, y, w):
        return kernels.correlate_transpose(y, w, self.window, self.size)

    def gradient(self, out_grad, node):
        y, w = node.inputs
        return (
            Conv(self.window)(out_grad, w) if y.requires_grad else None,
            ConvWeight(self.window, w.shape[2:])(out_grad, y) if w.requires_grad else None,
        )


class ConvWeight(TensorOp):
    """The derivative in w, of sizes `kernel`: x (N, C, *S), y (N, O, *P) -> w (O, C/G, *K)."""

    def __init__(self, window, kernel):
        self.window, self.kernel = window, kernel

    def compute(self, x, y):
        return kernels.correlate_weight(x, y, self.window, self.kernel)

    def gradient(self, out_grad, node):
        x, y = node.inputs
        return (
            ConvTranspose(self.window, x.shape[2:])(y, out_grad) if x.requires_grad else None,
            Conv(self.window)(x, out_grad) if y.requires_grad else None,
        )


def convolve(op, x, w, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, *S) with w (O, C/G, *K) over any number of spatial axes: (N, O, *P).

    Each option is one integer or one for each spatial axis; P = floor((S + 2·padding - dilation·(K - 1) - 1) / stride)
    + 1. `op` is the caller's name, for its errors: ValueError where shapes or options do not fit together, TypeError
    where dtypes do not.
    """
    x, w = tensor(op, x), tensor(op, w)
    rank = w.ndim - 2
    if rank < 1 or x.ndim != w.ndim:
        raise ValueError(f"{op}: x (N, C, *S) and weight (O, C/G, *K) must agree in rank, got {x.shape} and {w.shape}")
    window = Window.make(op, rank, stride, padding, dilation, groups)
    if w.shape[1] * window.groups != x.shape[1]:
        raise ValueError(
            f"{op}: weight {w.shape} reads {w.shape[1]} channels per group x groups={window.groups}, "
            f"but x {x.shape} has {x.shape[1]} channels"
        )
    if w.shape[0] % window.groups:
        raise ValueError(f"{op}: groups must divide the {w.shape[0]} out-channels of weight, but got {window.groups}")
    check_fit(op, x, w.shape[2:], window)
    check_floats(op, x=x, weight=w)
    return Conv(window)(x, w)


def conv(x, weight, stride=1, padding=1):
    """The course's convolution: x (N, H, W, C), weight (K, K, C, O) -> (N, P, P, O); its default padding is 1."""
    x, weight = tensor("conv", x), tensor("conv", weight)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(f"conv: x (N, H, W, C) and weight (K, K, C, O) are needed, got {x.shape} and {weight.shape}")
    y = convolve("conv", permute(x, (0, 3, 1, 2)), permute(weight, (3, 2, 0, 1)), stride=stride, padding=padding)
    return permute(y, (0, 2, 3, 1))


def check_fit(op, x, kernel, window):
    """Refuse an empty input, and a kernel that is empty or larger than the padded input."""
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{op}: the sizes of x must be at least 1, but got {x.shape}")
    if min(kernel) < 1:
        raise ValueError(f"{op}: kernel sizes must be at least 1, but got {kernel}")
    if min(window.output(x.shape[2:], kernel)) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded input, but its extent is {window.extent(kernel)} "
            f"and that of x {x.shape} is {window.padded(x.shape[2:])}"
        )


def check_floats(op, **tensors):
    """Refuse tensors that are not of one floating dtype."""
    dtypes = [t.dtype for t in tensors.values()]
    if any(dtype.kind != "f" or dtype != dtypes[0] for dtype in dtypes):
        names, given = " and ".join(tensors), " and ".join(map(str, dtypes))
        raise TypeError(f"{op}: {names} must have one floating dtype, but got {given}")
