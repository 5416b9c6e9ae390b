"""`.npz` files of Chainer and DeZero: arrays, and the objects that stand for parameters that were never set."""

from __future__ import annotations

from typing import Any
from zipfile import BadZipFile, ZipFile

from needle import check, npz
from needle.backend import HostArray
from needle.files import Broken, Path, open_whole

__all__ = ["read_npz"]

_LARGEST_NONE = 1000  # bytes of a .npy with a pickled None, which has about 280
_HEADER = b"'descr': '|O', 'fortran_order': False, 'shape': (), }"
_WORDS = {"O8", "b", "|", "numpy", "ndarray", "dtype", "numpy ndarray", "numpy dtype"}
_WORDS |= {f"numpy.{core}.multiarray{end}" for core in ("core", "_core") for end in ("", " _reconstruct")}
_WORDS |= {"_reconstruct"}
_MEMO = {"PROTO", "FRAME", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"}
_END = ["EMPTY_LIST", "NONE", "APPEND", "TUPLE", "BUILD", "STOP"]  # of the pickle of a NumPy array that holds None


def read_npz(path: Path, prefix: str = "") -> dict[str, HostArray | None]:
    """The arrays of a `.npz` file by `chainer.serializers.save_npz` or DeZero's `save_weights`, by name ("conv/W").

    None stands for a parameter that was never set, as of a layer that was never called: the file has a pickled None,
    which is recognized and not unpickled. With `prefix` only names that begin with it are read, and it is taken off:
    "updater/model:main/" finds the model in the snapshot of a trainer.

    Raises ValueError if the file is broken or holds what is not read, or no name begins with `prefix`; the system's
    OSError (FileNotFoundError …) if it cannot be read.
    """
    check.instance("read_npz", "prefix", prefix, str)
    with open_whole("read_npz", path, ".npz file of numbers") as file:
        npz.read_npz(file, ())  # the archive is whole, and its members lie apart
        with ZipFile(file) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [name for name in members if name.startswith(prefix)]
            unset = {name for name in names if _is_none(archive, members[name])}
        if not names:
            raise Broken(f"holds no name that begins with {prefix!r}, but {', '.join(members) or 'nothing':.200}")
        arrays, _ = npz.read_npz(file, [name for name in names if name not in unset])
    return {name.removeprefix(prefix): arrays.get(name) for name in names}


def _is_none(archive: ZipFile, info: Any) -> bool:
    """Whether a member is a `.npy` with an object array of shape () that holds None."""
    if info.file_size > _LARGEST_NONE:
        return False
    import pickletools

    try:
        header, _, content = archive.read(info).partition(b"\n")
        if _HEADER not in header:
            return False
        parts = [(code.name, argument) for code, argument, _ in pickletools.genops(content) if code.name not in _MEMO]
    except (*npz.ERRORS, BadZipFile):  # zipfile's and pickletools'; what is wrong is said when the rest is read
        return False
    words = {argument for _, argument in parts if isinstance(argument, str)}
    return words <= _WORDS and [name for name, _ in parts][-len(_END) :] == _END
