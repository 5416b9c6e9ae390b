"""What the training scripts have in common: options, a seed and a device, errors in one line, progress, Ctrl-C."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

import needle as ndl
from needle import optim

OPTIMIZERS = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}


@contextmanager
def user_errors(script):
    """End the script with one line where a file, a device or an option is not as it must be."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{script}:", *str(error).split(), file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def interruptible(rows, epochs):
    """End the script at Ctrl-C with the number of epochs that are in `rows`."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped after {len(rows)} of {epochs} epochs", file=sys.stderr)
        raise SystemExit(130) from None


def start(seed, device):
    """Seed NumPy's global generator, and return the device of that name, which must be there."""
    np.random.seed(seed)
    device = {"cpu": ndl.cpu, "cuda": ndl.cuda}[device]()
    device.zeros(1)  # says what is missing where the device cannot be used
    return device


def size(model):
    """How many numbers a model learns."""
    return sum(parameter.size for parameter in model.parameters())


def progress(batches, total=None):
    """`batches` with a bar on a terminal; `total` is their number where they have no length."""
    return tqdm(batches, total=total, unit="batch", leave=False, disable=not sys.stderr.isatty())


def add_options(parser, data, epochs, batch_size, lr, weight_decay):
    """The options of a script that trains on the files of a folder; `lr` has a default for each optimizer."""
    rates = ", ".join(f"{rate} for {name}" for name, rate in lr.items())
    parser.add_argument("--data", type=Path, help=f"folder of {data} (default: a small stand-in, made by the script)")
    parser.add_argument("--epochs", type=int, default=epochs, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=batch_size, help="default: %(default)s")
    parser.add_argument("--optimizer", choices=lr, default="adam", help="default: %(default)s")
    parser.add_argument("--lr", type=float, help=f"learning rate (default: {rates})")
    parser.add_argument("--weight-decay", type=float, default=weight_decay, help="default: %(default)s")
    parser.add_argument("--clip", type=float, help="bound of the norm of all gradients together (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")


def check_options(parser, options, lr, *sizes):
    """Refuse what none of the options of `add_options`, nor any of those called `sizes`, may be; fill in `lr`."""
    for name in ("epochs", "batch_size", *sizes):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, but is {value}")
    if options.clip is not None and not options.clip > 0:
        parser.error(f"--clip must be more than 0, but is {options.clip}")
    if options.lr is None:
        options.lr = lr[options.optimizer]


def make_optimizer(model, options):
    """The optimizer that the options name."""
    return OPTIMIZERS[options.optimizer](model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
