"""Neural networks: modules, which hold parameters, and functions under torch's names in `functional`."""

from typing import TYPE_CHECKING

from needle.nn import (
    activation,
    attention,
    container,
    conv,
    dropout,
    embedding,
    flatten,
    functional,
    linear,
    loss,
    module,
    norm,
    pad,
    pool,
    recurrent,
    resampling,
    similarity,
)
from needle.nn.activation import *
from needle.nn.attention import *
from needle.nn.container import *
from needle.nn.conv import *
from needle.nn.dropout import *
from needle.nn.embedding import *
from needle.nn.flatten import *
from needle.nn.linear import *
from needle.nn.loss import *
from needle.nn.module import *
from needle.nn.norm import *
from needle.nn.pad import *
from needle.nn.pool import *
from needle.nn.recurrent import *
from needle.nn.resampling import *
from needle.nn.similarity import *

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    _FILES = (
        activation, attention, container, conv, dropout, embedding, flatten, linear, loss, module, norm, pad,
        pool, recurrent, resampling, similarity,
    )  # fmt: skip
    __all__ = ["functional", *(name for file in _FILES for name in file.__all__)]
