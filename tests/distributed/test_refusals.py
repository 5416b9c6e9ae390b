"""What workers refuse: the error table of `needle.distributed`. `tests/test_errors.py` holds it against the source."""

from __future__ import annotations

import importlib.machinery
import multiprocessing
import re
import sys
import types

import numpy as np
import pytest

from needle.autograd import Tensor
from needle.backend.communicator import using
from needle.distributed import launch
from needle.distributed.launch import _groups
from tests.distributed.threads import in_shared_memory, run_ranks


def task():
    pass


def ranks(function):
    return run_ranks(2, function, in_shared_memory)


def frozen():
    array = np.zeros(3)
    array.flags.writeable = False
    return array


def within_a_rank():
    with using(in_shared_memory(2)[1]):
        launch(task, 2)


def with_a_group():
    _groups["current"] = object()
    try:
        launch(task, 2)
    finally:
        _groups.clear()


def while_the_main_file_is_imported():
    process = multiprocessing.current_process()
    process._inheriting = True
    try:
        launch(task, 2)
    finally:
        del process._inheriting


def in_main(**attributes):
    """Launch a function of a main program that has these attributes."""
    main, module = sys.modules["__main__"], types.ModuleType("__main__")
    vars(module).update(attributes)
    sys.modules["__main__"] = module
    try:
        exec("def task():\n    pass", vars(module))
        launch(module.task, 2)
    finally:
        sys.modules["__main__"] = main


def in_an_interactive_session():
    in_main()


def in_a_package():
    """`python -m package` runs its `__main__.py`, which multiprocessing does not import."""
    in_main(__spec__=importlib.machinery.ModuleSpec("package.__main__", None))


def from_stdin():
    in_main(__file__="<stdin>")


def one_has_returned(communicator):
    if communicator.rank == 0:
        communicator.all_reduce(np.zeros(3, "float32"))


ERRORS = [
    (lambda: launch(task, 0), ValueError, "launch: workers must be at least 1, but got 0"),
    (lambda: launch(task, 2.0), TypeError, "launch: workers must be an integer, but got 2.0"),
    (lambda: launch(3, 2), TypeError, "launch: main must be a function, but got 3"),
    (lambda: launch(lambda: 3, 2), TypeError,
     re.compile(r"launch: what the workers get must be picklable \(a lambda or a function within a function is not\), "
                r"but pickle says: .*lambda.*")),
    (lambda: launch(task, 2, (task, lambda: 3)), TypeError,
     re.compile(r"launch: what the workers get must be picklable .*, but pickle says: .*lambda.*")),
    (in_an_interactive_session, TypeError,
     ("launch: what the workers get must be of functions and classes that other processes can import, but task is of "
      "an interactive session; put it into a file of its own")),
    (in_a_package, TypeError,
     ("launch: what the workers get must be of functions and classes that other processes can import, but task is of "
      "a file __main__.py; put it into a file of its own")),
    (from_stdin, ValueError, "launch: workers import the main file, which must exist, but got '<stdin>'"),
    (while_the_main_file_is_imported, RuntimeError,
     re.compile(r'launch: workers must be started below `if __name__ == "__main__":`, but the call runs when a process '
                "imports the main file")),
    (within_a_rank, RuntimeError, "launch: workers cannot start workers, but rank 1 of 2 wants 2"),
    (with_a_group, RuntimeError, "launch: a process has one group of workers at a time, but got a second call"),
    (lambda: ranks(lambda one: one.all_reduce(frozen())), ValueError,
     "all_reduce: array must be writable, but got a read-only one of shape (3,)"),
    (lambda: ranks(lambda one: one.broadcast(frozen())), ValueError,
     "broadcast: array must be writable, but got a read-only one of shape (3,)"),
    (lambda: ranks(lambda one: one.all_reduce(Tensor([1.0]))), TypeError,
     "all_reduce: array must be a raw one, as tensor.array or np.array(number), but got Tensor"),
    (lambda: ranks(lambda one: one.broadcast(np.ones(3).sum())), TypeError,
     "broadcast: array must be a raw one, as tensor.array or np.array(number), but got float64"),
    (lambda: ranks(lambda one: one.all_gather([1.0])), TypeError,
     "all_gather: array must be a raw one, as tensor.array or np.array(number), but got list"),
    (lambda: ranks(lambda one: one.all_reduce(np.zeros(3, "complex64"))), TypeError,
     "all_reduce: dtype must be one of real numbers or bools, but got complex64"),
    (lambda: ranks(lambda one: one.all_reduce(np.zeros(3), "float8")), ValueError,
     "all_reduce: wire must be one of 'float16', 'bfloat16', but got 'float8'"),
    (lambda: ranks(lambda one: one.start_all_reduce(np.zeros(3, int), wire="bfloat16")), TypeError,
     "all_reduce: dtype must be one of floats for wire 'bfloat16', but got int64"),
    (lambda: ranks(lambda one: one.broadcast(np.zeros(3), 2)), ValueError,
     "broadcast: root must lie in [0, 1], but got 2"),
    (lambda: ranks(one_has_returned), RuntimeError,
     re.compile(r"all_reduce: all ranks must make the same calls, but rank 0 calls all_reduce of shape \(3,\) and "
                "dtype float32, and rank 1 has returned")),
    (lambda: ranks(lambda one: one.all_reduce(np.zeros(3 + one.rank))), RuntimeError,
     re.compile(r"all_reduce: all ranks must (make the same calls, but rank (0|1) calls all_reduce of shape \([34],\) "
                r"and dtype float64, and rank (0|1) calls all_reduce of shape \([34],\) and dtype float64"
                r"|go on, but rank \d has failed)")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=lambda value: getattr(value, "pattern", None))
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert isinstance(caught.value, kind)  # CallsDiffer is a RuntimeError
    assert re.fullmatch(text if isinstance(text, re.Pattern) else re.escape(text), str(caught.value))
