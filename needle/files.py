"""Regular files: their names and errors, opening them for reading, and reading no more than they hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import BinaryIO, TypeAlias

__all__ = ["Broken", "Path", "file_status", "open_file", "open_whole", "path_name", "read_at_most", "system_error"]

Path: TypeAlias = str | PathLike[str]

_PIECE = 2**20  # bytes to read at a time
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Broken(ValueError):
    """What is wrong with a file that is read: the end of a sentence that begins with its path."""


def path_name(op: str, name: str, value: Path) -> str:
    """A path as a string; a number, which Python would take for an open file, is refused."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be a path, but got {type(value).__name__}") from None


def file_status(op: str, path: str) -> os.stat_result:
    """What the system knows about a regular file; links are followed.

    Raises OSError if the path is no regular file, or the system's subclass if there is none or it may not be found;
    ValueError for a name that no file can have.
    """
    try:
        status = os.stat(path)
    except ValueError as error:  # a null byte, or a character that has no bytes
        raise ValueError(f"{op}: path must be a name that a file can have, but got {path!r}: {error}") from error
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(f"{op}: path must be a regular file, but {path} is {_KINDS.get(kind, 'none')}")
    return status


def system_error(op: str, path: str, deed: str, error: OSError) -> OSError:
    """An error of the system in needle's words, of the same class and with its `errno`."""
    told = type(error)(f"{op}: path must be a file that can be {deed}, but {path}: {error.strerror}")
    told.errno = error.errno
    return told


@contextmanager
def open_file(op: str, path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A FIFO is not waited for, and a device is not read.

    Raises OSError if the path is no regular file, or the system's subclass if it cannot be read; ValueError for a name
    that no file can have, and TypeError if `path` is not a path.
    """
    path = path_name(op, "path", path)
    try:
        file_status(op, path)
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        raise system_error(op, path, "read", error) from error


@contextmanager
def open_whole(op: str, path: Path, what: str) -> Iterator[BinaryIO]:
    """`open_file`, where Broken becomes a ValueError that names the path, and what it should have held."""
    with open_file(op, path) as file:
        try:
            yield file
        except Broken as error:
            raise ValueError(f"{op}: path must be a whole {what}, but {os.fsdecode(path)} {error}") from error


def read_at_most(file: BinaryIO, size: int) -> bytearray:
    """Read up to `size` bytes, in pieces: memory grows with what the file holds, not with what it announces."""
    content = bytearray()
    while piece := file.read(min(_PIECE, size - len(content))):
        content += piece
    return content
