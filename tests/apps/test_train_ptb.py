"""Training language models: numbers, lines, synthetic data, errors. test_scripts.py tests what all scripts share."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import synthetic
import tasks
import train_ptb
from models import LanguageModel
from needle import nn, optim
from needle.data import Corpus, batchify, get_batch
from tests.apps.scripts import error_of, run, write_texts

NUMBER = r"(\d+\.\d+)"
EPOCH_LINE = re.compile(
    rf"epoch +(\d+): loss {NUMBER}, train perplexity {NUMBER}, train accuracy {NUMBER}%, "
    rf"test loss {NUMBER}, test perplexity {NUMBER}, test accuracy {NUMBER}%, ([\d,]+) words/s"
)
SMALL = ["--epochs", "2", "--max-lines", "40", "--hidden-size", "16", "--embedding-size", "8"]


def test_the_synthetic_files_have_the_format_of_the_real_ones(tmp_path):
    synthetic.write_ptb(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.txt", "train.txt"]
    for name, count in (("train.txt", 600), ("test.txt", 150)):
        lines = (tmp_path / name).read_text("utf-8").splitlines()
        assert len(lines) == count
        assert all(re.fullmatch(" (the [a-z]+[^s ]|many [a-z]+s) [a-z]+ [a-z]+ ", line) for line in lines)
    corpus = Corpus(tmp_path)
    assert sorted({*corpus.train}) == sorted({*corpus.test}) == list(range(len(corpus.dictionary)))


def test_without_a_folder_synthetic_data_are_used_and_the_first_line_says_so(capsys):
    rows, lines = run(train_ptb, capsys, *SMALL)
    first = (
        "synthetic stand-in for the Penn Treebank (--data FOLDER reads the real one): "
        "200 training and 200 test words, 19 different ones"
    )
    assert lines[:2] == [first, "LSTM with 2,139 parameters on cpu()"]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, line in zip(rows, lines[2:], strict=True):
        assert row["train_perplexity"] == pytest.approx(math.exp(row["loss"]))
        assert row["test_perplexity"] == pytest.approx(math.exp(row["test_loss"]))
        assert EPOCH_LINE.fullmatch(line).groups() == (
            f"{row['epoch']}",
            f"{row['loss']:.4f}",
            f"{row['train_perplexity']:.2f}",
            f"{100 * row['train_accuracy']:.2f}",
            f"{row['test_loss']:.4f}",
            f"{row['test_perplexity']:.2f}",
            f"{100 * row['test_accuracy']:.2f}",
            f"{row['words_per_second']:,.0f}",
        )


def test_a_folder_is_read_and_the_numbers_match_plain_loops(capsys, tmp_path):
    folder = write_texts(tmp_path)
    arguments = ["--batch-size", "4", "--seq-len", "5", "--model", "rnn", "--optimizer", "sgd", "--clip", "0.5"]
    rows, lines = run(train_ptb, capsys, "--data", folder, "--epochs", "1", "--seed", "3", *arguments)
    assert lines[0] == "Penn Treebank: 55 training and 55 test words, 5 different ones"
    np.random.seed(3)
    corpus = Corpus(folder)
    model = LanguageModel(64, 5, 128)
    optimizer, loss_fn = optim.SGD(model.parameters(), lr=4.0), nn.SoftmaxLoss()
    data = batchify(corpus.train, 4)  # 13 rows: batches of 5, 5 and 2
    losses, h = [], None
    for start in (0, 5, 10):
        x, y = get_batch(data, start, 5)
        logits, h = model(x, h)
        h = h.detach()
        loss = loss_fn(logits, y)
        losses += [loss.item()] * len(y)
        optimizer.reset_grad()
        loss.backward()
        optimizer.clip_grad_norm(0.5)
        optimizer.step()
    (row,) = rows
    assert len(losses) == 12 * 4
    assert row["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    x, y = get_batch(batchify(corpus.test, 4), 0, 12)  # one batch: without steps the cuts do not matter
    logits, _ = model(x)
    assert row["test_loss"] == pytest.approx(loss_fn(logits, y).item(), rel=1e-5)
    assert row["test_accuracy"] == np.mean(logits.numpy().argmax(1) == y.numpy())


@pytest.mark.parametrize("model", ["rnn", "lstm", "transformer"])
def test_every_model_learns_the_synthetic_text(capsys, model):
    rows, lines = run(train_ptb, capsys, "--model", model)
    assert lines[1].startswith({"rnn": "RNN", "lstm": "LSTM", "transformer": "transformer"}[model])
    assert rows[-1]["test_perplexity"] < 4
    assert rows[-1]["train_accuracy"] > 0.45


def test_perplexity_of_a_loss_that_is_too_large():
    assert tasks.perplexity(math.log(7)) == pytest.approx(7)
    assert tasks.perplexity(1e4) == math.inf
    assert math.isnan(tasks.perplexity(math.nan))


def test_texts_that_are_missing_or_too_short(capsys, tmp_path):
    (line,) = error_of(train_ptb, capsys, "--data", tmp_path / "nowhere")
    assert line.startswith("train_ptb: Corpus: folder must hold one of train.txt, ptb.train.txt, ")
    write_texts(tmp_path)
    (line,) = error_of(train_ptb, capsys, "--data", tmp_path, "--batch-size", "28")
    assert line == "train_ptb: --batch-size 28 needs at least 56 words in train.txt, but there are 55"
    (tmp_path / "test.txt").write_text("it was\n", "utf-8")
    (line,) = error_of(train_ptb, capsys, "--data", tmp_path, "--batch-size", "27")
    assert line == "train_ptb: --batch-size 27 needs at least 54 words in test.txt, but there are 3"
    (tmp_path / "test.txt").unlink()
    (line,) = error_of(train_ptb, capsys, "--data", tmp_path)
    assert line.startswith("train_ptb: Corpus: folder must hold one of test.txt, ptb.test.txt, ")
