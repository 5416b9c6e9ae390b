"""The `.safetensors` format, by hand: the package of that name writes only arrays of one memory order right.

Format: https://huggingface.co/docs/safetensors. Eight bytes for the length of the header, the header in JSON, then the
arrays in row-major order and little-endian, without gaps.
"""

from __future__ import annotations

import math
from typing import Any, BinaryIO

import numpy as np

from needle.backend import HostArray
from needle.checkpoint.arrays import Broken, Stored, blocks, host_array, is_shape, little_endian, native, room_for
from needle.checkpoint.structure import parse

__all__ = ["check_dtypes", "read_safetensors", "write_safetensors"]

# In the order in which the package writes arrays, so that each is aligned. bfloat16 is read, not written.
_FORMS = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "BF16": "<u2",
    "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_CODES = {np.dtype(form): code for code, form in _FORMS.items()}
_METADATA, _KEY = "__metadata__", "needle"
_LONGEST_HEADER = 100_000_000  # bytes, as the package has it


def check_dtypes(op: str, arrays: dict[str, Stored]) -> None:
    """Require dtypes that the format has: all that are stored but complex128."""
    for name, value in arrays.items():
        if value.dtype == "complex128":
            raise TypeError(f"{op}: a .safetensors file must not hold complex128, but {name} is; use .npz")


def write_safetensors(file: BinaryIO, arrays: dict[str, Stored], text: str | None) -> None:
    """Write arrays, and a text as the only metadata. If names are sorted, the bytes are those of the package."""
    import json  # imported when it is needed: the import takes a millisecond

    dtypes = {name: little_endian(value.dtype) for name, value in arrays.items()}
    codes = [*_FORMS]
    order = sorted(arrays, key=lambda name: (codes.index(_CODES[dtypes[name]]), name))
    places, end = {}, 0
    for name in order:
        start, end = end, end + math.prod(arrays[name].shape) * dtypes[name].itemsize
        places[name] = [start, end]
    header: dict[str, Any] = {} if text is None else {_METADATA: {_KEY: text}}
    for name, value in arrays.items():
        header[name] = {"dtype": _CODES[dtypes[name]], "shape": [*value.shape], "data_offsets": places[name]}
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    file.write(len(content).to_bytes(8, "little") + content)
    for name in order:
        for block in blocks(host_array(arrays[name]), dtypes[name]):
            file.write(block)


def read_safetensors(file: BinaryIO, size: int) -> tuple[dict[str, HostArray], str | None]:
    """The arrays and the text of a file of `size` bytes; bfloat16 becomes float32, which holds all its numbers.

    The format has no checksum: bytes of the arrays that have changed are not noticed.

    Raises Broken if its header does not fit it, or if it holds what is not read.
    """
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
        raise Broken(f"has {size} bytes, and begins with a header of {length}")
    header = parse(file.read(length), "has a header")
    if not isinstance(header, dict):
        raise Broken("has a header that is not an object")
    metadata = header.pop(_METADATA, {})
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str | None):
        raise Broken(f"has metadata {_KEY!r} that are no text")
    entries = sorted(((name, *_entry(name, form)) for name, form in header.items()), key=lambda entry: entry[3:])
    end = 0
    for name, *_, start, stop in entries:
        if start != end:
            raise Broken(f"holds {name!r} at byte {start} of its data, where {end} is expected")
        end = stop
    if end != size - 8 - length:
        raise Broken(f"holds {size - 8 - length} bytes of arrays, where its header says {end}")
    arrays = {name: _read_array(file, name, code, shape) for name, code, shape, *_ in entries}
    return {name: arrays[name] for name in header}, text


def _entry(name: str, form: Any) -> tuple[str, tuple[int, ...], int, int]:
    """The code of a dtype, shape, first byte and end of an array, as an entry of a header gives them."""
    try:
        code, shape, (start, stop) = form["dtype"], form["shape"], form["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(f"holds {name!r} without a dtype, a shape and offsets") from error
    if not (len(form) == 3 and isinstance(code, str) and is_shape(shape) and is_shape([start, stop])):
        raise Broken(f"holds {name!r} with a dtype, a shape or offsets that are none")
    if code not in _FORMS:
        raise Broken(f"holds {name!r} of type {code[:20]}, which is not read; {', '.join(_FORMS)} are")
    if math.prod(shape) * np.dtype(_FORMS[code]).itemsize != stop - start:
        raise Broken(f"holds {name!r} with {stop - start} bytes, which do not fit {code} of shape {tuple(shape)}")
    return code, tuple(shape), start, stop


def _read_array(file: BinaryIO, name: str, code: str, shape: tuple[int, ...]) -> HostArray:
    """The next array in a file."""
    array = room_for(name, np.dtype(_FORMS[code]), shape)
    room = array.reshape(-1).view(np.uint8).data
    if file.readinto(room) < len(room):  # type: ignore[attr-defined]
        raise Broken(f"ends within {name!r}")
    if code == "BF16":  # the upper half of a float32
        return np.left_shift(array, 16, dtype="<u4").view("<f4")
    return native(name, array)
