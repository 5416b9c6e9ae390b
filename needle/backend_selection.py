"""The course's module that chooses between its two array libraries by the environment variable NEEDLE_BACKEND.

The course needs `np` for its first homeworks, because its own arrays are of float32 alone. Here arrays have a dtype and
serve all of them, so that the variable changes only what `array_api` is: this package's `backend_ndarray` ("nd", the
default) or NumPy ("np").
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
