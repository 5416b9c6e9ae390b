"""Train a language model on the Penn Treebank, the course's training of a sequence model.

    python apps/train_ptb.py --data FOLDER --model lstm      # train.txt and test.txt
    python apps/train_ptb.py                                 # small synthetic data, written and read in the same format

Prints one line per epoch: mean loss, perplexity (its exponential) and accuracy while training, then on the test text,
and words per second. The same seed reproduces the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cli
import errors
import synthetic
from models import LanguageModel
from needle import nn
from needle.data import Corpus, batchify
from training import Metrics, Row, Text, fit

RATES = {"adam": 0.003, "adamw": 0.003, "sgd": 4.0}
MODELS = {"rnn": "RNN", "lstm": "LSTM", "transformer": "transformer"}
COLUMNS = (
    "epoch", "loss", "train_perplexity", "train_accuracy", "test_loss", "test_perplexity", "test_accuracy",
    "words_per_second",
)  # fmt: skip
LINE = (
    "epoch {epoch:2}: loss {loss:.4f}, train perplexity {train_perplexity:.2f}, train accuracy {train_accuracy:.2%}, "
    "test loss {test_loss:.4f}, test perplexity {test_perplexity:.2f}, test accuracy {test_accuracy:.2%}, "
    "{words_per_second:,.0f} words/s"
)


class TextMetrics(Metrics):
    """Metrics that add the perplexities of the two losses."""

    def add(self, figures: Row) -> None:
        train, test = perplexity(figures["loss"]), perplexity(figures["test_loss"])
        super().add(figures | {"train_perplexity": train, "test_perplexity": test})


def perplexity(loss: float) -> float:
    """exp(loss): the number of equally likely words that would leave a model as uncertain."""
    return math.exp(loss) if not loss > 700 else math.inf


def load(folder: Path | None, max_lines: int | None) -> tuple[Corpus, str]:
    """The corpus and its name: from `folder`, or synthetic data if it is None."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            synthetic.write_ptb(Path(temporary))
            corpus, _ = load(Path(temporary), max_lines)
        return corpus, "synthetic stand-in for the Penn Treebank (--data FOLDER reads the real one)"
    return Corpus(folder, max_lines), "Penn Treebank"


def batches(corpus: Corpus, options: argparse.Namespace, device: object) -> tuple[Text, Text]:
    """The training and the test text in columns; raises ValueError if a column would have no next word."""
    least = 2 * options.batch_size
    for name, ids in (("train.txt", corpus.train), ("test.txt", corpus.test)):
        if len(ids) < least:
            raise ValueError(
                f"--batch-size {options.batch_size} needs at least {least} words in {name}, but there are {len(ids)}"
            )
    train, test = (batchify(ids, options.batch_size) for ids in (corpus.train, corpus.test))
    return Text(train, options.seq_len, device), Text(test, options.seq_len, device)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Run the script; returns one row of figures per epoch."""
    options = parse(arguments)
    metrics = TextMetrics(COLUMNS, LINE)
    with errors.interruptible(lambda: metrics.progress(options.epochs)):
        with errors.user_errors("train_ptb"):
            device = cli.start(options.seed, options.device)
            corpus, name = load(options.data, options.max_lines)
            train, test = batches(corpus, options, device)
            words = len(corpus.dictionary)
            sizes = (options.embedding_size, words, options.hidden_size, options.layers, options.model)
            model = LanguageModel(*sizes, seq_len=options.seq_len, device=device)
            optimizer = cli.make_optimizer(model, options)
            metrics.write_to(options.out)
        print(f"{name}: {len(corpus.train):,} training and {len(corpus.test):,} test words, {words:,} different ones")
        print(f"{MODELS[options.model]} with {cli.count_parameters(model):,} parameters on {device}", flush=True)
        return fit(model, train, test, nn.SoftmaxLoss(), optimizer, metrics, options.epochs, options.clip)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of train.txt and test.txt (default: small synthetic data)")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--model", choices=MODELS, default="lstm", help="default: %(default)s")
    parser.add_argument("--embedding-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--hidden-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seq-len", type=int, default=40, help="words that gradients flow back (default: %(default)s)")
    parser.add_argument("--max-lines", type=int, help="lines to read of each file (default: all)")
    cli.add_run_options(parser, batch_size=16)
    cli.add_optimizer_options(parser, RATES, weight_decay=0.0)
    options = parser.parse_args(arguments)
    sizes = ("embedding_size", "hidden_size", "layers", "seq_len", "max_lines")
    cli.check_numbers(parser, options, "epochs", "batch_size", *sizes)
    cli.check_optimizer(parser, options, RATES)
    return options


if __name__ == "__main__":
    main()
