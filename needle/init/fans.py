"""Initialisers that scale with a layer's fans, the numbers of inputs and outputs of one unit.

Xavier: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), eq. 12
and 16. Kaiming: He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), eq. 10.
"""

from __future__ import annotations

import math

from needle import check
from needle.init.fill import rand, randn

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def conv_fans(shape):
    """The fans of a convolution weight (O, C/G, *K): what one output reads, C/G·K, and what one input feeds, O·K.

    >>> conv_fans((8, 3, 5, 5))
    (75, 200)
    """
    if len(shape) < 3:
        raise ValueError(f"conv_fans: shape must be (O, C/G, *K), but got {tuple(shape)}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def xavier_uniform(fan_in, fan_out, gain=1.0, shape=None, **options):
    """Uniform within ± gain · sqrt(6 / (fan_in + fan_out)), of `shape` or (fan_in, fan_out)."""
    bound = gain * math.sqrt(6 / _fans("xavier_uniform", fan_in + fan_out))
    return rand(*(shape or (fan_in, fan_out)), low=-bound, high=bound, **options)


def xavier_normal(fan_in, fan_out, gain=1.0, shape=None, **options):
    """Normal with std gain · sqrt(2 / (fan_in + fan_out)), of `shape` or (fan_in, fan_out)."""
    std = gain * math.sqrt(2 / _fans("xavier_normal", fan_in + fan_out))
    return randn(*(shape or (fan_in, fan_out)), std=std, **options)


def kaiming_uniform(fan_in, fan_out, shape=None, nonlinearity="relu", **options):
    """Uniform within ± gain · sqrt(3 / fan_in), of `shape` or (fan_in, fan_out)."""
    bound = _gain("kaiming_uniform", nonlinearity) * math.sqrt(3 / _fans("kaiming_uniform", fan_in))
    return rand(*(shape or (fan_in, fan_out)), low=-bound, high=bound, **options)


def kaiming_normal(fan_in, fan_out, shape=None, nonlinearity="relu", **options):
    """Normal with std gain / sqrt(fan_in), of `shape` or (fan_in, fan_out)."""
    std = _gain("kaiming_normal", nonlinearity) / math.sqrt(_fans("kaiming_normal", fan_in))
    return randn(*(shape or (fan_in, fan_out)), std=std, **options)


def _gain(op, nonlinearity):
    return GAINS[check.one_of(op, "nonlinearity", nonlinearity, GAINS)]


def _fans(op, fans):
    return check.integer(op, "fan", fans, least=1)
