"""Activations: each element by itself.

They are needle's where the standard and torch agree. Attributes are float32, so that 0.01 reads 0.009999999776….
"""

from __future__ import annotations

from needle import ops
from needle.autograd import Tensor
from needle.nn import functional as F
from needle.onnx.operators.arguments import elementwise
from needle.onnx.registry import Node, operator

__all__: list[str] = []

elementwise({
    "HardSwish": F.hardswish, "Mish": F.mish, "Relu": ops.relu, "Sigmoid": ops.sigmoid, "Softplus": ops.softplus,
    "Softsign": F.softsign, "Tanh": ops.tanh,
})  # fmt: skip


@operator("Elu")
def elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node["alpha"])


@operator("Selu")
def selu(node: Node, x: Tensor) -> Tensor:
    return ops.multiply(F.elu(x, node["alpha"]), node["gamma"])


@operator("Celu")
def celu(node: Node, x: Tensor) -> Tensor:
    return F.celu(x, node["alpha"])


@operator("Gelu")
def gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, node["approximate"])


@operator("Swish")
def swish(node: Node, x: Tensor) -> Tensor:
    return x * ops.sigmoid(x * node["alpha"])


@operator("SwiGLU")
def swiglu(node: Node, gate: Tensor, x: Tensor) -> Tensor:
    return swish(node, gate) * x


@operator("HardSigmoid")
def hardsigmoid(node: Node, x: Tensor) -> Tensor:
    return F.hardtanh(x * node["alpha"] + node["beta"], 0, 1)


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node["alpha"])


@operator("ThresholdedRelu")
def thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return ops.where(ops.greater(x, node["alpha"]), x, 0)  # NaN is no greater


@operator("PRelu", since=7)
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """x where positive, else slope · x; the slope broadcasts to x."""
    if x.dtype.kind == "f":
        return ops.relu(x) + slope * ops.clip(x, None, 0)
    return ops.where(ops.less(x, 0), slope * x, x)


@operator("PRelu")
def prelu_of_channels(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """`prelu` with one slope, or one for each channel of x (N, C, …)."""
    return F.prelu(x, ops.reshape(slope, (slope.size,)))


@operator("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    """x moved towards 0 by `bias` where |x| exceeds `lambd`, else 0. Integers lose the fraction of the result."""
    bias, bound = node["bias"], node["lambd"]
    if x.dtype.kind != "f" and bias.is_integer():
        bias = int(bias)  # exact, where float32 is not
    moved = ops.where(ops.greater(x, bound), x - bias, ops.where(ops.less(x, -bound), x + bias, 0))
    return moved.astype(x.dtype)
