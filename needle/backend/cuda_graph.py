"""Recordings on a GPU: all that a function launches as one CUDA graph, which a replay launches as a whole.

**Streams.** needle's eager work runs on CuPy's current stream of its thread, the null stream unless the user chooses
another. A function is recorded on a stream of its own, where nothing is ever executed; replays are launched on the
current stream. So they are in order with the eager work before and after them, as if each were a kernel, and nothing
has to wait.

**Memory.** While it is recorded, a function gets memory from a pool of the recording's own, which lives as long as the
graph: what it frees is used again within it, never by others, whom a replay would overwrite.

**Numbers of the host** (`recording.live`) lie in cells, a block of 64-bit words that one kernel fills before a replay,
with the words as its arguments.

The capture is "relaxed": the pool may grow, kernels may be compiled and loaded, other threads may do what they like. So
CUDA itself refuses only waits for the capturing stream; CuPy refuses transfers and its own products and random numbers;
needle refuses, by name, transfers, reads and draws of the host before they reach CuPy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from needle.backend.device import Array, Device
from needle.backend.recording import CannotRecord, Cell, Numbers, Recorder, Recording

__all__ = ["record"]

CELL_WORDS = 512  # 64-bit words of a recording's cells: 4 KiB; an optimizer takes two to five, a layer's draws one
STORED_WORDS = 64  # of one launch, whose arguments may be 4 KiB
STORE = """
struct Words { unsigned long long word[64]; };

extern "C" __global__ void store(unsigned long long* cells, Words words, int count) {
  if (threadIdx.x < count) cells[threadIdx.x] = words.word[threadIdx.x];
}
"""
_CAPTURE_ERRORS = range(900, 911)  # CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED and its like


def record(device: Device, function: Callable[[], object]) -> Recording:
    """Record what `function` launches, and launch it once.

    Raises CannotRecord, with the name of what asked for it, if the function needs the host; errors of its own pass
    through. Either way nothing has been computed, and eager work goes on.
    """
    cuda = device.xp.cuda
    with device.current():
        _free_left_pools()
        recorder, stream = _Recorder(device), cuda.Stream(non_blocking=True)
        with recorder.under_way(), cuda.using_allocator(recorder.pool.malloc), stream:
            stream.begin_capture()
            try:
                function()
            except Exception as error:
                if isinstance(error, CannotRecord) or not _is_refusal(cuda, error):
                    raise
                raise CannotRecord(_asking(error.__traceback__), f"what CUDA cannot record: {error}") from error
            finally:
                graph = _end(cuda, stream)
            if graph is None:
                raise CannotRecord("record", "work that invalidates a capture")
        recorded = _Graph(recorder, graph, stream)
        recorded.launch()
    return recorded


class _Recorder(Recorder):
    """Captures the launches of this thread."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.pool = device.xp.cuda.MemoryPool()
        self.words = np.zeros(CELL_WORDS, "uint64")  # the next contents of the cells
        self.there: Array = device.xp.empty(CELL_WORDS, "uint64")
        self.used = 0
        self.store = device.xp.RawModule(code=STORE).get_function("store")

    def __del__(self) -> None:
        if "pool" in vars(self):
            _left.append((self.device, self.pool))
            _free_left_pools()

    def new_cell(self, numbers: Numbers, dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        start, stop = self.used, self.used + -(-len(numbers) * dtype.itemsize // 8)
        if stop > CELL_WORDS:
            raise CannotRecord("live", f"numbers for more than the {CELL_WORDS} words of its cells")
        self.used = stop
        self.words[start:stop].view(dtype)[: len(numbers)] = numbers
        return self.there[start:stop].view(dtype)[: len(numbers)]

    def write(self, cell: Cell) -> None:
        """Compute the numbers of a cell anew."""
        start = (cell.array.data.ptr - self.there.data.ptr) // 8
        self.words[start:].view(cell.array.dtype)[: cell.array.size] = cell.compute()

    def send(self) -> None:
        """Queue the writing of the cells."""
        for start in range(0, self.used, STORED_WORDS):
            words, count = self.words[start : start + STORED_WORDS], min(self.used - start, STORED_WORDS)
            self.store((1,), (STORED_WORDS,), (self.there[start:], words.view(f"V{words.nbytes}")[0], np.int32(count)))


# The pools of recordings that are gone. Some seem to be in use for ever: what Python's garbage collector frees does not
# come back to them, though it is free.
_left: deque[tuple[Device, Any]] = deque(maxlen=32)


def _free_left_pools() -> None:
    """Free their memory, and forget those that have none in use. CuPy frees nothing of a pool that it drops."""
    for _ in range(len(_left)):
        with suppress(Exception):  # at the end of the process, CuPy may be gone
            device, pool = _left.pop()
            with device.current():
                pool.free_all_blocks()
                if pool.used_bytes():
                    _left.appendleft((device, pool))


class _Graph(Recording):
    """A graph with the memory that it uses."""

    def __init__(self, recorder: _Recorder, graph: Any, stream: Any) -> None:
        self.graph = graph  # in the order in which they are destroyed: the stream holds cuBLAS's workspace
        self.captured_on, self.recorder, self.device = stream, recorder, recorder.device

    def replay(self) -> None:
        with self.device.current():
            for cell in self.recorder.cells:
                self.recorder.write(cell)
            self.launch()

    def launch(self) -> None:
        """Launch the graph on the current stream, after the writing of its cells."""
        self.recorder.send()
        self.graph.launch()


def _end(cuda: Any, stream: Any) -> Any:
    """End a capture; the graph, or None if it was invalidated."""
    with suppress(cuda.runtime.CUDARuntimeError):
        return stream.end_capture()
    return None


def _is_refusal(cuda: Any, error: Exception) -> bool:
    """Whether CUDA or CuPy raised this because a stream is capturing."""
    if isinstance(error, cuda.runtime.CUDARuntimeError):
        return error.status in _CAPTURE_ERRORS
    return isinstance(error, RuntimeError) and "captur" in str(error)


def _asking(traceback: TracebackType | None) -> str:
    """The innermost function of needle below `record` in its traceback, else the innermost at all."""
    name, is_ours = "record", False
    while traceback is not None and (traceback := traceback.tb_next) is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__", "")
        ours = module.startswith("needle.") and not module.startswith("needle.capture.")
        if ours or not (is_ours or frame.f_code.co_filename.endswith(".pyx")):
            name, is_ours = frame.f_code.co_name, ours or is_ours
    return name
