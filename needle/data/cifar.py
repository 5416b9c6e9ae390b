"""CIFAR-10: 60,000 color photographs of 32x32 pixels in ten classes, by A. Krizhevsky, V. Nair and G. Hinton.

Reads both formats of https://www.cs.toronto.edu/~kriz/cifar.html, "python" and "binary". The python format is a pickle,
and unpickling can run code. This reader replaces the few names that such files contain with classes that only store
their arguments, and refuses every other name: nothing that a file names is imported or run. Nor can a small file take
much memory: sizes that it announces are compared with what it holds before it is unpickled.
"""

from __future__ import annotations

import io
import numbers
import os
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import ImageDataset, Transform
from needle.data.files import find_file
from needle.files import Path, open_file

__all__ = ["CIFAR10Dataset"]

_CLASSES = 10
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_LARGEST = 2**27  # bytes of a file; 10,000 images take 31 MB, or 100 MB in the oldest protocol
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_SOURCE = "CIFAR-10 is at https://www.cs.toronto.edu/~kriz/cifar.html"


class CIFAR10Dataset(ImageDataset):
    """CIFAR-10: float32 images (3, 32, 32) in [0, 1] and uint8 labels 0 to 9, in file order.

    `base_folder` contains `data_batch_1` to `data_batch_5` (for `train`) and `test_batch`, with the suffix `.bin` in
    the binary format; or it contains the unpacked folder `cifar-10-batches-py` or `cifar-10-batches-bin`. The five
    files have the same number of images, 10,000 in the original. `p` is part of the course's signature and has no
    effect: each transform has its own probability.

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, ValueError if a file is not in either
    format or has fewer images than another one, and TypeError if `p` is not a number (transforms come after it).
    """

    def __init__(
        self,
        base_folder: Path,
        train: bool,
        p: float = 0.5,
        transforms: Sequence[Transform] | None = None,
    ) -> None:
        if not isinstance(p, numbers.Real):
            raise TypeError(f"CIFAR10Dataset: p must be a number (transforms follow it), but got {type(p).__name__}")
        check.number("CIFAR10Dataset", "p", p, least=0, most=1)
        stems = _TRAIN if check.instance("CIFAR10Dataset", "train", train, bool) else _TEST
        paths = [_find(base_folder, stem) for stem in stems]
        parts = [_read(path) for path in paths]
        counts = [len(labels) for _, labels in parts]
        if len(set(counts)) > 1:
            found = ", ".join(f"{path} {count}" for path, count in zip(paths, counts, strict=True))
            raise ValueError(f"CIFAR10Dataset: all files must hold the same number of images, but found {found}")
        pixels = np.concatenate([pixels for pixels, _ in parts])
        labels = np.concatenate([labels for _, labels in parts])
        images = np.divide(pixels, 255, dtype=np.float32).reshape(-1, *_SHAPE)
        super().__init__(images, labels, transforms=transforms)

    @property
    def X(self) -> HostArray:
        """All images (N, 3, 32, 32), before any transform."""
        return self.arrays[0]

    @property
    def y(self) -> HostArray:
        """All labels (N,)."""
        return self.arrays[1]


def _find(folder: Path, stem: str) -> str:
    """The path of one file of the dataset, in either format."""
    names = [stem, f"{stem}.bin", f"cifar-10-batches-py/{stem}", f"cifar-10-batches-bin/{stem}.bin"]
    return find_file("CIFAR10Dataset", folder, names, _SOURCE)


