"""Metrics: accuracy, confusion matrices, precision, recall and means over the batches of an epoch."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.metrics.classification import *
from needle.metrics.confusion import *
from needle.metrics.mean import *
from needle.metrics.metric import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
