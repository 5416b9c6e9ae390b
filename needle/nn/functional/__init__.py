"""Functions of neural networks under torch's names, composed of ops; nothing here defines an op."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.nn.functional.activation import *
from needle.nn.functional.attention import *
from needle.nn.functional.conv import *
from needle.nn.functional.dropout import *  # a function may share its file's name: on the package, the function wins
from needle.nn.functional.embedding import *
from needle.nn.functional.embedding_loss import *
from needle.nn.functional.grid import *
from needle.nn.functional.likelihood_loss import *
from needle.nn.functional.linear import *
from needle.nn.functional.loss import *
from needle.nn.functional.lp_pool import *
from needle.nn.functional.margin_loss import *
from needle.nn.functional.norm import *
from needle.nn.functional.pad import *
from needle.nn.functional.piecewise_activation import *
from needle.nn.functional.pool import *
from needle.nn.functional.resampling import *
from needle.nn.functional.scale_norm import *
from needle.nn.functional.similarity import *
from needle.nn.functional.smooth_activation import *
from needle.nn.functional.unpool import *

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
