"""Signals: the first is noted, the second acts; handlers come back; other threads."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from needle.distributed import Alone, using
from needle.training import StopOnSignal, TrainingState

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_stops_and_is_told(number, capfd):
    before = [signal.getsignal(each) for each in NUMBERS]
    state = TrainingState()
    with StopOnSignal() as stop:
        stop.on_step(state)
        assert state.stopped is None
        signal.raise_signal(number)
        stop.on_step(state)
        assert (stop.signal, state.stopped) == (number, number.name)
    assert [signal.getsignal(each) for each in NUMBERS] == before
    assert capfd.readouterr().err == f"\n{number.name}: stopping after this step; once more stops at once\n"


def test_a_new_block_begins_without_a_signal():
    stop = StopOnSignal()
    for number in NUMBERS:
        with stop:
            assert stop.signal is None
            signal.raise_signal(number)
        assert stop.signal == number


def test_the_second_signal_does_what_it_did_before():
    before = signal.getsignal(signal.SIGINT)
    with StopOnSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is before
    code = (
        "import signal; from needle.training import StopOnSignal\n"
        "with StopOnSignal():\n    signal.raise_signal(15)\n    print('on', flush=True)\n    signal.raise_signal(15)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (-signal.SIGTERM, "on\n")


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnSignal() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signal is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_the_handlers_alone():
    seen = []

    def run():
        with StopOnSignal() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.signal))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, None)]


class Second(Alone):
    """Another rank than the first."""

    rank, size = 1, 2


def test_signals_are_for_rank_0(capfd):
    before = [signal.getsignal(each) for each in NUMBERS]
    with using(Second()), StopOnSignal() as stop:
        for number in NUMBERS * 2:
            signal.raise_signal(number)
        assert stop.signal is None
    assert [signal.getsignal(each) for each in NUMBERS] == before
    assert capfd.readouterr().err == ""
