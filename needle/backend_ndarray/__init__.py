"""Devices and arrays: the one floor that knows NumPy from CuPy, and the course's module of strided arrays."""

from needle.backend_ndarray.allocator import keep_freed_memory
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
from needle.backend_ndarray.device import (
    BackendDevice,
    HostScalar,
    all_devices,
    cpu,
    cpu_numpy,
    cuda,
    default_device,
    device_for,
    device_of,
    register_device,
    restored,
    seed,
    set_default_device,
    stored,
    to_host,
    xp,
)
from needle.backend_ndarray.dlpack import exportable, imported
from needle.backend_ndarray.ndarray import NDArray

__all__ = [
    "BackendDevice",
    "Buffer",
    "HostScalar",
    "NDArray",
    "all_devices",
    "array",
    "broadcast_to",
    "cpu",
    "cpu_numpy",
    "cuda",
    "default_device",
    "device_for",
    "device_of",
    "empty",
    "exp",
    "exportable",
    "flip",
    "full",
    "imported",
    "log",
    "maximum",
    "register_device",
    "reshape",
    "restored",
    "seed",
    "set_default_device",
    "stored",
    "sum",
    "tanh",
    "to_host",
    "xp",
]

keep_freed_memory()
