"""Raw devices: where arrays live, the namespace that computes on them, the threads that share work."""

from needle.backend.device import (
    BackendDevice,
    Device,
    DTypeLike,
    HostArray,
    HostScalar,
    all_devices,
    cpu,
    cpu_numpy,
    cuda,
    default_device,
    deserialize,
    device_for,
    device_of,
    register_device,
    seed,
    serialize,
    set_default_device,
    to_host,
    xp,
)
from needle.backend.dlpack import from_dlpack, to_dlpack
from needle.backend.kernel_table import overridable
from needle.backend.malloc import keep_freed_memory

__all__ = [
    "BackendDevice",
    "DTypeLike",
    "Device",
    "HostArray",
    "HostScalar",
    "all_devices",
    "cpu",
    "cpu_numpy",
    "cuda",
    "default_device",
    "deserialize",
    "device_for",
    "device_of",
    "from_dlpack",
    "overridable",
    "register_device",
    "seed",
    "serialize",
    "set_default_device",
    "to_dlpack",
    "to_host",
    "xp",
]

keep_freed_memory()
