"""The known devices by name, the default device, and what all of them share: seeding and pickling."""

from __future__ import annotations

from typing import Any

from needle import check
from needle.backend.device import Device, device_named, device_of, devices, find_device, to_host

__all__ = [
    "all_devices",
    "cpu",
    "cpu_numpy",
    "cuda",
    "default_device",
    "deserialize",
    "device_for",
    "seed",
    "serialize",
    "set_default_device",
]

_default: Device | None = None  # None: the CPU


def cpu() -> Device:
    """The CPU device, which uses NumPy. Always the same object."""
    return devices["cpu"]


def cpu_numpy() -> Device:
    """`cpu()`, under the course's name for a CPU device that uses NumPy."""
    return cpu()


def cuda(index: int = 0) -> Device:
    """GPU `index`, which uses CuPy. Never raises for a GPU that does not exist.

    `.enabled()` tells whether it can be used. If not, using it raises `RuntimeError`, which says what is missing.

    Raises `TypeError` if `index` is not an integer, `ValueError` if it is negative.
    """
    return devices["cuda"].peer(index)


def all_devices() -> list[Device]:
    """The CPU, GPU 0, every other GPU requested so far, and what `register_device` added; enabled or not."""
    return list(devices.values())


def default_device() -> Device:
    """The device of new tensors unless another is named: the CPU, or that of `set_default_device`."""
    return _default or devices["cpu"]


def set_default_device(device: Device) -> None:
    """Create tensors on `device` by default, in every thread, and make it the current device of this thread.

    Raises `TypeError` if it is not a device, `RuntimeError` if it cannot be used.
    """
    global _default
    if not isinstance(device, Device):
        raise TypeError(f"set_default_device: device must be a Device, but got {type(device).__name__}")
    device.array_type()  # raises if the device cannot be used
    device.use()
    _default = device


def device_for(data: Any) -> Device:
    """The device of a new tensor of `data` unless another is named.

    An array of another device stays there. NumPy arrays go to the default device, as lists and numbers do.
    """
    device, host = find_device(data), devices["cpu"]
    return (_default or host) if device is None or device is host else device


def seed(number: int) -> None:
    """Seed the random stream of every device, including NumPy's legacy global stream.

    Needle draws from NumPy's stream alone, for every device; CuPy's is seeded for your own use of it.

    Raises `TypeError` if `number` is not an integer, `ValueError` unless 0 <= number < 2 ** 32.
    """
    number = check.integer("seed", "number", number, least=0)
    if number >= 2**32:
        raise ValueError(f"seed: number must be below 2 ** 32, but got {number}")
    for device in all_devices():
        device.seed(number)


def serialize(array: Any) -> Any:
    """The pickled form of a raw array, (device name, NumPy array); of a tuple of arrays, a tuple of such pairs."""
    if isinstance(array, tuple):
        return tuple(map(serialize, array))
    return device_of(array).name, to_host(array)


def deserialize(form: Any) -> Any:
    """The inverse of `serialize`. Arrays of a device that this machine lacks go to the CPU."""
    if not form or not isinstance(form[0], str):
        return tuple(map(deserialize, form))
    name, host = form
    try:
        device = device_named(name)
    except ValueError:
        device = cpu()
    return (device if device.enabled() else cpu()).asarray(host)
