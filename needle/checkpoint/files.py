"""`save` and `load`: states in `.npz` and `.safetensors` files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO

from needle.backend import HostArray
from needle.checkpoint.arrays import Stored
from needle.checkpoint.atomic import whole_path
from needle.checkpoint.npz import write_npz
from needle.checkpoint.safetensors import read_safetensors, require_dtypes, require_package, write_safetensors
from needle.checkpoint.structure import flatten, nested
from needle.files import Path, open_whole, path_name
from needle.npz import read_npz

__all__ = ["load", "save"]

_WRITERS: dict[str, Callable[[str, dict[str, Stored], str | None], None]] = {
    ".npz": write_npz,
    ".safetensors": write_safetensors,
}
_READERS: dict[str, Callable[[BinaryIO], tuple[dict[str, HostArray], bytearray | str | None]]] = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
}


def save(path: Path, state: dict[Any, Any]) -> None:
    """Write a state to a `.npz` or `.safetensors` file, whole or not at all; the same state makes the same bytes.

    A state is plain data: a dict of arrays, as `model.state_dict()` is, or dicts (whose keys are text or integers),
    lists, tuples, numbers, text, bools, None and arrays, nested at will. Arrays are NumPy's and needle's, on any
    device, of bools or of numbers of at most 64 bits (complex numbers: twice that, if the file is a `.npz`). A dict of
    arrays keeps its names, and `np.load` or `safetensors.torch.load_file` reads it.

    An earlier file stays as it was if anything fails. Leftovers of killed writers of the same path are removed first.

    Raises TypeError for what is not plain data, and ValueError for another ending of the path, or a state that is
    nested too deeply, or ImportError without the package safetensors, before anything is written; the system's OSError
    (PermissionError …) if the file cannot be written.
    """
    kind = _kind("save", path)
    arrays, text = flatten("save", state)
    if kind == ".safetensors":
        require_dtypes("save", arrays)
    with whole_path("save", path) as temporary:
        _WRITERS[kind](temporary, arrays, text)


def load(path: Path) -> dict[Any, Any]:
    """The state that `save` wrote to a `.npz` or `.safetensors` file; or the arrays that NumPy or torch wrote, by name.

    Arrays come back as NumPy's, in native byte order, each with memory of its own; tuples as lists, NumPy's scalars as
    arrays of shape (), bfloat16 of other writers as float32. Nothing is unpickled, and memory is bounded by what the
    file can hold.

    Raises ValueError if the path has another ending, or the file is cut, changed, or holds what is not read; the
    system's OSError (FileNotFoundError …) if it cannot be read; ImportError without the package safetensors. A changed
    `.npz` is always noticed, by its checksums; of a `.safetensors` file only the header can be checked.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "run.npz")
    ...     save(path, {"epoch": 3, "losses": [0.5, float("inf")], "best": None})
    ...     load(path)
    {'epoch': 3, 'losses': [0.5, inf], 'best': None}
    """
    kind = _kind("load", path)
    with open_whole("load", path, f"{kind} file of numbers") as file:
        return nested(*_READERS[kind](file))


def _kind(op: str, path: Path) -> str:
    """The ending of a path that names a format, whose package is there."""
    name = path_name(op, "path", path)
    kind = os.path.splitext(name)[1].lower()
    if kind not in _WRITERS:
        raise ValueError(f"{op}: path must end in {' or '.join(_WRITERS)}, but got {name!r}")
    if kind == ".safetensors":
        require_package(op)
    return kind
