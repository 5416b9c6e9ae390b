"""Batches on their way to a GPU: staged in pinned memory, sent on a stream of their own, several at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from needle.backend.device import Array, Device, HostArray, native

__all__ = ["CudaUploads", "Upload"]

R = TypeVar("R")

ALIGNMENT = 256  # bytes, of each array in a slot: that of CUDA's own allocations


class CudaUploads:
    """Sends batches of host arrays to one GPU. All arrays of a batch go in one copy, which no computation waits for.

    `send` writes a batch into the pinned half of a slot and queues its copy to the other half, on the GPU, on a stream
    of its own; `Upload.read` makes the current stream wait for that copy, and reads it. Slots are used in turn, so at
    most as many batches as there are slots may be sent and not yet read. The host waits only to write into a slot whose
    previous copy still runs. One thread may send while another one reads.
    """

    def __init__(self, device: Device, slots: int) -> None:
        self.device, self.cuda = device, device.xp.cuda
        with device.current():
            self.stream = self.cuda.Stream(non_blocking=True)
            self.slots = [_Slot(self.cuda) for _ in range(slots)]
        self.turn = 0

    def send(self, arrays: Sequence[HostArray]) -> Upload:
        """Queue the copy of a batch: arrays of real numbers or bools, of any strides."""
        slot = self.slots[self.turn]
        self.turn = (self.turn + 1) % len(self.slots)
        places, size = [], 0
        for array in arrays:
            places.append((size, array.shape, native(array.dtype)))
            size += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        with self.device.current():
            slot.copied.synchronize()
            slot.reserve(self.device, size)
            for array, (start, shape, dtype) in zip(arrays, places, strict=True):
                np.copyto(_view(slot.host, start, shape, dtype), array)
            self.stream.wait_event(slot.read)
            if size:
                slot.there.data.copy_from_host_async(slot.host.ctypes.data, size, self.stream)
            slot.copied.record(self.stream)
        return Upload(self, slot, places)

    def room(self) -> int:
        """Bytes of the GPU's memory that are free."""
        with self.device.current():
            return int(self.cuda.runtime.memGetInfo()[0]) + int(self.device.xp.get_default_memory_pool().free_bytes())

    def __del__(self) -> None:
        """Wait for the copies on their way, and let the current stream wait for the reads: the memory is others' next.

        CuPy hands pinned memory to the next who asks, and the host would write into it while a copy still reads it.
        """
        with suppress(Exception), self.device.current():  # at the end of the process, CuPy may be gone
            for slot in self.slots:
                slot.copied.synchronize()
                self.cuda.get_current_stream().wait_event(slot.read)


class Upload:
    """A batch that was sent."""

    def __init__(self, uploads: CudaUploads, slot: _Slot, places: list[tuple[int, tuple[int, ...], Any]]) -> None:
        self._uploads, self._slot, self._places = uploads, slot, places

    def read(self, function: Callable[..., R]) -> R:
        """What `function` makes of the arrays of the batch, of which it must return no views. To be called once."""
        slot = self._slot
        with self._uploads.device.current():
            stream = self._uploads.cuda.get_current_stream()
            stream.wait_event(slot.copied)
            result = function(*(_view(slot.there, *place) for place in self._places))
            slot.read.record(stream)
        return result


class _Slot:
    """Memory for one batch, pinned on the host and on the GPU, and two events: its copy has ended, it has been read."""

    def __init__(self, cuda: Any) -> None:
        self.copied, self.read = (cuda.Event(disable_timing=True) for _ in range(2))
        self.host: HostArray = np.empty(0, "uint8")
        self.there: Array = None

    def reserve(self, device: Device, size: int) -> None:
        """Have memory of at least `size` bytes."""
        if size > self.host.size or self.there is None:
            pinned = device.xp.cuda.alloc_pinned_memory(size)
            self.host = np.frombuffer(pinned, "uint8", size)
            self.there = device.xp.empty(size, "uint8")
            self.read.record(device.xp.cuda.get_current_stream())  # who had this memory before may still read it


def _view(memory: Any, start: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of this shape and dtype in bytes of memory."""
    return memory[start : start + math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
