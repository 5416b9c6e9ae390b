"""The training of language models: its numbers, its lines, its stand-in for the files, and its errors."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import needle as ndl
from apps import train_ptb
from needle import nn, optim
from needle.data import Corpus, batchify, get_batch
from tests.apps.scripts import error_of, finish, without_speed

NUMBER = r"(\d+\.\d+)"
EPOCH_LINE = re.compile(
    rf"epoch +(\d+): loss {NUMBER}, train perplexity {NUMBER}, train accuracy {NUMBER}%, "
    rf"test loss {NUMBER}, test perplexity {NUMBER}, test accuracy {NUMBER}%, ([\d,]+) words/s"
)
SMALL = ["--epochs", "2", "--max-lines", "40", "--hidden-size", "16", "--embedding-size", "8"]


def run(capsys, *arguments):
    """The rows and the lines of a run."""
    rows = train_ptb.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert output.err == ""
    return rows, output.out.splitlines()


def write_texts(folder):
    """A folder of two texts of 55 words, the ends of lines included, of which 5 are different."""
    (folder / "train.txt").write_text(" no it was not \n it was \n not no \n" * 5, "utf-8")
    (folder / "test.txt").write_text(" it was \n no it was not \n was it \n" * 5, "utf-8")
    return folder


def test_the_stand_in_has_the_form_of_the_files(tmp_path):
    train_ptb.write_stand_in(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.txt", "train.txt"]
    for name, count in (("train.txt", 600), ("test.txt", 150)):
        lines = (tmp_path / name).read_text("utf-8").splitlines()
        assert len(lines) == count
        assert all(re.fullmatch(" (the [a-z]+[^s ]|many [a-z]+s) [a-z]+ [a-z]+ ", line) for line in lines)
    corpus = Corpus(tmp_path)
    assert sorted({*corpus.train}) == sorted({*corpus.test}) == list(range(len(corpus.dictionary)))


def test_without_a_folder_the_stand_in_is_used_and_the_first_line_says_so(capsys):
    rows, lines = run(capsys, *SMALL)
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


def test_a_folder_is_read_and_the_numbers_are_those_of_the_loops(capsys, tmp_path):
    folder = write_texts(tmp_path)
    arguments = ["--batch-size", "4", "--seq-len", "5", "--model", "rnn", "--optimizer", "sgd", "--clip", "0.5"]
    rows, lines = run(capsys, "--data", folder, "--epochs", "1", "--seed", "3", *arguments)
    assert lines[0] == "Penn Treebank: 55 training and 55 test words, 5 different ones"
    np.random.seed(3)
    corpus = Corpus(folder)
    model = train_ptb.LanguageModel(64, 5, 128)
    optimizer, loss_fn = optim.SGD(model.parameters(), lr=4.0), nn.SoftmaxLoss()
    data = batchify(corpus.train, 4)  # 13 rows: stretches of 5, 5 and 2
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
    x, y = get_batch(batchify(corpus.test, 4), 0, 12)  # in one stretch: without steps they make no difference
    logits, _ = model(x)
    assert row["test_loss"] == pytest.approx(loss_fn(logits, y).item(), rel=1e-5)
    assert row["test_accuracy"] == np.mean(logits.numpy().argmax(1) == y.numpy())


@pytest.mark.parametrize("model", ["rnn", "lstm", "transformer"])
def test_every_model_learns_the_stand_in(capsys, model):
    rows, lines = run(capsys, "--model", model)
    assert lines[1].startswith({"rnn": "RNN", "lstm": "LSTM", "transformer": "transformer"}[model])
    assert rows[-1]["test_perplexity"] < 4
    assert rows[-1]["train_accuracy"] > 0.45


def test_the_same_seed_gives_the_same_numbers_and_every_option_is_used(capsys):
    first = without_speed(run(capsys, *SMALL)[0])
    np.random.rand(5)
    assert without_speed(run(capsys, *SMALL)[0]) == first
    others = [
        ["--seed", "1"],
        ["--lr", "0.01"],
        ["--optimizer", "adamw", "--weight-decay", "0.5"],
        ["--optimizer", "sgd"],
        ["--weight-decay", "1"],
        ["--clip", "0.01", "--optimizer", "sgd"],
        ["--batch-size", "10"],
        ["--model", "rnn"],
        ["--model", "transformer"],
        ["--embedding-size", "9"],
        ["--hidden-size", "9"],
        ["--layers", "2"],
        ["--seq-len", "7"],
        ["--max-lines", "50"],
    ]
    seen = [first, *(without_speed(run(capsys, *SMALL, *other)[0]) for other in others)]
    assert len({str(rows) for rows in seen}) == 1 + len(others)


def test_perplexity_of_a_loss_that_is_too_large():
    assert train_ptb.perplexity(math.log(7)) == pytest.approx(7)
    assert train_ptb.perplexity(1e4) == math.inf
    assert math.isnan(train_ptb.perplexity(math.nan))


def test_ctrl_c_says_how_many_epochs_are_finished(capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_ptb, "pass_over", interrupted)
    with pytest.raises(SystemExit) as caught:
        train_ptb.main(SMALL)
    assert caught.value.code == 130
    assert capsys.readouterr().err == "\nstopped after 0 of 2 epochs\n"


# ---- errors of the user ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, but is 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, but is 0"),
        (["--embedding-size", "0"], "--embedding-size must be at least 1, but is 0"),
        (["--hidden-size", "0"], "--hidden-size must be at least 1, but is 0"),
        (["--layers", "0"], "--layers must be at least 1, but is 0"),
        (["--seq-len", "0"], "--seq-len must be at least 1, but is 0"),
        (["--max-lines", "0"], "--max-lines must be at least 1, but is 0"),
        (["--clip", "-1"], "--clip must be more than 0, but is -1.0"),
        (["--seq-len", "long"], "argument --seq-len: invalid int value: 'long'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(arguments, message, capsys):
    lines = error_of(train_ptb, capsys, *arguments)
    assert lines[0].startswith("usage: ")
    assert lines[-1].endswith(f"error: {message}")


def test_values_that_cannot_be(capsys):
    (line,) = error_of(train_ptb, capsys, "--seed", "-1")
    assert line.startswith("train_ptb: Seed must be between 0 and 2**32 - 1")
    (line,) = error_of(train_ptb, capsys, "--lr", "nan")
    assert line == "train_ptb: Adam: lr must lie in [0, inf], but got nan"


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


@pytest.mark.skipif(ndl.cuda().enabled(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys):
    (line,) = error_of(train_ptb, capsys, "--device", "cuda")
    assert line.startswith("train_ptb: cuda: CuPy ")


# ---- as a program ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["apps/train_ptb.py"], ["-m", "apps.train_ptb"]], ids=" ".join)
def test_it_runs_from_the_root_of_the_repository(command, tmp_path):
    arguments = ["--data", write_texts(tmp_path), "--epochs", "1", "--batch-size", "4", "--hidden-size", "8"]
    status, out, err = finish([*command, *arguments])
    assert (status, err) == (0, "")
    assert EPOCH_LINE.fullmatch(out.splitlines()[-1])


def test_a_refusal_is_one_line_and_code_2(tmp_path):
    status, out, err = finish(["apps/train_ptb.py", "--data", tmp_path])
    assert (status, out) == (2, "")
    assert re.fullmatch("train_ptb: Corpus: .*\n", err)
