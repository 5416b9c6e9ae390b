"""The course's module of strided arrays, on the devices of `needle.backend`."""

from needle.backend_ndarray.buffer import *  # noqa: F403
from needle.backend_ndarray.creation import *  # noqa: F403
from needle.backend_ndarray.device import *  # noqa: F403
from needle.backend_ndarray.ndarray import *  # noqa: F403
