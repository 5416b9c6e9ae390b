"""Schedules of the learning rate, with torch's names: each `step()` sets the `lr` of an optimizer's groups."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.optim.lr_scheduler.base import *
from needle.optim.lr_scheduler.cosine import *
from needle.optim.lr_scheduler.factors import *
from needle.optim.lr_scheduler.one_cycle import *
from needle.optim.lr_scheduler.plateau import *
from needle.optim.lr_scheduler.sequence import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
