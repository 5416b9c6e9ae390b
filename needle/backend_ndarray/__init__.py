"""The course's module of strided arrays, on the devices of `needle.backend`."""

from needle.backend import BackendDevice, all_devices, cpu, cpu_numpy, cuda, default_device, register_device
from needle.backend_ndarray.buffer import Buffer
from needle.backend_ndarray.creation import (
    array,
    broadcast_to,
    empty,
    exp,
    flip,
    full,
    log,
    maximum,
    reshape,
    sum,
    tanh,
)
from needle.backend_ndarray.ndarray import NDArray

__all__ = [
    "BackendDevice",
    "Buffer",
    "NDArray",
    "all_devices",
    "array",
    "broadcast_to",
    "cpu",
    "cpu_numpy",
    "cuda",
    "default_device",
    "empty",
    "exp",
    "flip",
    "full",
    "log",
    "maximum",
    "register_device",
    "reshape",
    "sum",
    "tanh",
]
