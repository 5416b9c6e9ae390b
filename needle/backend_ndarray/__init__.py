"""The course's module of strided arrays, on the devices of `needle.backend`."""

from needle.backend_ndarray.buffer import *
from needle.backend_ndarray.creation import *
from needle.backend_ndarray.device import *
from needle.backend_ndarray.ndarray import *
