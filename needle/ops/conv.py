"""Convolution: three ops, each the derivative of the others.

⟨y, conv(x, w)⟩ is linear in x, in w and in y. Its partial derivatives are `Correlate`, `CorrelateTranspose` and
`CorrelateWeight`, and the gradient of each is the other two.
"""

from __future__ import annotations

import math
from dataclasses import replace

from needle import check, kernels
from needle.autograd import Tensor, TensorOp, TensorTupleOp
from needle.grad_mode import is_grad_enabled
from needle.kernels import Window, same_padding
from needle.lazy import Spec
from needle.ops.operand import tensor
from needle.ops.reduce import summation
from needle.ops.shape import pad, permute


class Correlate(TensorOp):
    """Cross-correlate, and add a bias (O,) if there is one: x (N, C, *S), w (O, C/G, *K) -> y (N, O, *P)."""

    reads_inputs = slice(2)

    def __init__(self, window):
        self.window = window

    def compute(self, x, w, *bias):
        return kernels.correlate(x, w, self.window, *bias)

    def infer(self, x, w, *bias):
        return Spec((x.shape[0], w.shape[0], *self.window.output(x.shape[2:], w.shape[2:])), x.dtype)

    def gradient(self, out_grad, node):
        x, w, *bias = node.inputs
        if x.requires_grad and w.requires_grad and not is_grad_enabled():
            both = CorrelateGradients(self.window)(out_grad, x, w)
            grads = both[0], both[1]
        else:
            grads = (
                CorrelateTranspose(self.window, x.shape[2:])(out_grad, w) if x.requires_grad else None,
                CorrelateWeight(self.window, w.shape[2:])(x, out_grad) if w.requires_grad else None,
            )
        return *grads, *(summation(out_grad, (0, *range(2, x.ndim))) if b.requires_grad else None for b in bias)


class CorrelateGradients(TensorTupleOp):
    """Both at once, on two threads: y (N, O, *P), x (N, C, *S), w (O, C/G, *K) -> those in x and in w. A constant."""

    differentiable = False

    def __init__(self, window):
        self.window = window

    def compute(self, y, x, w):
        return kernels.correlate_gradients(x, w, y, self.window)

    def infer(self, y, x, w):
        return x, w


class Turn(TensorOp):
    """The same values (N, C, *S) in batch-innermost memory order."""

    reads_inputs = False

    def compute(self, x):
        return kernels.turned(x)

    def infer(self, x):
        return x

    def gradient(self, out_grad, node):
        return out_grad


class CorrelateTranspose(TensorOp):
    """The derivative in x, of sizes `size`: y (N, O, *P), w (O, C/G, *K) -> x (N, C, *S)."""

    def __init__(self, window, size):
        self.window, self.size = window, size

    def compute(self, y, w):
        return kernels.correlate_transpose(y, w, self.window, self.size)

    def infer(self, y, w):
        return Spec((y.shape[0], w.shape[1] * self.window.groups, *self.size), y.dtype)

    def gradient(self, out_grad, node):
        y, w = node.inputs
        return (
            Correlate(self.window)(out_grad, w) if y.requires_grad else None,
            CorrelateWeight(self.window, w.shape[2:])(out_grad, y) if w.requires_grad else None,
        )


