"""Raw devices: where arrays live, the namespace that computes on them, the threads that share work."""

from typing import TYPE_CHECKING

from needle.backend.communicator import *
from needle.backend.cpu_device import *
from needle.backend.cuda_device import *
from needle.backend.device import *
from needle.backend.dlpack import *
from needle.backend.indices import *
from needle.backend.kernel_table import *
from needle.backend.malloc import keep_freed_memory as _keep_freed_memory
from needle.backend.random_state import *
from needle.backend.recording import *
from needle.backend.registry import *
from needle.backend.tf32 import *
from needle.backend.writable import *
from needle.exports import public_names as _public_names

if not TYPE_CHECKING:
    __all__ = _public_names(globals())

_keep_freed_memory()
