"""Functions of neural networks under torch's names, composed of ops; nothing here defines an op."""

from needle.nn.functional.convolution import conv1d, conv2d, conv3d
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
    "cross_entropy",
    "dropout",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]
