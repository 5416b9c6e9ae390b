"""The course's module that selects its array library by the environment variable NEEDLE_BACKEND.

The course's own arrays are float32 only, so its first homeworks need "np". Arrays here have any dtype and serve every
homework; the variable only sets `array_api`: this package's `backend_ndarray` ("nd", the default) or NumPy ("np").
"""

import os

import numpy

from needle import backend_ndarray, check
from needle.backend_ndarray import BackendDevice as Device
from needle.backend_ndarray import NDArray, all_devices, cpu, cpu_numpy, cuda, default_device

BACKEND = check.one_of("needle", "NEEDLE_BACKEND", os.environ.get("NEEDLE_BACKEND", "nd"), ("nd", "np"))
array_api = numpy if BACKEND == "np" else backend_ndarray

__all__ = [
    "BACKEND",
    "Device",
    "NDArray",
    "all_devices",
    "array_api",
    "cpu",
    "cpu_numpy",
    "cuda",
    "default_device",
]
