"""Train a language model on the Penn Treebank, the course's training of a sequence model.

    python apps/train_ptb.py --data FOLDER --model lstm      # train.txt and test.txt
    python apps/train_ptb.py                                 # a small stand-in, written and read in the same format

One line an epoch: mean loss, perplexity (its exponential) and accuracy while training, then on the test text, and words
per second. The same seed gives the same numbers on the same machine.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from needle import nn
from needle.data import Corpus, batchify

if __package__:  # imported as apps.train_ptb; otherwise the folder apps is on sys.path
    from apps import training
    from apps.models import LanguageModel
    from apps.simple_ml import pass_over, word_outputs
else:
    import training
    from models import LanguageModel
    from simple_ml import pass_over, word_outputs

LR = {"adam": 0.003, "adamw": 0.003, "sgd": 4.0}
MODELS = {"rnn": "RNN", "lstm": "LSTM", "transformer": "transformer"}
SUBJECTS = {
    "the": ["bank", "market", "company"],
    "many": ["banks", "markets", "companies"],
}
VERBS = {
    "the": ["buys", "sells", "watches"],
    "many": ["buy", "sell", "watch"],
}
OBJECTS = ["shares", "bonds", "goods", "nothing"]


def write_stand_in(folder):
    """`train.txt` and `test.txt` in the treebank's form: sentences in which the verb goes with the number.

    There are 2·3·3·4 sentences of 5 words (the end of the line is one), so that no perplexity is below 72^(1/5) = 2.35,
    but by learning sentences by heart.
    """
    draw = np.random.default_rng(0)
    for name, count in (("train.txt", 600), ("test.txt", 150)):
        lines = []
        for number in draw.choice(list(SUBJECTS), count):
            words = (draw.choice(choices) for choices in (SUBJECTS[number], VERBS[number], OBJECTS))
            lines.append(f" {number} {' '.join(words)} \n")
        (Path(folder) / name).write_text("".join(lines), "utf-8")


def load(folder, max_lines):
    """The corpus, and what it is: of a folder, or without one of the stand-in."""
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            write_stand_in(made)
            corpus, _ = load(made, max_lines)
            return corpus, "synthetic stand-in for the Penn Treebank (--data FOLDER reads the real one)"
    return Corpus(folder, max_lines), "Penn Treebank"


def perplexity(loss):
    """exp(loss): among how many equally likely words the model would be as unsure."""
    return math.exp(loss) if not loss > 700 else math.inf


def main(arguments=None):
    """Run the script; returns the rows that it measured."""
    options = parse(arguments)
    rows = []
    with training.interruptible(rows, options.epochs):
        with training.user_errors("train_ptb"):
            device = training.start(options.seed, options.device)
            corpus, name = load(options.data, options.max_lines)
            for part, ids in (("train.txt", corpus.train), ("test.txt", corpus.test)):
                if len(ids) < 2 * options.batch_size:
                    raise ValueError(
                        f"--batch-size {options.batch_size} needs at least {2 * options.batch_size} words in {part}, "
                        f"but there are {len(ids)}"
                    )
            train_data, test_data = (batchify(part, options.batch_size) for part in (corpus.train, corpus.test))
            words = len(corpus.dictionary)
            sizes = (options.embedding_size, words, options.hidden_size, options.layers, options.model)
            model = LanguageModel(*sizes, seq_len=options.seq_len, device=device)
            optimizer = training.make_optimizer(model, options)
        loss_fn = nn.SoftmaxLoss()
        count = len(corpus.train)
        print(f"{name}: {count:,} training and {len(corpus.test):,} test words, {words:,} different ones")
        print(f"{MODELS[options.model]} with {training.size(model):,} parameters on {device}", flush=True)
        for epoch in range(1, options.epochs + 1):
            start = time.perf_counter()
            outputs = word_outputs(train_data, model, options.seq_len, device)
            outputs = training.progress(outputs, -(-(len(train_data) - 1) // options.seq_len))
            accuracy, loss = pass_over(outputs, model, loss_fn, optimizer, options.clip)
            speed = train_data.size / (time.perf_counter() - start)
            outputs = word_outputs(test_data, model, options.seq_len, device)
            test_accuracy, test_loss = pass_over(outputs, model, loss_fn)
            rows.append({
                "epoch": epoch,
                "loss": loss,
                "train_perplexity": perplexity(loss),
                "train_accuracy": accuracy,
                "test_loss": test_loss,
                "test_perplexity": perplexity(test_loss),
                "test_accuracy": test_accuracy,
                "words_per_second": speed,
            })  # fmt: skip
            print(
                f"epoch {epoch:2}: loss {loss:.4f}, train perplexity {perplexity(loss):.2f}, "
                f"train accuracy {accuracy:.2%}, test loss {test_loss:.4f}, "
                f"test perplexity {perplexity(test_loss):.2f}, test accuracy {test_accuracy:.2%}, {speed:,.0f} words/s",
                flush=True,
            )
    return rows


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    training.add_options(parser, "the treebank's train.txt and test.txt", 5, 16, LR, weight_decay=0.0)
    parser.add_argument("--model", choices=MODELS, default="lstm", help="default: %(default)s")
    parser.add_argument("--embedding-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--hidden-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--seq-len", type=int, default=40, help="words that gradients go back (default: %(default)s)")
    parser.add_argument("--max-lines", type=int, help="lines to read of each file (default: all)")
    options = parser.parse_args(arguments)
    sizes = ("embedding_size", "hidden_size", "layers", "seq_len", "max_lines")
    training.check_options(parser, options, LR, *sizes)
    return options


if __name__ == "__main__":
    main()
