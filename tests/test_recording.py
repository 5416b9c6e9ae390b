"""What all recordings share: the recorder of a thread, cells, conditions, counters, and what cannot be recorded."""

import threading

import numpy as np
import pytest

import needle as ndl
from needle.backend import CannotRecord, Device, Recorder, Recording, cpu, depend, kept, live, recording, refuse


class Again(Recording):
    """Does nothing, again."""

    def replay(self):
        pass


class Cells(Recorder):
    """Notes nothing but cells."""

    def new_cell(self, numbers, dtype):
        return np.array(numbers, dtype)

    def kept(self, array):
        return array[...]


def test_without_a_recording_nothing_is_noted():
    array = np.ones(2)
    assert recording() is None
    assert live(cpu(), lambda: pytest.fail("called"), "float32") is None
    assert kept(array) is array
    depend(lambda: pytest.fail("called"))
    refuse("item", "a value read on the host")


def test_a_recorder_is_under_way_in_its_thread_alone():
    recorder, seen = Cells(cpu()), []
    with recorder.under_way():
        assert recording() is recorder
        thread = threading.Thread(target=lambda: seen.append(recording()))
        thread.start()
        thread.join()
    assert (recording(), seen) == (None, [None])


def test_an_error_ends_the_recording():
    with pytest.raises(ZeroDivisionError), Cells(cpu()).under_way():
        raise ZeroDivisionError
    assert recording() is None


def test_cells_are_noted_in_order():
    recorder, numbers = Cells(cpu()), iter([3.0, 5.0, 7.0])
    with recorder.under_way():
        first = live(cpu(), lambda: [next(numbers)], "float32")
        second = live(cpu(), lambda: [next(numbers), 1], "float64")
    assert (first.tolist(), second.tolist()) == ([3.0], [5.0, 1.0])
    assert [cell.array is array for cell, array in zip(recorder.cells, (first, second), strict=True)] == [True, True]
    assert recorder.cells[0].compute() == [7.0]


def test_kept_arrays_pass_the_recorder():
    array = np.ones(2)
    with Cells(cpu()).under_way():
        seen = kept(array)
    assert seen is not array
    assert np.shares_memory(seen, array)


def test_conditions_compare_objects():
    recorder, options = Cells(cpu()), {"training": True}
    with recorder.under_way():
        depend(lambda: options["training"])
    assert recorder.holds()
    options["training"] = False
    assert not recorder.holds()


def test_counters_of_written_memory_are_noted():
    recorder, x, y = Cells(cpu()), ndl.ones(2), ndl.ones(2)
    with recorder.under_way():
        x.bump_version()
        x.detach().bump_version()
    y.bump_version()
    assert [*recorder.changed.values()] == [x.version_counter()]


def test_cannot_record_names_op_and_cause():
    with Cells(cpu()).under_way(), pytest.raises(CannotRecord) as caught:
        refuse("item", "a value read on the host")
    assert (caught.value.op, caught.value.cause) == ("item", "a value read on the host")


def cell_elsewhere():
    with Cells(cpu()).under_way():
        live(Device("other"), list, "float32")


def within_another():
    with Cells(cpu()).under_way(), Cells(cpu()).under_way():
        pass


MUST = "recorded work must be the same without Python, but got"
ERRORS = [
    (lambda: Again().compare(list, list), NotImplementedError, "Again: compare is not defined"),
    (within_another, CannotRecord, f"record: {MUST} a recording within another"),
    (cell_elsewhere, CannotRecord, f"live: {MUST} a cell on other() within a recording of cpu()"),
    (lambda: Device("other").record(list), CannotRecord, f"record: {MUST} work on other(), which cannot record"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_errors(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
