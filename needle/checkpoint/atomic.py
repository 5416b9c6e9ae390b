"""Files that are written whole or not at all: a file in a temporary folder beside the target, synced, then renamed.

A writer that is killed leaves its temporary folder. Each writer holds a lock on its own (flock, which ends with the
process): that tells such leftovers from the folders of writers at work, in any process or thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import TextIOWrapper
from stat import S_IMODE
from threading import Thread
from typing import BinaryIO, Literal, TextIO, overload

from needle import check
from needle.files import Path, file_status, path_name, system_error

__all__ = ["remove_leftovers", "whole_path", "write_atomically"]

_END = ".needle-tmp"
_LEFTOVER = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}{re.escape(_END)}", re.DOTALL)
_LONGEST = 200  # bytes of the target's name in that of its temporary folder, which may have 255


@overload
def write_atomically(path: Path, mode: Literal["wb"] = "wb") -> AbstractContextManager[BinaryIO]: ...
@overload
def write_atomically(path: Path, mode: Literal["w"]) -> AbstractContextManager[TextIO]: ...
def write_atomically(path: Path, mode: str = "wb") -> AbstractContextManager[BinaryIO] | AbstractContextManager[TextIO]:
    """Open a file that takes the place of `path` when the `with` block ends, whole and on disk; use it in a `with`.

    If the block raises, or the process is killed, or the disk is full, `path` stays what it was. Of writers at the same
    time the last wins. Mode "w" writes text in UTF-8, with line ends as they are given. As with `open`, a link is
    followed, permissions are kept or follow the umask, and a read-only file is refused. Leftovers of killed writers of
    the same path are removed first.

    Raises OSError if `path` is a folder or the like, and the system's subclass (PermissionError …) if it cannot be
    written; ValueError for a name that no file can have or another mode, TypeError if `path` is not a path.
    """
    op = "write_atomically"
    check.one_of(op, "mode", mode, ("wb", "w"))
    return _whole_file(op, path) if mode == "wb" else _whole_text(op, path)


@contextmanager
def _whole_text(op: str, path: Path) -> Iterator[TextIO]:
    with _whole_file(op, path) as file:
        text = TextIOWrapper(file, "utf-8", newline="")
        yield text
        if not text.closed:
            text.flush()


@contextmanager
def _whole_file(op: str, path: Path) -> Iterator[BinaryIO]:
    with whole_path(op, path) as temporary:
        file = open(temporary, "wb")  # noqa: SIM115 (it is closed without an error, which could hide the block's)
        try:
            yield file
            if not file.closed:
                file.flush()
        finally:
            with suppress(OSError):  # what could not be written
                file.close()


@contextmanager
def whole_path(op: str, path: Path) -> Iterator[str]:
    """`write_atomically` by name, for `op`: the path of an empty file, which the block may write or replace."""
    name = target = path_name(op, "path", path)
    try:
        target, mode = _target(op, name)
        folder, base = os.path.split(target)
        stem = os.fsdecode(os.fsencode(base)[:_LONGEST])
        with suppress(OSError):  # a folder in which one may write, but not look
            _remove_leftovers(folder, stem)
        with _new_file(os.path.join(folder, f".{stem}")) as temporary:
            mode = S_IMODE(os.stat(temporary).st_mode) if mode is None else mode
            yield temporary
            _sync(temporary, os.O_WRONLY, mode)
            _rename(temporary, target)
        with suppress(OSError):  # the new name; if that fails, a crash of the machine may bring back the old file
            _sync(folder, os.O_RDONLY)
    except OSError as error:
        # The system's errors about this file. Others that the block raises are not ours.
        if error.errno is None or not (error.filename in (None, name, target) or _END in str(error.filename)):
            raise
        raise system_error(op, name, "written", error) from error


def _target(op: str, path: str) -> tuple[str, int | None]:
    """The file that a path leads to, by its real path, and its permissions; None if it does not exist."""
    try:
        status = file_status(op, path)
    except FileNotFoundError:
        if not os.path.basename(path):  # "", or a slash at the end
            raise
        return os.path.realpath(path), None
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{op}: path must be a file that can be written, but {path} is read-only")
    return os.path.realpath(path), S_IMODE(status.st_mode)


@contextmanager
def _new_file(start: str) -> Iterator[str]:
    """The path of an empty file in a new, locked folder, whose name begins with `start`; removed at the end."""
    room, descriptor = "", -1
    try:
        while not os.path.exists(room):  # removed by another writer before it was locked
            if descriptor >= 0:
                removed, descriptor = descriptor, -1
                os.close(removed)
            room = f"{start}.{os.urandom(8).hex()}{_END}"
            os.mkdir(room, 0o700)
            with suppress(FileNotFoundError):
                descriptor = os.open(room, os.O_RDONLY | os.O_DIRECTORY)
                _lock(descriptor)
        file = os.path.join(room, "file")
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o666))
        yield file
        _remove_folder(room)
    finally:
        _remove_folder(room)
        if descriptor >= 0:
            os.close(descriptor)


def _remove_folder(path: str) -> bool:
    """Remove a folder and its files; whether it had no folders, and could be removed."""
    try:
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        os.rmdir(path)
    except OSError:
        return False
    return True


def _sync(path: str, flags: int, mode: int | None = None) -> None:
    """Wait until a file or folder is on disk; first give it these permissions, whatever the umask."""
    descriptor = os.open(path, flags)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(temporary: str, target: str) -> None:
    """Put a file in the place of another. A thread frees the space of the old one, which takes a tenth of a save."""
    old = -1
    with suppress(OSError):  # there is none
        old = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    os.replace(temporary, target)
    if old >= 0:
        try:
            Thread(target=os.close, args=(old,)).start()
        except RuntimeError:  # there are too many threads, or the interpreter ends
            os.close(old)


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed; whether that succeeded. Some file systems have no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary folders that killed writers left in `folder`; returns their paths.

    Those of writers that are at work, in this process or another, stay.

    Raises the system's OSError if the folder cannot be read, TypeError if `folder` is not a path.
    """
    name = path_name("remove_leftovers", "folder", folder)
    try:
        return _remove_leftovers(name)
    except OSError as error:
        told = f"remove_leftovers: folder must be a folder that can be read, but {name}: {error.strerror}"
        raise type(error)(told) from error


def _remove_leftovers(folder: str, stem: str | None = None) -> list[str]:
    """Remove leftovers in a folder: those for a target with this stem, or all."""
    with os.scandir(folder) as entries:
        found = [(entry.path, _LEFTOVER.fullmatch(entry.name)) for entry in entries]
    return [path for path, match in found if match and stem in (None, match[1]) and _remove_if_abandoned(path)]


def _remove_if_abandoned(path: str) -> bool:
    """Remove a temporary folder that no process has locked; whether it was removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return _lock(descriptor, wait=False) and _remove_folder(path)
    finally:
        os.close(descriptor)
