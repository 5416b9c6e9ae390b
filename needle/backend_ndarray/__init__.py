"""Devices and arrays: the one floor that knows NumPy from CuPy."""

from needle.backend_ndarray.device import (
    BackendDevice,
    HostScalar,
    all_devices,
    cpu,
    cuda,
    default_device,
    device_for,
    device_of,
    register_device,
    set_default_device,
    to_host,
    xp,
)
from needle.backend_ndarray.ndarray import NDArray

__all__ = [
    "BackendDevice",
    "HostScalar",
    "NDArray",
    "all_devices",
    "cpu",
    "cuda",
    "default_device",
    "device_for",
    "device_of",
    "register_device",
    "set_default_device",
    "to_host",
    "xp",
]