def _read(path: str) -> tuple[HostArray, HostArray]:
    """Pixels (n, 3072) and labels (n,) of one file, both uint8."""
    with open_file("CIFAR10Dataset", path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise ValueError(f"CIFAR10Dataset: a file must have at most {_LARGEST} bytes, but {path} has {size}")
        content = file.read(size)
    pixels, labels = _read_binary(path, content) if path.endswith(".bin") else _read_python(path, content)
    if not len(pixels):
        raise ValueError(f"CIFAR10Dataset: a file must hold at least one image, but {path} holds none")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < _CLASSES:
            raise ValueError(
                f"CIFAR10Dataset: labels must be integers in [0, {_CLASSES - 1}], "
                f"but label {position} of {path} is {_kind(label)}"
            )
    return pixels, np.array(labels, np.uint8)


def _read_binary(path: str, content: bytes) -> tuple[HostArray, list[Any]]:
    """Pixels and labels of a binary file: records of one label byte and 3072 pixel bytes."""
    if len(content) % (1 + _PIXELS):
        raise ValueError(
            f"CIFAR10Dataset: a binary file must consist of records of {1 + _PIXELS} bytes, "
            f"but {path} has {len(content)} bytes, {len(content) % (1 + _PIXELS)} over"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].tolist()


def _read_python(path: str, pickled: bytes) -> tuple[HostArray, list[Any]]:
    """Pixels and labels of a pickled dict with the keys `data` and `labels`, as bytes (Python 2 strings) or strings."""
    try:
        _check_opcodes(pickled)
        content = _Unpickler(io.BytesIO(pickled), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        reason = f"{error!r:.300}"
        raise ValueError(f"CIFAR10Dataset: {path} must be a complete pickle of CIFAR-10, but: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"CIFAR10Dataset: a pickle must hold a dict, but {path} holds {_kind(content)}")
    fields = {_text(key): value for key, value in content.items()}
    for name in ("data", "labels"):
        if name not in fields:
            names = ", ".join(sorted(filter(None, fields))) or "no names"
            raise ValueError(f"CIFAR10Dataset: the dict must have a key {name}, but {path} has {names:.300}")
    pixels, labels = _pixels(path, fields["data"]), fields["labels"]
    if not isinstance(labels, list):
        raise ValueError(f"CIFAR10Dataset: labels must be a list, but {path} holds {_kind(labels)}")
    if len(labels) != len(pixels):
        raise ValueError(
            "CIFAR10Dataset: images and labels must agree in number, "
            f"but {path} holds {len(pixels)} images and {len(labels)} labels"
        )
    return pixels, labels


def _check_opcodes(pickled: bytes) -> None:
    """Refuse a pickle for which the unpickler would allocate much more than the file's own size.

    `genops` refuses values that are longer than the file. Left are: frames; the memo, which is as long as its highest
    index; and objects, which may take a hundred bytes for each opcode. A batch has about five opcodes per image.
    """
    import pickletools  # imported when it is needed: the import takes a millisecond

    most = 10_000 + len(pickled) // 256
    for count, (opcode, argument, position) in enumerate(pickletools.genops(pickled)):
        limit = len(pickled) if opcode.name == "FRAME" else count if "PUT" in opcode.name else None
        if limit is not None and argument is not None and argument > limit:
            raise pickle.UnpicklingError(f"{opcode.name} at byte {position} announces {argument}")
        if count > most:
            raise pickle.UnpicklingError(f"a file of {len(pickled)} bytes has more than {most} opcodes")


class _Unpickler(pickle.Unpickler):
    """An unpickler that resolves only the names in a pickled NumPy array, each to a stand-in."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not a name that CIFAR-10's files hold") from None


class _StandIn:
    """Replaces a name in a pickle: stores the arguments of the call, and the state."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_StandIn):
    """An array; its state is (version, shape, dtype, is Fortran-ordered, bytes)."""


class _ArrayType(_StandIn):
    """The class `numpy.ndarray`, an argument of `_Array`."""


class _DType(_StandIn):
    """A dtype; its first argument is its code."""


class _Latin1(_StandIn):
    """Bytes, which Python 3 writes as latin-1 text in pickle protocols without bytes; one text may occur many times."""

    def __init__(self, text: Any, encoding: Any) -> None:
        if encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"_codecs.encode must be called with latin1, but got {encoding!r:.100}")
        super().__init__(text, encoding)


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.ndarray": _ArrayType,
    "numpy.dtype": _DType,
    "_codecs.encode": _Latin1,
}


def _pixels(path: str, data: Any) -> HostArray:
    """The uint8 array (n, 3072) described by a stand-in."""
    if not isinstance(data, _Array):
        raise ValueError(f"CIFAR10Dataset: data must be an array, but {path} holds {_kind(data)}")
    match data.state:
        case (_, tuple(shape), _DType(arguments=(code, *_)), fortran, bytes() | _Latin1() as values):
            dtype, content = _text(code), _raw(values)
        case _:
            dtype = content = None
    if dtype is None or content is None:
        raise ValueError(f"CIFAR10Dataset: data must be an array of bytes, but {path} holds none in its array")
    sizes = [size for size in shape if type(size) is int and abs(size) < 2**31]
    if dtype != "u1" or sizes[1:] != [_PIXELS] or len(sizes) < len(shape) or fortran:
        order = ", in Fortran's order" if fortran else ""
        raise ValueError(
            f"CIFAR10Dataset: data must be uint8 of shape (n, {_PIXELS}), "
            f"but {path} holds type {dtype:.20} and shape {tuple(sizes[:8])}{order}"
        )
    if len(content) != shape[0] * _PIXELS:
        raise ValueError(
            f"CIFAR10Dataset: data of shape {shape} must have {shape[0] * _PIXELS} bytes, but {path} has {len(content)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _raw(value: bytes | _Latin1) -> bytes | None:
    """The bytes that a value of a pickle stands for; None if it is not in latin-1."""
    if isinstance(value, bytes):
        return value
    text = value.arguments[0]
    try:
        return text.encode("latin-1") if isinstance(text, str) else None
    except UnicodeEncodeError:
        return None


def _text(value: Any) -> str | None:
    """The text that a value of a pickle stands for; None if it stands for something else."""
    if isinstance(value, _Latin1):
        value = value.arguments[0]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None


def _kind(value: Any) -> str:
    """A value of a pickle for an error message: an integer itself, otherwise its type."""
    if type(value) is int and abs(value) < 2**63:
        return str(value)
    return "an array" if isinstance(value, _Array) else f"a value of type {type(value).__name__.lstrip('_')}"
