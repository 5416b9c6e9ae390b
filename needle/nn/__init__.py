"""Neural networks: modules, which hold parameters, and functions under torch's names in `functional`."""

from typing import TYPE_CHECKING

from needle.exports import public_names as _public_names
from needle.nn import functional as functional
from needle.nn import utils as utils
from needle.nn.activation import *
from needle.nn.attention import *
from needle.nn.container import *
from needle.nn.conv import *
from needle.nn.dropout import *
from needle.nn.embedding import *
from needle.nn.embedding_loss import *
from needle.nn.flatten import *
from needle.nn.gru import *
from needle.nn.likelihood_loss import *
from needle.nn.linear import *
from needle.nn.loss import *
from needle.nn.lp_pool import *
from needle.nn.margin_loss import *
from needle.nn.module import *
from needle.nn.norm import *
from needle.nn.pad import *
from needle.nn.parameter import *
from needle.nn.piecewise_activation import *
from needle.nn.pool import *
from needle.nn.recurrent import *
from needle.nn.resampling import *
from needle.nn.scale_norm import *
from needle.nn.similarity import *
from needle.nn.smooth_activation import *
from needle.nn.unpool import *

if not TYPE_CHECKING:
    __all__ = ["functional", "utils", *_public_names(globals())]
