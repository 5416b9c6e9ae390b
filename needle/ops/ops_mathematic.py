"""The course's module of mathematical ops, under its names; the ops themselves lie in the files beside this one."""

from needle.ops.arithmetic import (
    AddScalar,
    DivScalar,
    EWiseAdd,
    EWiseDiv,
    EWiseMul,
    MulScalar,
    Negate,
    PowerScalar,
    add,
    add_scalar,
    divide,
    divide_scalar,
    mul_scalar,
    multiply,
    negate,
    power_scalar,
)
from needle.ops.conv import conv
from needle.ops.elementwise import EWisePow, Exp, Log, ReLU, Tanh, exp, log, power, relu, tanh
from needle.ops.joining import Split, Stack, split, stack
from needle.ops.linalg import MatMul, matmul
from needle.ops.reduce import Summation, summation
from needle.ops.shape import (
    BroadcastTo,
    Dilate,
    Flip,
    Reshape,
    UnDilate,
    broadcast_to,
    dilate,
    flip,
    reshape,
    transpose,
    undilate,
)


class Conv:
    """`conv` with its options first: `Conv(stride, padding)(x, weight)`; unlike that of `conv`, its padding is 0."""

    def __init__(self, stride=1, padding=0):
        self.stride, self.padding = stride, padding

    def __call__(self, x, weight):
        return conv(x, weight, self.stride, self.padding)


class Transpose:
    """`transpose` with its axes first: `Transpose(axes)(x)`."""

    def __init__(self, axes=None):
        self.axes = axes

    def __call__(self, x):
        return transpose(x, self.axes)


__all__ = [
    "AddScalar",
    "BroadcastTo",
    "Conv",
    "Dilate",
    "DivScalar",
    "EWiseAdd",
    "EWiseDiv",
    "EWiseMul",
    "EWisePow",
    "Exp",
    "Flip",
    "Log",
    "MatMul",
    "MulScalar",
    "Negate",
    "PowerScalar",
    "ReLU",
    "Reshape",
    "Split",
    "Stack",
    "Summation",
    "Tanh",
    "Transpose",
    "UnDilate",
    "add",
    "add_scalar",
    "broadcast_to",
    "conv",
    "dilate",
    "divide",
    "divide_scalar",
    "exp",
    "flip",
    "log",
    "matmul",
    "mul_scalar",
    "multiply",
    "negate",
    "power",
    "power_scalar",
    "relu",
    "reshape",
    "split",
    "stack",
    "summation",
    "tanh",
    "transpose",
    "undilate",
]
