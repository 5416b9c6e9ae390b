"""`save` and `load`: states in `.npz` and `.safetensors` files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO

from needle.backend import HostArray
from needle.checkpoint.arrays import Broken, Stored
from needle.checkpoint.atomic import whole_file
from needle.checkpoint.npz import read_npz, write_npz
from needle.checkpoint.safetensors import check_dtypes, read_safetensors, write_safetensors
from needle.checkpoint.structure import flatten, nested
from needle.files import Path, open_file, path_name

__all__ = ["load", "save"]

_WRITERS: dict[str, Callable[[BinaryIO, dict[str, Stored], str | None], None]] = {
    ".npz": write_npz,
    ".safetensors": write_safetensors,
}
_READERS: dict[str, Callable[[BinaryIO, int], tuple[dict[str, HostArray], bytearray | str | None]]] = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
}


def save(path: Path, state: dict[Any, Any]) -> None:
    """Write a state to a `.npz` file, whole or not at all. `load` reads it, and so do `np.load` and torch.

    A state is a dict of arrays, as `model.state_dict()`, or plain data: dicts (keys are text or integers), lists,
    numbers, text, bools, None and arrays, nested at will. Arrays are those of NumPy and of needle, on any device; their
    dtypes bools and numbers of at most 64 bits (complex: 128). They are not copied.
    """
    kind = _kind("save", path)
    arrays, text = flatten("save", state)
    if kind == ".safetensors":
        check_dtypes("save", arrays)
    with whole_file("save", path) as file:
        _WRITERS[kind](file, arrays, text)


def load(path: Path) -> dict[Any, Any]:
    """The state in a `.npz` file that `save` wrote, or the arrays of one by `np.savez`: on the host.

    Arrays come back as NumPy's, tuples as lists, NumPy's scalars as arrays of shape (). Nothing is unpickled.
    """
    kind = _kind("load", path)
    with open_file("load", path) as file:
        try:
            return nested(*_READERS[kind](file, os.fstat(file.fileno()).st_size))
        except Broken as error:
            told = f"load: path must be a whole {kind} file of numbers, but {os.fsdecode(path)} {error}"
            raise ValueError(told) from error


def _kind(op: str, path: Path) -> str:
    """The ending of a path that names a format."""
    name = path_name(op, "path", path)
    kind = os.path.splitext(name)[1].lower()
    if kind not in _WRITERS:
        raise ValueError(f"{op}: path must end in {' or '.join(_WRITERS)}, but got {name!r}")
    return kind
