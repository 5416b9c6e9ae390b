"""Networks: functions under torch's names in `functional`, and modules that hold their parameters."""

from needle.nn import functional
from needle.nn.activations import ReLU
from needle.nn.convs import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Fold,
    Unfold,
)
from needle.nn.layers import Dropout, Flatten, Identity, Linear
from needle.nn.losses import CrossEntropyLoss
from needle.nn.module import Module, Parameter, Residual, Sequential
from needle.nn.norms import BatchNorm1d, BatchNorm2d
from needle.nn.pools import AvgPool2d, MaxPool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Fold",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Unfold",
    "functional",
]
