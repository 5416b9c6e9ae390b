"""Raw devices: where arrays live, the namespace that computes on them, the threads that share work."""

from needle.backend.cpu_device import *  # noqa: F403
from needle.backend.cuda_device import *  # noqa: F403
from needle.backend.device import *  # noqa: F403
from needle.backend.dlpack import *  # noqa: F403
from needle.backend.kernel_table import *  # noqa: F403
from needle.backend.malloc import keep_freed_memory
from needle.backend.registry import *  # noqa: F403

keep_freed_memory()
