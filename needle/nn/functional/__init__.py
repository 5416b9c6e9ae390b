"""Functions of neural networks under torch's names, composed of ops; nothing here defines an op."""

from typing import TYPE_CHECKING

from needle.nn.functional import activation as _activation
from needle.nn.functional import attention as _attention
from needle.nn.functional import conv as _conv
from needle.nn.functional import dropout as _dropout
from needle.nn.functional import embedding as _embedding
from needle.nn.functional import linear as _linear
from needle.nn.functional import loss as _loss
from needle.nn.functional import norm as _norm
from needle.nn.functional import pad as _pad
from needle.nn.functional import pool as _pool
from needle.nn.functional import resampling as _resampling
from needle.nn.functional import similarity as _similarity
from needle.nn.functional.activation import *
from needle.nn.functional.attention import *
from needle.nn.functional.conv import *
from needle.nn.functional.dropout import *  # a function may share its file's name: on the package, the function wins
from needle.nn.functional.embedding import *
from needle.nn.functional.linear import *
from needle.nn.functional.loss import *
from needle.nn.functional.norm import *
from needle.nn.functional.pad import *
from needle.nn.functional.pool import *
from needle.nn.functional.resampling import *
from needle.nn.functional.similarity import *

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    _FILES = (
        _activation, _attention, _conv, _dropout, _embedding, _linear, _loss, _norm, _pad, _pool, _resampling,
        _similarity,
    )  # fmt: skip
    __all__ = [name for file in _FILES for name in file.__all__]
