"""Raw devices: where arrays live, the namespace that computes on them, the threads that share work."""

from needle.backend.cpu_device import *
from needle.backend.cuda_device import *
from needle.backend.device import *
from needle.backend.dlpack import *
from needle.backend.kernel_table import *
from needle.backend.malloc import keep_freed_memory
from needle.backend.registry import *

keep_freed_memory()
