"""CIFAR's pickles, read without unpickling what they name.

A pickle can run code. This reader replaces the few names that such files contain with classes that only store their
arguments, and refuses every other name: nothing that a file names is imported or run. Nor can a small file take much
memory: sizes that it announces are compared with what it holds before it is unpickled.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from needle.backend import HostArray

__all__ = ["read_pickle", "shown"]

_PIXELS = 3 * 32 * 32


def read_pickle(op: str, path: str, pickled: bytes, key: str) -> tuple[HostArray, list[Any]]:
    """Pixels (n, 3072) and labels of a pickled dict: `data` and `key`, as bytes (Python 2 strings) or strings.

    Raises ValueError if it is not a pickle of such a dict. The labels may be anything.
    """
    try:
        _check_opcodes(pickled)
        content = _Unpickler(io.BytesIO(pickled), encoding="bytes").load()
    except Exception as error:  # a broken pickle may raise anything
        reason = f"{error!r:.300}"
        raise ValueError(f"{op}: {path} must be a complete pickle of images, but: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{op}: a pickle must hold a dict, but {path} holds {shown(content)}")
    fields = {_text(key): value for key, value in content.items()}
    for name in ("data", key):
        if name not in fields:
            names = ", ".join(sorted(filter(None, fields))) or "no names"
            raise ValueError(f"{op}: the dict must have a key {name}, but {path} has {names:.300}")
    pixels, labels = _pixels(op, path, fields["data"]), fields[key]
    if not isinstance(labels, list):
        raise ValueError(f"{op}: {key} must be a list, but {path} holds {shown(labels)}")
    if len(labels) != len(pixels):
        raise ValueError(
            f"{op}: images and labels must agree in number, "
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
            raise pickle.UnpicklingError(f"{module}.{name} is not a name that CIFAR's files hold") from None


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


def _pixels(op: str, path: str, data: Any) -> HostArray:
    """The uint8 array (n, 3072) described by a stand-in."""
    if not isinstance(data, _Array):
        raise ValueError(f"{op}: data must be an array, but {path} holds {shown(data)}")
    match data.state:
        case (_, tuple(shape), _DType(arguments=(code, *_)), fortran, bytes() | _Latin1() as values):
            dtype, content = _text(code), _raw(values)
        case _:
            dtype = content = None
    if dtype is None or content is None:
        raise ValueError(f"{op}: data must be an array of bytes, but {path} holds none in its array")
    sizes = [size for size in shape if type(size) is int and abs(size) < 2**31]
    if dtype != "u1" or sizes[1:] != [_PIXELS] or len(sizes) < len(shape) or fortran:
        order = ", in Fortran's order" if fortran else ""
        raise ValueError(
            f"{op}: data must be uint8 of shape (n, {_PIXELS}), "
            f"but {path} holds type {dtype:.20} and shape {tuple(sizes[:8])}{order}"
        )
    if len(content) != shape[0] * _PIXELS:
        raise ValueError(
            f"{op}: data of shape {shape} must have {shape[0] * _PIXELS} bytes, but {path} has {len(content)}"
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


def shown(value: Any) -> str:
    """A value of a pickle for an error message: an integer itself, otherwise its type."""
    if type(value) is int and abs(value) < 2**63:
        return str(value)
    return "an array" if isinstance(value, _Array) else f"a value of type {type(value).__name__.lstrip('_')}"
