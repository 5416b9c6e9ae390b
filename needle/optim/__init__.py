"""Optimizers: SGD, Adam and AdamW move parameters against their gradients."""

from typing import TYPE_CHECKING

from needle.optim import adam, optimizer, sgd
from needle.optim.adam import *
from needle.optim.optimizer import *
from needle.optim.sgd import *

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    __all__ = [name for file in (adam, optimizer, sgd) for name in file.__all__]
