"""Data: datasets of items, transforms of images, text as word ids, and the loader that makes batches of tensors."""

from typing import TYPE_CHECKING

from needle.data.cifar import *
from needle.data.csv import *
from needle.data.dataset import *
from needle.data.digits import *
from needle.data.idx import *
from needle.data.image_folder import *
from needle.data.images import *
from needle.data.loader import *
from needle.data.mat import *
from needle.data.norb import *
from needle.data.npz import *
from needle.data.parts import *
from needle.data.pixels import *
from needle.data.ptb import *
from needle.data.sampler import *
from needle.data.segmentation import *
from needle.data.shard import *
from needle.data.stl10 import *
from needle.data.svhn import *
from needle.data.transforms import *
from needle.data.workers import *
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
