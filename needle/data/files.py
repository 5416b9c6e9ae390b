"""Finding the files of a dataset, and the error if one is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from typing import TypeAlias

__all__ = ["Path", "find_file"]

Path: TypeAlias = str | PathLike[str]


def find_file(op: str, folder: Path, names: Sequence[str], source: str) -> str:
    """The path of the first of `names` that is a file in `folder`.

    Raises FileNotFoundError with the names, the folder and `source`, which says where to get the files.
    """
    for name in names:
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    expected = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    full_path = os.path.abspath(folder)
    problem = "there is no such folder as" if not os.path.isdir(full_path) else "nothing of that name is in"
    raise FileNotFoundError(f"{op}: folder must hold {expected}, but {problem} {full_path}; {source}")
