"""Initializers that scale with the fans of a layer: the numbers of inputs and outputs of one unit.

Xavier: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), equations
12 and 16. Kaiming: He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 10.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict, Unpack

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike
from needle.init.random import rand, randn
from needle.ops.operand import number

__all__ = ["conv_fans", "kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform"]

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


class InitOptions(TypedDict, total=False):
    """The options that all initializers share."""

    device: Device | None
    dtype: DTypeLike
    requires_grad: bool


def conv_fans(shape: Sequence[int]) -> tuple[int, int]:
    """The fans of a convolution weight (O, C/G, *K): (C/G·K inputs per output, O·K outputs per input).

    Raises `ValueError` if the shape has fewer than 3 axes.

    >>> conv_fans((8, 3, 5, 5))
    (75, 200)
    """
    if len(shape) < 3:
        raise ValueError(f"conv_fans: shape must be (O, C/G, *K), but got {tuple(shape)}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def xavier_uniform(
    fan_in: int, fan_out: int, gain: float = 1.0, shape: Sequence[int] | None = None, **options: Unpack[InitOptions]
) -> Tensor:
    """Uniform draws within ± gain · sqrt(6 / (fan_in + fan_out)), of `shape` or (fan_in, fan_out).

    The variance is gain² · 2 / (fan_in + fan_out). The options are `device`, `dtype` and `requires_grad`, as in `rand`.
    Source: Glorot and Bengio (2010), equation 16.

    Raises `TypeError` or `ValueError` if the sum of the fans is not a positive integer, and as `rand` does.
    """
    bound = abs(number("xavier_uniform", gain)) * math.sqrt(6 / _fan("xavier_uniform", fan_in + fan_out))
    return rand(*_shape(shape, fan_in, fan_out), low=-bound, high=bound, **options)


def xavier_normal(
    fan_in: int, fan_out: int, gain: float = 1.0, shape: Sequence[int] | None = None, **options: Unpack[InitOptions]
) -> Tensor:
    """Normal draws with std gain · sqrt(2 / (fan_in + fan_out)), of `shape` or (fan_in, fan_out).

    Options and errors as in `xavier_uniform`. Source: Glorot and Bengio (2010), equation 12.
    """
    std = abs(number("xavier_normal", gain)) * math.sqrt(2 / _fan("xavier_normal", fan_in + fan_out))
    return randn(*_shape(shape, fan_in, fan_out), std=std, **options)


def kaiming_uniform(
    fan_in: int,
    fan_out: int,
    shape: Sequence[int] | None = None,
    nonlinearity: str = "relu",
    **options: Unpack[InitOptions],
) -> Tensor:
    """Uniform draws within ± gain · sqrt(3 / fan_in), of `shape` or (fan_in, fan_out).

    The variance is gain² / fan_in. The gain is 1 for `nonlinearity` "linear" and "sigmoid", 5/3 for "tanh", sqrt(2) for
    "relu". The options are `device`, `dtype` and `requires_grad`, as in `rand`. Source: He, Zhang, Ren and Sun (2015),
    equation 10.

    Raises `TypeError` or `ValueError` if `fan_in` is not a positive integer, `ValueError` for another nonlinearity, and
    as `rand` does.
    """
    bound = _gain("kaiming_uniform", nonlinearity) * math.sqrt(3 / _fan("kaiming_uniform", fan_in))
    return rand(*_shape(shape, fan_in, fan_out), low=-bound, high=bound, **options)


def kaiming_normal(
    fan_in: int,
    fan_out: int,
    shape: Sequence[int] | None = None,
    nonlinearity: str = "relu",
    **options: Unpack[InitOptions],
) -> Tensor:
    """Normal draws with std gain / sqrt(fan_in), of `shape` or (fan_in, fan_out).

    Gains, options, errors and source as in `kaiming_uniform`.
    """
    std = _gain("kaiming_normal", nonlinearity) / math.sqrt(_fan("kaiming_normal", fan_in))
    return randn(*_shape(shape, fan_in, fan_out), std=std, **options)


def _gain(op: str, nonlinearity: str) -> float:
    return GAINS[check.one_of(op, "nonlinearity", nonlinearity, GAINS)]


def _fan(op: str, fan: int) -> int:
    return check.integer(op, "fan", fan, least=1)


def _shape(shape: Sequence[int] | None, fan_in: int, fan_out: int) -> Sequence[int]:
    """`shape`, or the default one."""
    return (fan_in, fan_out) if shape is None else shape
