"""What needle asks of CuPy's NCCL, on a library that notes its calls; the exchanges themselves: tests/gpu/null."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from needle.backend import cuda_nccl
from needle.backend.cuda_nccl import Nccl, find_nccl

STREAM = 7
CUDA = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=STREAM))
DEVICE = SimpleNamespace(current=nullcontext, address=lambda array: array.ctypes.data, xp=SimpleNamespace(cuda=CUDA))


class NcclError(RuntimeError):
    pass


class Library:
    """CuPy's module: `failing` is the function that fails."""

    NCCL_UINT8, NcclError = 1, NcclError

    def __init__(self, failing=None):
        self.calls, self.failing = [], failing

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == self.failing:
                raise NcclError("NCCL_ERROR_SYSTEM_ERROR: unhandled system error")
            return self

        return call

    def get_version(self):
        return 22707


def made(library):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_nccl, "_library", lambda: library)
        return Nccl(DEVICE, 3, bytes(128), 1)


def test_an_exchange_is_one_group_of_messages_that_hold_something():
    library, out, into = Library(), np.ones(4, "float32"), np.ones(0, "float32")
    made(library).exchange([(0, out, into), (2, into, out)])
    place = out.ctypes.data
    assert library.calls == [
        ("NcclCommunicator", 3, bytes(128), 1),
        ("groupStart",),
        ("send", place, 16, 1, 0, STREAM),
        ("recv", place, 16, 1, 2, STREAM),
        ("groupEnd",),
        ("check_async_error",),
    ]


def test_an_array_is_broadcast_if_it_holds_something():
    library, array = Library(), np.ones(4, "float32")
    nccl = made(library)
    for part in (array, array[:0]):
        nccl.broadcast(part, 2)
    nccl.close()
    nccl.abort()
    bytes_sent = ("bcast", array.ctypes.data, 16, 1, 2, STREAM)
    assert library.calls[1:] == [bytes_sent, ("check_async_error",), ("destroy",), ("abort",)]


def test_a_gpu_is_named_by_its_machine_and_its_place_there(monkeypatch):
    """Also where two machines have the same name."""
    names = set()
    for boot in ("1b", "2c"):
        monkeypatch.setattr(cuda_nccl, "Path", lambda path, boot=boot: SimpleNamespace(read_text=lambda encoding: boot))
        for place in ("01:00", "02:00"):
            cuda = SimpleNamespace(Device=lambda index, place=place: SimpleNamespace(pci_bus_id=place))
            names.add(cuda_nccl.gpu_name(SimpleNamespace(index=0, xp=SimpleNamespace(cuda=cuda))))
    assert len(names) == 4


def test_a_group_ends_whatever_happens():
    library, out = Library(failing="send"), np.ones(4, "float32")
    with pytest.raises(NcclError):
        made(library).exchange([(0, out, out)])
    assert library.calls[-1] == ("groupEnd",)


@pytest.mark.parametrize(
    ("wheels", "advice"),
    [
        ([("cupy-cuda13x", "14.2.0")], "; try `pip install nvidia-nccl-cu13`"),
        ([("cupy-cuda12x", "14.2.0")], "; try `pip install nvidia-nccl-cu12`"),
        ([("cupy", "14.2.0")], ""),
    ],
)
def test_where_there_is_no_nccl_it_says_why_and_what_to_install(monkeypatch, wheels, advice):
    def missing():
        raise ImportError("libnccl.so.2: no such file")

    monkeypatch.setattr(cuda_nccl, "wheels", lambda: wheels)
    monkeypatch.setattr(cuda_nccl, "_library", Library)
    assert find_nccl() == (22707, "")
    monkeypatch.setattr(cuda_nccl, "_library", missing)
    assert find_nccl() == (0, f"libnccl.so.2: no such file{advice}")


ERRORS = [
    (lambda: made(Library(failing="NcclCommunicator")),
     RuntimeError,
     "cuda: NCCL must connect the GPUs of 3 ranks, but got NCCL_ERROR_SYSTEM_ERROR: unhandled system error"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_a_failure_of_nccl_is_an_error(call, kind, message):
    with pytest.raises(kind) as raised:
        call()
    assert str(raised.value) == message
