"""Optimizers move parameters against their gradients; `lr_scheduler` has schedules of their learning rates."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.optim import lr_scheduler
from needle.optim.adam import *
from needle.optim.adam_variants import *
from needle.optim.average import *
from needle.optim.optimizer import *
from needle.optim.rmsprop import *
from needle.optim.sgd import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
