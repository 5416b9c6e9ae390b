"""Functions of neural networks under torch's names, composed of ops; nothing here defines an op."""

from needle.nn.functional.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    fold,
    same_padding,
    unfold,
)
from needle.nn.functional.dropout import dropout
from needle.nn.functional.loss import cross_entropy
from needle.nn.functional.pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cross_entropy",
    "dropout",
    "fold",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "same_padding",
    "unfold",
]
