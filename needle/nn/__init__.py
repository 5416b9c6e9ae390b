"""Neural networks: modules, which hold parameters, and in `functional` the functions under torch's names."""

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

__all__ = ["functional"]
__all__ += activation.__all__
__all__ += attention.__all__
__all__ += container.__all__
__all__ += conv.__all__
__all__ += dropout.__all__
__all__ += embedding.__all__
__all__ += flatten.__all__
__all__ += linear.__all__
__all__ += loss.__all__
__all__ += module.__all__
__all__ += norm.__all__
__all__ += pad.__all__
__all__ += pool.__all__
__all__ += recurrent.__all__
__all__ += resampling.__all__
__all__ += similarity.__all__
