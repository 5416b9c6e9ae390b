"""Images as lines of numbers, as Kaggle has its digits."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from needle import check
from needle.backend import HostArray
from needle.data.dataset import Transform
from needle.data.pixels import PixelDataset, class_indices
from needle.files import Path, open_file

__all__ = ["CSVDataset"]

_PIECE = 2**20  # bytes to read at a time
_PLAIN = b"0123456789, \r\n"  # what lines of pixels consist of
_MARK = b"\xef\xbb\xbf"  # of UTF-8


class CSVDataset(PixelDataset):
    """Images of `shape` (C, H, W) as lines of integers 0 to 255: float32 images in [0, 1] and uint8 labels.

    A line holds the pixels of an image, separated by commas, the last axis first to change. With one number more it
    has a label: in the column that the first line of names calls "label" or "class", which must be the first or the
    last; without names in the first. Without labels, as in Kaggle's `test.csv`, an item is `(image,)`.

    The file is read in pieces, and what is kept are bytes, one for each pixel.

    Raises OSError (FileNotFoundError, …) if the file cannot be read, and ValueError, with the line, if it has another
    number of values than the first, or one that is no integer from 0 to 255.

    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "train.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("label,pixel0,pixel1,pixel2,pixel3\\n7,0,255,51,0\\n")
    ...     dataset = CSVDataset(path, (1, 2, 2))
    >>> dataset[0]
    (array([[[0. , 1. ],
            [0.2, 0. ]]], dtype=float32), np.uint8(7))
    """

    def __init__(
        self, path: Path, shape: Sequence[int] = (1, 28, 28), transforms: Sequence[Transform] | None = None
    ) -> None:
        op = "CSVDataset"
        form = check.sizes(op, "shape", shape, 3, least=1)
        with open_file(op, path) as file:
            count, column, number = _columns(op, path, file, math.prod(form))
            values = bytearray()
            for piece in _pieces(op, path, file, count):
                values += _parse(op, path, piece, count, number)
                number += piece.count(b"\n")
        table = np.frombuffer(values, np.uint8).reshape(-1, count)  # (N, pixels), or with a column of labels
        if not len(table):
            raise ValueError(f"{op}: path must hold a line of pixels at least, but {path} holds none")
        pixels = (table if column is None else table[:, 1:] if column == 0 else table[:, :-1]).reshape(-1, *form)
        labels = None if column is None else class_indices(op, path, table[:, column], (path, pixels), 256)
        super().__init__(pixels, labels, transforms=transforms)


def _columns(op: str, path: Path, file: BinaryIO, pixels: int) -> tuple[int, int | None, int]:
    """The number of columns, the one with labels, and the number of the first line of values, where the file is now."""
    line = file.readline(_PIECE).removeprefix(_MARK)
    names = [name.strip(b" \"'\r\n").lower() for name in line.split(b",")]
    count = len(names)
    if count not in (pixels, pixels + 1):
        raise ValueError(f"{op}: a line must have {pixels} pixels, or one value more, but line 1 of {path} has {count}")
    is_values = not line.translate(None, _PLAIN)
    if is_values:
        file.seek(file.tell() - len(line))
    if count == pixels:
        return count, None, 1 + (not is_values)
    column = 0 if is_values else next((i for i in (0, count - 1) if names[i] in (b"label", b"class")), None)
    if column is None:
        raise ValueError(
            f"{op}: the first or the last of {count} columns must be called label or class, "
            f"but those of {path} are {names[0][:40]!r} and {names[-1][:40]!r}"
        )
    return count, column, 1 + (not is_values)


def _pieces(op: str, path: Path, file: BinaryIO, count: int) -> Iterator[bytes]:
    """Whole lines of a file, some at a time."""
    rest, most = b"", 8 * count + _PIECE
    while piece := file.read(_PIECE):
        rest += piece
        end = rest.rfind(b"\n") + 1
        if len(rest) - end > most:
            raise ValueError(f"{op}: a line must have at most {most} bytes, but one of {path} has more")
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _parse(op: str, path: Path, lines: bytes, count: int, number: int) -> bytes:
    """The values of lines, of which the first is line `number` of the file."""
    try:
        if lines.translate(None, _PLAIN):
            raise ValueError
        if not lines.strip():
            return b""
        table: HostArray = np.loadtxt(io.BytesIO(lines), np.uint8, delimiter=",", comments=None, ndmin=2)
        if table.shape[1] != count:
            raise ValueError
        return table.tobytes()
    except ValueError:
        where = _fault(lines.split(b"\n"), count, number)
    raise ValueError(f"{op}: a line must have {count} integers in [0, 255], but of {path} {where}")


def _fault(lines: Sequence[bytes], count: int, number: int) -> str:
    """What is wrong with the first wrong line."""
    for position, line in enumerate(lines, number):
        values = [value.strip() for value in line.split(b",")]
        if not line.strip(b"\r"):
            continue
        if len(values) != count:
            return f"line {position} has {len(values)}"
        for value in values:
            if not value.isdigit() or len(value) > 9 or int(value) > 255:
                return f"line {position} has {value[:40]!r}"
    return f"one of {len(lines)} lines from {number} on has others"
