"""Training: the loop, its callbacks, and all that a run needs to go on after it was stopped."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.training.auto import *
from needle.training.bar import *
from needle.training.checkpoints import *
from needle.training.evaluation import *
from needle.training.figures import *
from needle.training.fitting import *
from needle.training.signals import *
from needle.training.state import *
from needle.training.stepper import *
from needle.training.stopping import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
