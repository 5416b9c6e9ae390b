"""Files of Keras 3: `.weights.h5`, and `.keras`, a ZIP archive with one of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from math import prod
from typing import Any, BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np

from needle.backend import HostArray
from needle.backend.narrow import widen
from needle.checkpoint.arrays import is_stored
from needle.files import Broken, Path, open_whole
from needle.npz import native

__all__ = ["read_keras"]

_MEMBER = "model.weights.h5"
_DEEPEST = 100  # levels of groups


def read_keras(path: Path) -> dict[str, HostArray]:
    """The weights in a `.weights.h5` or `.keras` file of Keras 3, by the names of layers: "stem/0", "stem/1".

    The names are those that layers were given (`name="stem"`) or got, as `model.summary()` prints them, with those of
    the layers around them: "block/dense_3/0". The file has other paths ("layers/conv2d/vars/0"), which stand for
    the weights of layers with the same name. Numbers count the weights of a layer: kernel, bias; gamma, beta, moving
    mean, moving variance; those that it was made without are not counted. "optimizer/0" and so on are the optimizer's.
    bfloat16 becomes float32.

    Raises ValueError if the file is broken or holds what Keras does not write (links to other files, compressed or
    shared data); the system's OSError (FileNotFoundError …) if it cannot be read; ImportError without the package h5py.
    """
    h5py = _h5py()
    with open_whole("read_keras", path, "file of Keras 3") as file:
        start = file.read(4)
        file.seek(0)
        return _read(h5py, _unzipped(file) if start == b"PK\3\4" else file)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"read_keras: needs the package h5py, which `pip install 'needle-dl[hdf5]'` installs, but got: {error}"
        ) from error
    return h5py


def _unzipped(file: BinaryIO) -> BytesIO:
    """The member with the weights, which lies in the archive as it is."""
    try:
        with ZipFile(file) as archive:
            members = [info for info in archive.infolist() if info.filename == _MEMBER]
            if len(members) != 1:
                raise Broken(f"holds {', '.join(archive.namelist()) or 'nothing':.200}, not one {_MEMBER}")
            if members[0].compress_type or members[0].flag_bits & 1:
                raise Broken(f"holds {_MEMBER} compressed or encrypted, which Keras does not do")
            if members[0].file_size != members[0].compress_size:
                raise Broken(f"promises {members[0].file_size} bytes for {_MEMBER}, more than it holds")
            return BytesIO(archive.read(members[0]))
    except (BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        if isinstance(error, Broken):
            raise
        raise Broken(f"is not a complete ZIP archive: {error}") from error


def _read(h5py: Any, file: BinaryIO) -> dict[str, HostArray]:
    size = file.seek(0, os.SEEK_END)
    try:
        with h5py.File(file, "r") as root:
            found = [*_datasets(h5py, root, "", "", set(), 0)]
            found.sort(
                key=lambda entry: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", entry[0])]
            )
            promised = sum(prod(data.shape) * data.dtype.itemsize for _, _, data in found)
            if promised > size:
                raise Broken(f"promises {promised} bytes, more than the {size} that it has")
            twice = {name for name, count in Counter(name for _, name, _ in found).items() if count > 1}
            if "vars" not in root:
                raise Broken("is one of several shards, in which layers have lost their names: save one file in Keras")
            arrays = {path if name in twice else name: _array(path, data) for path, name, data in found}
            if len(arrays) < len(found):
                raise Broken("holds a layer with the path of another as its name")
            return arrays
    except Broken:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:  # h5py's
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Broken(f"is not a complete HDF5 file: {error}") from error


def _datasets(
    h5py: Any, group: Any, path: str, layer: str, seen: set[Any], depth: int
) -> Iterator[tuple[str, str, Any]]:
    """(path in the file, name, dataset) of all datasets below a group, which belong to `layer`."""
    if depth > _DEEPEST:
        raise Broken(f"holds more than {_DEEPEST} levels of groups")
    for key in group:
        where = f"{path}{key}"
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise Broken(f"holds {where!r}, a link to another place")
        member = group[key]
        place = h5py.h5o.get_info(member.id).addr
        if place in seen:
            raise Broken(f"holds {where!r}, which is something else, too")
        seen.add(place)
        if isinstance(member, h5py.Dataset):
            if "vars" not in path.split("/"):
                raise Broken(f"holds {where!r} outside of the variables of a layer, as Keras 2 wrote them")
            _check(h5py, where, member)
            yield where, f"{layer}{key}", member
        elif not isinstance(member, h5py.Group):
            raise Broken(f"holds {where!r}, which is neither a group nor an array")
        elif key == "vars":
            yield from _datasets(h5py, member, f"{where}/", layer, seen, depth + 1)
        else:
            name = "optimizer" if where == "optimizer" else _name_of(h5py, member, key)
            yield from _datasets(h5py, member, f"{where}/", f"{layer}{name}/" if name else layer, seen, depth + 1)


def _name_of(h5py: Any, group: Any, key: str) -> str:
    """The name of the layer whose state a group holds; "" of a list of layers."""
    if not isinstance(group.get("vars", getlink=True), h5py.HardLink):
        return ""
    name = group["vars"].attrs.get("name")
    return name if isinstance(name, str) and name else key


def _check(h5py: Any, path: str, data: Any) -> None:
    """Require a dataset that lies in the file as it is: no link to others, no promise."""
    if data.shape is None:
        raise Broken(f"holds {path!r}, which has no shape")
    form, layouts = data.id.get_create_plist(), (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS)
    if form.get_layout() not in layouts or form.get_external_count():
        raise Broken(f"holds {path!r} in pieces, compressed or in other files, which Keras does not do")
    if not (is_stored(data.dtype) or _is_bfloat16(data)):
        raise Broken(f"holds {path!r} of type {data.dtype}, but only bools and numbers of at most 64 bits are read")
    if data.id.get_storage_size() != prod(data.shape) * data.dtype.itemsize:
        raise Broken(f"holds {path!r} with {data.id.get_storage_size()} bytes for {data.dtype} of shape {data.shape}")


def _is_bfloat16(data: Any) -> bool:
    return bool(data.dtype == np.dtype("V2")) and data.attrs.get("dtype") == "bfloat16"


def _array(path: str, data: Any) -> HostArray:
    array: HostArray = np.asarray(data[()])
    return native(path, array) if is_stored(data.dtype) else widen(native(path, array.view("<u2")), "bfloat16")
