"""Files of a dataset: finding them, opening regular files only, and reading no more than they hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import BinaryIO, TypeAlias

__all__ = ["Path", "find_file", "open_file", "path_name", "read_at_most"]

Path: TypeAlias = str | PathLike[str]

_PIECE = 2**20  # bytes to read at a time
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def path_name(op: str, name: str, value: Path) -> str:
    """A path as a string; a number, which Python would take for an open file, is refused."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be a path, but got {type(value).__name__}") from None


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
    except (OSError, ValueError):
        problem = "there is no such folder as"
    raise kind(f"{op}: folder must hold {expected}, but {problem} {full_path}; {source}")


@contextmanager
def open_file(op: str, path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A FIFO is not waited for, and a device is not read.

    Raises OSError if the path is no regular file, or the system's subclass if it cannot be read; ValueError for a name
    that no file can have, and TypeError if `path` is not a path.
    """
    path = path_name(op, "path", path)
    try:
        try:
            kind = stat.S_IFMT(os.stat(path).st_mode)
        except ValueError as error:  # a null byte, or a character that has no bytes
            raise ValueError(f"{op}: path must be a name that a file can have, but got {path!r}: {error}") from error
        if kind != stat.S_IFREG:
            raise OSError(f"{op}: path must be a regular file, but {path} is {_KINDS.get(kind, 'none')}")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise type(error)(f"{op}: path must be a file that can be read, but {path}: {error.strerror}") from error


def read_at_most(file: BinaryIO, size: int) -> bytearray:
    """Read up to `size` bytes, in pieces: memory grows with what the file holds, not with what it announces."""
    content = bytearray()
    while piece := file.read(min(_PIECE, size - len(content))):
        content += piece
    return content
