"""The course's module of the device that computes by NumPy."""

from needle.backend_ndarray import BackendDevice as Device
from needle.backend_ndarray import all_devices, cpu, default_device

__all__ = ["Device", "all_devices", "cpu", "default_device"]
