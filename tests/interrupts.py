"""Ctrl-C at the worst moments: a KeyboardInterrupt at each line of some modules."""

from __future__ import annotations

import itertools
import sys


def interrupt_everywhere(run, *modules):
    """Call `run()` over and over, with a KeyboardInterrupt at its first line in `modules`, its second line, and so on.

    Yields the line after each call that was interrupted, and ends with a call that was not.
    """
    files = {module.__file__ for module in modules}
    for count in itertools.count():
        place = interrupt(run, files, count)
        if place is None:
            return
        yield place


def interrupt(run, files, count):
    """Call `run()` with an interrupt after `count` lines of `files` in this thread; returns that line, if it exists."""
    place = None

    def trace(frame, event, arg):
        nonlocal place, count
        if frame.f_code.co_filename not in files:
            return None
        if event == "line":
            count -= 1
            if count < 0:
                place = f"{frame.f_code.co_name}:{frame.f_lineno}"
                raise KeyboardInterrupt(place)  # this also ends the tracing
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        run()
    except KeyboardInterrupt:
        assert place is not None
    finally:
        sys.settrace(before)
    return place
