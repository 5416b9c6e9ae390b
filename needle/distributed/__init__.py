"""Several processes that train one network: each computes a part of every batch."""

from typing import TYPE_CHECKING

from needle.backend.communicator import *
from needle.distributed.gradients import *
from needle.distributed.joining import join as join
from needle.distributed.launch import launch as launch
from needle.distributed.launchers import Launched as Launched
from needle.distributed.launchers import launched as launched
from needle.distributed.processes import WorkerDied as WorkerDied
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())
