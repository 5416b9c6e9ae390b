"""NCCL through CuPy: bytes that go from GPU to GPU, each of a process of its own."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from needle.backend.cuda_probe import wheels
from needle.backend.device import Array, Device

__all__ = ["ID_BYTES", "Nccl", "find_nccl", "gpu_name", "new_id"]

ID_BYTES = 128  # of what tells one group of GPUs from another


class Nccl:
    """GPU `rank` of `size`, whose processes each make one with the same `id`; returns once all have.

    All calls queue their work on the current stream, and must come in the same order on all ranks. Only bytes are
    moved: the order in which NCCL adds depends on the number of GPUs, their links and the size of the arrays. Arrays
    are contiguous, and those that go out are not those that come in.

    Raises RuntimeError with what NCCL says.
    """

    def __init__(self, device: Device, size: int, id: bytes, rank: int) -> None:
        self.device = device
        self._library = _library()
        self._byte = self._library.NCCL_UINT8
        try:
            with device.current():
                self._communicator = self._library.NcclCommunicator(size, id, rank)
        except self._library.NcclError as error:
            raise RuntimeError(f"cuda: NCCL must connect the GPUs of {size} ranks, but got {error}") from error

    def exchange(self, parts: Iterable[tuple[int, Array, Array]]) -> None:
        """For each (rank, out, into): send `out` to that rank, and receive `into` from it, all at the same time."""
        stream = self._stream()
        self._library.groupStart()
        try:
            for rank, out, into in parts:
                if out.nbytes:
                    self._communicator.send(self.device.address(out), out.nbytes, self._byte, rank, stream)
                if into.nbytes:
                    self._communicator.recv(self.device.address(into), into.nbytes, self._byte, rank, stream)
        finally:
            self._library.groupEnd()
        self._communicator.check_async_error()

    def broadcast(self, array: Array, root: int) -> None:
        """Replace an array by that of the rank `root`."""
        if array.nbytes:
            self._communicator.bcast(self.device.address(array), array.nbytes, self._byte, root, self._stream())
            self._communicator.check_async_error()

    def close(self) -> None:
        """End it after the work that is queued."""
        self._communicator.destroy()

    def abort(self) -> None:
        """End it now, and with it the kernels that wait for other GPUs."""
        self._communicator.abort()

    def _stream(self) -> int:
        return int(self.device.xp.cuda.get_current_stream().ptr)


def new_id() -> bytes:
    """A new `id`, which one rank makes for all."""
    number: bytes = _library().get_unique_id()
    return number


def find_nccl() -> tuple[int, str]:
    """The version of the NCCL that CuPy loads, such as 22707 for 2.27.7, and ""; or 0, and why it loads none."""
    try:
        return int(_library().get_version()), ""
    except Exception as error:  # CuPy or NCCL may be broken in whichever way
        majors = [name.removeprefix("cupy-cuda").removesuffix("x") for name, _ in wheels()]
        commands = [f"`pip install nvidia-nccl-cu{major}`" for major in majors if major.isdigit()]
        return 0, "; try ".join([str(error), *commands])


def gpu_name(device: Device) -> str:
    """A name that no other GPU has, on whichever machine."""
    machine = platform.node()
    with suppress(OSError):  # two machines may have the same name
        machine += " " + Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{machine} {device.xp.cuda.Device(device.index).pci_bus_id}"


def _library() -> Any:
    """CuPy's module of NCCL. Raises ImportError with what is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy says at length that there is none
        import_module("cupy.cuda.nccl")  # loads the library of pip's package
    return import_module("cupy_backends.cuda.libs.nccl")
