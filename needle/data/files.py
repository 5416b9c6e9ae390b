"""The files of datasets: where they are looked for, and what is said where one is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike


def find_file(op: str, folder: str | PathLike[str], names: Sequence[str], source: str) -> str:
    """The path of the first of `names` that is a file in `folder`.

    Raises FileNotFoundError with the names, the folder and `source`, which tells where the files are to be had.
    """
    for name in names:
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    wanted = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    place = os.path.abspath(folder)
    found = "there is no such folder as" if not os.path.isdir(place) else "nothing of that name is in"
    raise FileNotFoundError(f"{op}: folder must hold {wanted}, but {found} {place}; {source}")
