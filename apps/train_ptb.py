"""Train a language model on the Penn Treebank, the course's training of a sequence model.

    python apps/train_ptb.py --data FOLDER --model lstm      # train.txt and test.txt
    python apps/train_ptb.py                                 # small synthetic data, written and read in the same format

Prints one line per epoch: mean loss, perplexity (its exponential) and accuracy while training, then on the test text,
and words per second. The same seed reproduces the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import cli
import errors
import ranks
import synthetic
from models import LanguageModel
from needle.data import Corpus, batchify
from run_folder import checksum
from runs import Run
from text import CarriedState, Text
from training import Row, train

RATES = {"adam": 0.003, "adamw": 0.003, "sgd": 4.0}
MODELS = {"rnn": "RNN", "lstm": "LSTM", "transformer": "transformer"}


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    ranks.alone("train_ptb")
    return train("train_ptb", arguments, parse, prepare)


def prepare(options: argparse.Namespace) -> Run:
    """The texts and the network that the options name; raises errors of the user."""
    device = cli.start(options.seed, options.device)
    corpus, name = load(options.data, options.max_lines)
    held_out = round(len(corpus.train) * options.validation)
    texts = {"train": corpus.train[: len(corpus.train) - held_out], "test": corpus.test}
    if held_out:
        texts["validation"] = corpus.train[-held_out:]
    columns = {part: as_columns(part, ids, options, device) for part, ids in texts.items()}
    words = len(corpus.dictionary)
    sizes = (options.embedding_size, words, options.hidden_size, options.layers, options.model)
    counts = {part: len(ids) for part, ids in texts.items()}
    return Run(
        script="train_ptb",
        options=options,
        task="language",
        title=MODELS[options.model],
        model=LanguageModel(*sizes, seq_len=options.seq_len, device=device),
        train=columns["train"],
        validation=columns.get("validation"),
        test=columns["test"],
        unit="words",
        input_shape=(options.seq_len, options.batch_size),
        classes=(),  # as many as words, which config.json does not list
        data={"name": name, **counts, "checksum": checksum(np.array([*corpus.train, *corpus.test], np.int64))},
        data_line=f"{name}: {describe(counts)}, {words:,} different ones",
        forward=CarriedState(device),
    )


def as_columns(part: str, ids: list[int], options: argparse.Namespace, device: object) -> Text:
    """A text in columns; raises ValueError if a column would have no next word."""
    least = 2 * options.batch_size
    if len(ids) < least:
        where = "test.txt" if part == "test" else "train.txt" if part == "train" else "the part for --validation"
        raise ValueError(
            f"--batch-size {options.batch_size} needs at least {least} words in {where}, but there are {len(ids)}"
        )
    return Text(batchify(ids, options.batch_size), options.seq_len, device)


def describe(counts: dict[str, int]) -> str:
    """How many words each text has."""
    held_out = f", {counts['validation']:,} validation" if "validation" in counts else ""
    return f"{counts['train']:,} training{held_out} and {counts['test']:,} test words"


def load(folder: Path | None, max_lines: int | None) -> tuple[Corpus, str]:
    """The corpus and its name: from `folder`, or synthetic data if it is None."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            synthetic.write_ptb(Path(temporary))
            corpus, _ = load(Path(temporary), max_lines)
        return corpus, "synthetic stand-in for the Penn Treebank (--data FOLDER reads the real one)"
    return Corpus(folder, max_lines), "Penn Treebank"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = errors.Parser(__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of train.txt and test.txt (default: small synthetic data)")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--model", choices=MODELS, default="lstm", help="default: %(default)s")
    parser.add_argument("--embedding-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--hidden-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seq-len", type=int, default=40, help="words that gradients flow back (default: %(default)s)")
    parser.add_argument("--max-lines", type=int, help="lines to read of each file (default: all)")
    cli.add_run_options(parser, batch_size=16)
    cli.add_training_options(parser, RATES, weight_decay=0.0)
    return cli.parse(parser, arguments, "train_ptb", RATES, complete)


def complete(parser: errors.Parser, options: argparse.Namespace) -> None:
    """Check what only this script has."""
    if options.distributed:
        parser.error("--distributed is for images: columns of text carry their state from batch to batch")
    if options.workers != 1:
        parser.error(
            "--workers must be 1 for text, whose columns carry their state from batch to batch, "
            f"but got {options.workers}"
        )


if __name__ == "__main__":
    main()
