"""Data: datasets of items, transforms of images, text as word ids, and the loader that makes batches of tensors."""

from typing import TYPE_CHECKING

from needle.data import cifar, dataset, digits, idx, loader, ptb, transforms
from needle.data.cifar import *
from needle.data.dataset import *
from needle.data.digits import *
from needle.data.idx import *
from needle.data.loader import *
from needle.data.ptb import *
from needle.data.transforms import *

if not TYPE_CHECKING:  # type checkers re-export star imports, and cannot read a computed list
    __all__ = [name for file in (cifar, dataset, digits, idx, loader, ptb, transforms) for name in file.__all__]
