"""Arrays beside unreadable pages: `pytest --guard after` ends a test that reads beyond the end of an array.

It covers what NumPy allocates on the thread that runs the tests, so run it with one BLAS thread. It needs a C compiler.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SIDES = ("after", "before")  # of the array
SOURCE = Path(__file__).with_name("allocator.c")
SET_HANDLER = 304  # the place of PyDataMem_SetHandler in NumPy's table of C functions
NAME = b"mem_handler"  # kept here: a capsule does not own its name


def guard(side: str) -> None:
    """Let NumPy put new arrays beside a guard page, for the rest of this process.

    Raises FileNotFoundError without a C compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "allocator.so")
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
        handler = ctypes.CDLL(str(library)).guarded_handler
    handler.restype = ctypes.c_void_p
    python = ctypes.pythonapi
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    functions = python.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    address = ctypes.cast(functions, ctypes.POINTER(ctypes.c_void_p))[SET_HANDLER]
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)
    set_handler(python.PyCapsule_New(handler(SIDES.index(side)), NAME, None))