class CorrelateWeight(TensorOp):
    """The derivative in w, of sizes `kernel`: x (N, C, *S), y (N, O, *P) -> w (O, C/G, *K)."""

    def __init__(self, window, kernel):
        self.window, self.kernel = window, kernel

    def compute(self, x, y):
        return kernels.correlate_weight(x, y, self.window, self.kernel)

    def infer(self, x, y):
        return Spec((y.shape[1], x.shape[1] // self.window.groups, *self.kernel), x.dtype)

    def gradient(self, out_grad, node):
        x, y = node.inputs
        return (
            CorrelateTranspose(self.window, x.shape[2:])(y, out_grad) if x.requires_grad else None,
            Correlate(self.window)(x, out_grad) if y.requires_grad else None,
        )


class Unfold(TensorOp):
    """The columns of x: (N, C, *S) -> (N, C·K, P)."""

    reads_inputs = False

    def __init__(self, window, kernel):
        self.window, self.kernel = window, kernel

    def compute(self, x):
        return kernels.unfold(x, self.window, self.kernel)

    def infer(self, x):
        positions = self.window.output(x.shape[2:], self.kernel)
        return Spec((x.shape[0], x.shape[1] * math.prod(self.kernel), math.prod(positions)), x.dtype)

    def gradient(self, out_grad, node):
        return Fold(self.window, self.kernel, node.inputs[0].shape[2:])(out_grad)


class Fold(TensorOp):
    """The transpose of Unfold: each column added back in its place: (N, C·K, P) -> (N, C, *S)."""

    reads_inputs = False

    def __init__(self, window, kernel, size):
        self.window, self.kernel, self.size = window, kernel, size

    def compute(self, columns):
        return kernels.fold(columns, self.window, self.kernel, self.size)

    def infer(self, columns):
        return Spec((columns.shape[0], columns.shape[1] // math.prod(self.kernel), *self.size), columns.dtype)

    def gradient(self, out_grad, node):
        return Unfold(self.window, self.kernel)(out_grad)


def convolve(op, x, w, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate x (N, C, *S) with w (O, C/G, *K) over any number of spatial axes, plus bias (O,): (N, O, *P).

    Each option is one integer or one for each spatial axis; `padding` may also be a pair (before, after) for each axis,
    "valid" (none) or "same" (as many outputs as inputs, at stride 1). With padding on both sides
    P = floor((S + 2·padding - dilation·(K - 1) - 1) / stride) + 1. `op` is the caller's name, for its errors:
    ValueError where shapes or options do not fit together, TypeError where dtypes do not.
    """
    x, w = tensor(op, x), tensor(op, w)
    rank = w.ndim - 2
    if rank < 1 or x.ndim != w.ndim:
        raise ValueError(
            f"{op}: x (N, C, *S) and weight (O, C/G, *K) must agree in rank, but got {x.shape} and {w.shape}"
        )
    if isinstance(padding, str):
        padding = named_padding(op, padding, w.shape[2:], stride, dilation)
    window = Window.make(op, rank, stride, padding, dilation, groups)
    if w.shape[1] * window.groups != x.shape[1]:
        raise ValueError(
            f"{op}: weight {w.shape} reads {w.shape[1]} channels per group x groups={window.groups}, "
            f"but x {x.shape} has {x.shape[1]} channels"
        )
    if w.shape[0] % window.groups:
        raise ValueError(f"{op}: groups must divide the {w.shape[0]} out-channels of weight, but got {window.groups}")
    if not w.shape[0]:
        raise ValueError(f"{op}: weight must have at least 1 out-channel, but got {w.shape}")
    check_fit(op, x, w.shape[2:], window)
    check_floats(op, x=x, weight=w)
    if type(x) is Tensor and x.op is None and kernels.is_turned_by_blocks(x.array):
        x = Turn()(x)  # images: once for the convolution and its gradient, 2 % of a step of ResNet9
    return Correlate(window)(x, w) if bias is None else Correlate(window)(x, w, bias)


def convolve_transpose(op, x, w, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """The transpose of `convolve` in its input: x (N, C, *P), w (C, O/G, *K) -> (N, O, *S).

    S = (P - 1)·stride - 2·padding + dilation·(K - 1) + output_padding + 1: of all sizes that a convolution with this
    window brings to P the smallest, and `output_padding` more at the end. Errors as in `convolve`.
    """
    x, w = tensor(op, x), tensor(op, w)
    rank = w.ndim - 2
    if rank < 1 or x.ndim != w.ndim:
        raise ValueError(
            f"{op}: x (N, C, *P) and weight (C, O/G, *K) must agree in rank, but got {x.shape} and {w.shape}"
        )
    window = Window.make(op, rank, stride, padding, dilation, groups)
    extra = check.sizes(op, "output_padding", output_padding, rank)
    for more, s, d in zip(extra, window.stride, window.dilation, strict=True):
        if more >= max(s, d):
            raise ValueError(
                f"{op}: output_padding must be below stride or dilation, but got {extra} for stride {window.stride} "
                f"and dilation {window.dilation}"
            )
    if w.shape[0] != x.shape[1]:
        raise ValueError(f"{op}: weight {w.shape} reads {w.shape[0]} channels, but x {x.shape} has {x.shape[1]}")
    if w.shape[0] % window.groups:
        raise ValueError(f"{op}: groups must divide the {w.shape[0]} in-channels of weight, but got {window.groups}")
    check_sizes(op, x, w.shape[2:])
    least = window.input(x.shape[2:], w.shape[2:])
    size = tuple(n + more for n, more in zip(least, extra, strict=True))
    if min(size) < 1:
        raise ValueError(f"{op}: the output must have a size, but x {x.shape} and this window give {size}")
    check_floats(op, x=x, weight=w)
    # More elements at the end are less padding cut off there; what goes beyond the last window is zeros.
    pairs = tuple(
        (min(before, n + before + after), max(0, after - more))
        for n, (before, after), more in zip(least, window.padding, extra, strict=True)
    )
    window = replace(window, padding=pairs)
    reached = window.input(x.shape[2:], w.shape[2:])
    beyond = ((0, n - m) for n, m in zip(size, reached, strict=True))
    return pad(CorrelateTranspose(window, reached)(x, w), ((0, 0), (0, 0), *beyond))


def to_columns(op, x, kernel, *, dilation=1, padding=0, stride=1):
    """What the kernel meets at each position: (N, C, *S) -> (N, C·K, P), channels and kernel positions row-major."""
    x = tensor(op, x)
    window = Window.make(op, len(kernel), stride, padding, dilation)
    check_fit(op, x, kernel, window)
    check_floats(op, x=x)
    return Unfold(window, kernel)(x)


def from_columns(op, x, size, kernel, *, dilation=1, padding=0, stride=1):
    """The transpose of `to_columns`: each column added back in its place: (N, C·K, P) -> (N, C, *S), S = `size`."""
    x = tensor(op, x)
    window = Window.make(op, len(kernel), stride, padding, dilation)
    positions, taps = window.output(size, kernel), math.prod(kernel)
    if min(positions) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded output, but its extent is {window.extent(kernel)} "
            f"and that of output_size {size} is {window.padded(size)}"
        )
    if x.ndim != 3 or x.shape[1] % taps or x.shape[2] != math.prod(positions):
        raise ValueError(
            f"{op}: x must be (N, C·{taps}, {' x '.join(map(str, positions))}) for output_size {size}, "
            f"but got {x.shape}"
        )
    check_floats(op, x=x)
    return Fold(window, kernel, size)(x)


def conv(x, weight, stride=1, padding=1):
    """The course's convolution: x (N, H, W, C), weight (K, K, C, O) -> (N, P, P, O); its default padding is 1."""
    x, weight = tensor("conv", x), tensor("conv", weight)
    if x.ndim != 4 or weight.ndim != 4:
        raise ValueError(
            f"conv: x (N, H, W, C) and weight (K, K, C, O) are needed, but got {x.shape} and {weight.shape}"
        )
    y = convolve("conv", permute(x, (0, 3, 1, 2)), permute(weight, (3, 2, 0, 1)), stride=stride, padding=padding)
    return permute(y, (0, 2, 3, 1))


def named_padding(op, name, kernel, stride, dilation):
    """The padding that "valid" or "same" stands for, as pairs; "same" at another stride than 1 has no one meaning."""
    check.one_of(op, "padding", name, ("valid", "same"))
    rank = len(kernel)
    if name == "valid":
        return ((0, 0),) * rank
    if set(check.sizes(op, "stride", stride, rank, least=1)) != {1}:
        raise ValueError(
            f'{op}: padding="same" needs stride 1, but got stride={stride}; functional.same_padding gives the padding '
            "for ceil(size / stride) outputs"
        )
    return same_padding(kernel, kernel, (1,) * rank, check.sizes(op, "dilation", dilation, rank, least=1))


def check_sizes(op, x, kernel):
    """Refuse an empty input or kernel; only the batch and the channels may be empty."""
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{op}: the sizes of x must be at least 1, but got {x.shape}")
    if min(kernel) < 1:
        raise ValueError(f"{op}: kernel sizes must be at least 1, but got {kernel}")


def check_fit(op, x, kernel, window):
    """Refuse an empty input, and a kernel that is empty or larger than the padded input."""
    check_sizes(op, x, kernel)
    if min(window.output(x.shape[2:], kernel)) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded input, but its extent is {window.extent(kernel)} "
            f"and that of x {x.shape} is {window.padded(x.shape[2:])}"
        )


def check_floats(op, **tensors):
    """Refuse tensors that are not of one floating dtype, or not on one device."""
    devices = [t.device for t in tensors.values()]
    if any(device != devices[0] for device in devices):
        names, given = " and ".join(tensors), " and ".join(map(str, devices))
        raise TypeError(f"{op}: {names} must be on one device, but got {given}")
    dtypes = [t.dtype for t in tensors.values()]
    if any(dtype.kind != "f" or dtype != dtypes[0] for dtype in dtypes):
        names, given = " and ".join(tensors), " and ".join(map(str, dtypes))
        rule = "one floating dtype" if len(dtypes) > 1 else "a floating dtype"
        raise TypeError(f"{op}: {names} must have {rule}, but got {given}")
