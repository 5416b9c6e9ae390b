"""Finding the files of a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence

from needle.files import Path, path_name

__all__ = ["find_file"]


def find_file(op: str, folder: Path, names: Sequence[str], source: str) -> str:
    """The path of the first of `names` that is a file in `folder`.

    Without a file, the path of the first name that is something else; `open_file` says what it is.

    Raises FileNotFoundError (PermissionError if the folder may not be searched) with the names, the folder and
    `source`, which says where to get the files.
    """
    folder = path_name(op, "folder", folder)
    paths = [os.path.join(folder, name) for name in names]
    for exists in (os.path.isfile, os.path.lexists):
        for path in paths:
            if exists(path):
                return path
    expected = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    full_path, problem = os.path.abspath(folder), "nothing of that name is in"
    kind: type[OSError] = FileNotFoundError
    try:
        os.stat(os.path.join(full_path, "."))
    except PermissionError:
        problem, kind = "there is no permission to search", PermissionError
    except NotADirectoryError:
        problem = "there is a file in place of a folder:"
    except (OSError, ValueError):
        problem = "there is no such folder as"
    raise kind(f"{op}: folder must hold {expected}, but {problem} {full_path}; {source}")
