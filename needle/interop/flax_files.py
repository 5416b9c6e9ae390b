"""Files of flax: its states in MessagePack, read without the package of that name.

Formats: https://github.com/msgpack/msgpack/blob/master/spec.md, and `flax.serialization` for the types of its own.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from needle.backend import HostArray
from needle.backend.narrow import widen
from needle.files import Broken, Path, open_whole, read_at_most
from needle.npz import native

__all__ = ["read_flax"]

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # flax's types
_CHUNKED = "__msgpack_chunked_array__"  # the key of a dict that stands for an array above 2 ** 30 bytes
_DEEPEST = 100  # levels of nesting
_MOST_VALUES = 2**17  # in one file: each takes memory, though it may have one byte in the file
_MOST_AXES = 64  # as NumPy has them
_DTYPES = {np.dtype(code).name for code in "?bhilqBHILQefdFD"}
_NUMBERS = dict(zip(range(0xCA, 0xD4), ["f", "d", "B", "H", "I", "Q", "b", "h", "i", "q"], strict=True))
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes of a length
_LENGTHS |= {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


def read_flax(path: Path) -> dict[str, Any]:
    """The values of a file by `flax.serialization.to_bytes`, by the path of their keys ("params/Dense_0/kernel").

    Arrays are NumPy's, each with memory of its own, in the chunks of large arrays joined; bfloat16 becomes float32.
    Numbers, text and None stay as they are. Lists were dicts with the keys "0", "1", … when flax wrote them. flax keeps
    no byte order: arrays that were big-endian are not what they were.

    Raises ValueError if the file is broken or holds what is not read (8-bit floats, other types); the system's OSError
    (FileNotFoundError …) if it cannot be read.
    """
    with open_whole("read_flax", path, "file by flax.serialization") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        reader = _Reader(file, size)
        content = reader.value(0)
        if reader.left:
            raise Broken(f"has {reader.left} bytes after its end")
        if not isinstance(content, dict):
            raise Broken(f"holds a {type(content).__name__}, not a dict")
        values: dict[str, Any] = {}
        for name, value in _leaves(content, ""):
            if name in values:
                raise Broken(f"holds two values of the name {name!r}")
            values[name] = value
    return values


def _leaves(node: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}/")
        else:
            yield path + key, value


class _Reader:
    """Reads the values of MessagePack from a file, of which `left` bytes are left."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left, self.count = file, left, 0

    def require(self, size: int) -> None:
        """Require that so many bytes are left."""
        if size > self.left:
            raise Broken(f"is cut: {size} bytes are announced where {self.left} are left")

    def take(self, size: int) -> bytearray:
        """The next bytes; no memory is taken for what is not there."""
        self.require(size)
        self.left -= size
        return read_at_most(self.file, size)

    def number(self, form: str) -> Any:
        """A number, big-endian."""
        return struct.unpack(f">{form}", self.take(struct.calcsize(f">{form}")))[0]

    def value(self, depth: int) -> Any:
        """The next value, in dicts that lie in `depth` others."""
        self.count += 1
        if self.count > _MOST_VALUES or depth > _DEEPEST:
            raise Broken(f"holds more than {_MOST_VALUES} values, or more than {_DEEPEST} levels of them")
        code = self.number("B")
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0x90:
            return self.map(code & 15, depth)
        if code < 0xA0:
            return self.sequence(code & 15, depth)
        if code < 0xC0:
            return self.text(code & 31)
        if code in _NUMBERS:
            return self.number(_NUMBERS[code])
        if 0xD4 <= code <= 0xD8:
            return self.extension(2 ** (code - 0xD4), depth)
        if code in _LENGTHS:
            return self.sized(code, int.from_bytes(self.take(_LENGTHS[code]), "big"), depth)
        if code == 0xC1:
            raise Broken("is no MessagePack: it has a code 0xc1")
        return {0xC0: None, 0xC2: False, 0xC3: True}[code]

    def sized(self, code: int, size: int, depth: int) -> Any:
        """A value behind its length."""
        if code <= 0xC6:
            return bytes(self.take(size))
        if code <= 0xC9:
            return self.extension(size, depth)
        if code <= 0xDB:
            return self.text(size)
        return self.sequence(size, depth) if code <= 0xDD else self.map(size, depth)

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as error:
            raise Broken(f"has text that is no UTF-8: {error}") from error

    def sequence(self, size: int, depth: int) -> dict[str, Any]:
        """A list as flax turns them into dicts."""
        return {str(i): self.value(depth + 1) for i in range(size)}

    def map(self, size: int, depth: int) -> Any:
        made: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(depth + 1)
            key = str(key) if type(key) is int else key  # of nnx, in lists that were not made dicts
            if not isinstance(key, str) or key in made:
                raise Broken(f"has a dict with a key that comes twice or is no text: {key!r:.40}")
            made[key] = self.value(depth + 1)
        return _joined(made) if _CHUNKED in made else made

    def extension(self, size: int, depth: int) -> Any:
        """A value of a type of flax's own."""
        kind = self.number("b")
        if kind not in (_ARRAY, _COMPLEX, _SCALAR):
            raise Broken(f"holds a value of type {kind}, which is not flax's")
        self.require(size)
        end = self.left - size
        value = self.complex(depth + 1) if kind == _COMPLEX else self.array(depth + 1)
        if self.left != end:
            raise Broken("holds a value that does not fill its bytes")
        return value

    def complex(self, depth: int) -> complex:
        parts = self.value(depth)
        if not isinstance(parts, dict) or [type(part) for part in parts.values()] != [float, float]:
            raise Broken("holds a complex number that is none")
        return complex(*parts.values())

    def array(self, depth: int) -> HostArray:
        """A shape, the name of a dtype, and bytes by rows."""
        start, shape, name, code = self.number("B"), self.value(depth), self.value(depth), self.number("B")
        sizes = [*shape.values()] if isinstance(shape, dict) else [-1]
        if not (start == 0x93 and isinstance(name, str) and 0xC4 <= code <= 0xC6 and _are_sizes(sizes)):
            raise Broken("holds an array without shape, dtype and values")
        if name != "bfloat16" and name not in _DTYPES:
            raise Broken(f"holds an array of type {name:.40}, but only bools and numbers of at most 64 bits are read")
        dtype = np.dtype("u2" if name == "bfloat16" else name)
        content = self.take(int.from_bytes(self.take(_LENGTHS[code]), "big"))
        if math.prod(sizes) * dtype.itemsize != len(content):
            raise Broken(f"holds an array of {len(content)} bytes, which do not fit {name} of shape {(*sizes,)}")
        array = _shaped(native("an array", np.frombuffer(content, dtype.newbyteorder("<"))), sizes)
        return widen(array, "bfloat16") if name == "bfloat16" else array


