"""Recordings on a GPU, on a CuPy of NumPy's that writes down what it is asked for: order, streams, cells."""

import threading
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

import needle as ndl
from needle.backend import CannotRecord, CudaDevice, live, recording, refuse
from needle.backend.cuda_graph import CELL_WORDS, STORED_WORDS


class CUDARuntimeError(RuntimeError):
    status = 900


class Words(np.ndarray):
    """An array whose address is `data.ptr`."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.__array_interface__["data"][0])


class FakeCuPy:
    """What `record` uses of CuPy. `journal` says in which order. A function runs, a graph does not."""

    def __init__(self):
        self.journal, self.current, self.ends_well = [], Stream(self, "null"), True
        self.cuda = SimpleNamespace(
            MemoryPool=lambda: SimpleNamespace(malloc="pool"), Stream=lambda non_blocking: Stream(self, "own"),
            get_current_stream=lambda: self.current, using_allocator=self.using,
            runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError),
        )  # fmt: skip

    @contextmanager
    def using(self, allocator):
        self.journal.append(f"from {allocator}")
        try:
            yield
        finally:
            self.journal.append("from before")

    @staticmethod
    def empty(size, dtype):
        return np.zeros(size, dtype).view(Words)

    def RawModule(self, code):
        def store(grid, block, arguments):
            cells, words, count = arguments
            assert (grid, block, words.nbytes) == ((1,), (STORED_WORDS,), 8 * STORED_WORDS)
            cells[:count] = np.frombuffer(words.tobytes(), "uint64")[:count]
            self.journal.append(f"store {count}")

        return SimpleNamespace(get_function={"store": store}.get)


class Stream:
    def __init__(self, cupy, name):
        self.cupy, self.name = cupy, name

    def __enter__(self):
        self.before, self.cupy.current = self.cupy.current, self

    def __exit__(self, *_):
        self.cupy.current = self.before

    def begin_capture(self):
        self.cupy.journal.append("begin")

    def end_capture(self):
        self.cupy.journal.append("end")
        if not self.cupy.ends_well:
            raise CUDARuntimeError
        return SimpleNamespace(launch=lambda: self.cupy.journal.append(f"launch on {self.cupy.current.name}"))


class FakeDevice(CudaDevice):
    """A CUDA device on the CuPy above; it is not registered."""

    def __init__(self):
        super().__init__()
        self.xp = FakeCuPy()

    def current(self):
        return nullcontext()


@pytest.fixture
def gpu():
    return FakeDevice()


def test_a_function_is_captured_then_launched_once_and_again(gpu):
    recorded = gpu.record(lambda: gpu.xp.journal.append(f"work on {gpu.xp.current.name}"))
    assert gpu.xp.journal == ["from pool", "begin", "work on own", "end", "from before", "launch on null"]
    recorded.replay()
    assert gpu.xp.journal[6:] == ["launch on null"]
    assert recording() is None


def test_a_replay_goes_to_the_current_stream(gpu):
    recorded, gpu.xp.current = gpu.record(list), Stream(gpu.xp, "other")
    recorded.replay()
    assert gpu.xp.journal[-2:] == ["launch on null", "launch on other"]


def test_the_device_is_current_while_it_records_replays_and_is_dropped(gpu):
    entered = []
    gpu.current = lambda: entered.append(len(gpu.xp.journal)) or nullcontext()
    gpu.record(list).replay()
    assert entered == [0, 5, 6]  # at last to free its memory


def test_cells_are_written_before_each_launch_with_new_numbers(gpu):
    rates, counts, cells = iter([0.5, 0.25, 0.125]), iter([1, 2, 3]), []

    def work():
        cells.append(live(gpu, lambda: [next(rates), 7, 8], "float32"))
        cells.append(live(gpu, lambda: [2**63 + next(counts)], "uint64"))

    recorded = gpu.record(work)
    for rate, count in ((0.5, 1), (0.25, 2)):
        assert cells[0].tolist() == [rate, 7, 8]
        assert cells[1].tolist() == [2**63 + count]
        assert gpu.xp.journal[-2:] == ["store 3", "launch on null"]
        recorded.replay()


def test_many_cells_take_several_launches(gpu):
    values, cells = iter(range(1000)), []
    recorded = gpu.record(lambda: cells.extend(live(gpu, lambda: [next(values)], "float64") for _ in range(70)))
    assert [float(cell[0]) for cell in cells] == [*range(70)]
    recorded.replay()
    assert [float(cell[0]) for cell in cells] == [*range(70, 140)]
    assert gpu.xp.journal[-3:] == ["store 64", "store 6", "launch on null"]


def test_other_threads_are_not_recorded(gpu):
    seen = []

    def work():
        thread = threading.Thread(target=lambda: seen.append(recording()))
        thread.start()
        thread.join()

    gpu.record(work)
    assert seen == [None]


def test_a_capture_ends_after_any_error(gpu):
    for error in (ZeroDivisionError, KeyboardInterrupt):
        with pytest.raises(error):
            gpu.record(lambda error=error: (_ for _ in ()).throw(error))
        assert gpu.xp.journal[-3:] == ["begin", "end", "from before"]
        assert recording() is None
        assert gpu.xp.current.name == "null"


# ---- what cannot be recorded -----------------------------------------------------------------------------------------


def captured(function):
    """A call that records `function(device)`."""

    def call():
        device = FakeDevice()
        device.record(lambda: function(device))

    return call


def refused_by(kind, text):
    def function(_):
        raise kind(text)  # a new one each time: an error keeps its tracebacks

    return captured(function)


def ends_badly():
    device = FakeDevice()
    device.xp.ends_well = False
    device.record(list)


MUST = "recorded work must be the same without Python, but got"
ERRORS = [
    (
        captured(lambda device: ndl.Tensor([1, 2], device=device)),
        f"Tensor: {MUST} data of the host, which would be sent once",
    ),
    (
        captured(lambda device: device.asarray(np.ones(2))),
        f"asarray: {MUST} data of the host, which would be sent once",
    ),
    (captured(lambda device: device.to_host(None)), f"to_host: {MUST} values read on the host"),
    (captured(lambda _: refuse("item", "a value read on the host")), f"item: {MUST} a value read on the host"),
    (
        captured(lambda device: live(device, lambda: [0] * (CELL_WORDS + 1), "float64")),
        f"live: {MUST} numbers for more than the {CELL_WORDS} words of its cells",
    ),
    (
        refused_by(RuntimeError, "the current stream is capturing, so D2H transfers are disallowed"),
        f"function: {MUST} what CUDA cannot record: the current stream is capturing, so D2H transfers are disallowed",
    ),
    (refused_by(CUDARuntimeError, "no"), f"function: {MUST} what CUDA cannot record: no"),
    (ends_badly, f"record: {MUST} work that invalidates a capture"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message for _, message in ERRORS])
def test_refusals_name_who_asked_and_for_what(call, message):
    with pytest.raises(CannotRecord) as caught:
        call()
    assert str(caught.value) == message


def test_errors_of_the_function_pass(gpu):
    with pytest.raises(RuntimeError, match="of my own"):
        gpu.record(lambda: (_ for _ in ()).throw(RuntimeError("of my own")))
