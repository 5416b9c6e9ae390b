"""Networks: functions under torch's names in `functional`, and modules that hold their parameters."""

from needle.nn import functional
from needle.nn.layers import (
    BatchNorm1d,
    BatchNorm2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    Identity,
    Linear,
    ReLU,
)
from needle.nn.module import Module, Parameter, Residual, Sequential
from needle.nn.windows import AvgPool2d, Conv1d, Conv2d, Conv3d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "functional",
]