def _are_sizes(values: list[Any]) -> bool:
    return len(values) <= _MOST_AXES and all(type(n) is int and 0 <= n < 2**63 for n in values)


def _shaped(array: HostArray, sizes: list[int]) -> HostArray:
    try:
        return array.reshape(sizes)
    except ValueError as error:  # of sizes with a 0, whose product is too large without it
        raise Broken(f"holds an array of shape {(*sizes,)}, which NumPy cannot hold") from error


def _joined(node: dict[str, Any]) -> HostArray:
    """The array that a dict of chunks stands for."""
    shape, chunks = node.get("shape"), node.get("chunks")
    if not (
        isinstance(shape, dict) and isinstance(chunks, dict) and chunks and node.keys() == {_CHUNKED, "shape", "chunks"}
    ):
        raise Broken("holds an array in chunks without shape or chunks")
    sizes, parts = [*shape.values()], [*chunks.values()]
    if [*shape] != [str(i) for i in range(len(sizes))] or [*chunks] != [str(i) for i in range(len(parts))]:
        raise Broken("holds an array in chunks that are not in order")
    if not all(isinstance(part, np.ndarray) and part.ndim == 1 and part.dtype == parts[0].dtype for part in parts):
        raise Broken("holds an array in chunks that are not alike")
    whole = np.concatenate(parts)
    if not _are_sizes(sizes) or math.prod(sizes) != whole.size:
        raise Broken(f"holds an array of {whole.size} values in chunks, which do not fit {sizes}")
    return _shaped(whole, sizes)
