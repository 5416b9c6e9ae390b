"""The command line of the training scripts: shared options and their checks, user errors in one line, Ctrl-C."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import needle as ndl
from needle import nn, optim

__all__ = [
    "add_optimizer_options",
    "add_run_options",
    "check_optimizer",
    "check_positive",
    "count_parameters",
    "interruptible",
    "make_optimizer",
    "start",
    "user_errors",
]

OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD}


# ---- options ---------------------------------------------------------------------------------------------------------


def add_run_options(parser: argparse.ArgumentParser, batch_size: int) -> None:
    """Add the options of every training script: --batch-size, --seed, --device, --out."""
    parser.add_argument("--batch-size", type=int, default=batch_size, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder for metrics.csv (default: none is written)")


def add_optimizer_options(parser: argparse.ArgumentParser, rates: Mapping[str, float], weight_decay: float) -> None:
    """Add --optimizer, --lr, --weight-decay and --clip; `rates` maps each optimizer to its default learning rate."""
    defaults = ", ".join(f"{rate} for {name}" for name, rate in rates.items())
    parser.add_argument("--optimizer", choices=rates, default="adam", help="default: %(default)s")
    parser.add_argument("--lr", type=float, help=f"learning rate (default: {defaults})")
    parser.add_argument("--weight-decay", type=float, default=weight_decay, help="default: %(default)s")
    parser.add_argument("--clip", type=float, help="largest norm of all gradients together (default: no limit)")


def check_positive(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Exit with a usage error unless each of these integer options is None or at least 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, but got {value}")


def check_optimizer(parser: argparse.ArgumentParser, options: argparse.Namespace, rates: Mapping[str, float]) -> None:
    """Check --clip, and fill in the default of --lr."""
    if options.clip is not None and not options.clip > 0:
        parser.error(f"--clip must be greater than 0, but got {options.clip}")
    if options.lr is None:
        options.lr = rates[options.optimizer]


# ---- what the options name -------------------------------------------------------------------------------------------


def start(seed: int, device: str) -> ndl.BackendDevice:
    """Seed NumPy's global generator and return the named device; raises RuntimeError if it cannot be used."""
    np.random.seed(seed)
    named = {"cpu": ndl.cpu, "cuda": ndl.cuda}[device]()
    named.zeros(1)  # the first allocation reports what is missing
    return named


def make_optimizer(model: nn.Module, options: argparse.Namespace) -> optim.Optimizer:
    """The optimizer that `add_optimizer_options` describes."""
    return OPTIMIZERS[options.optimizer](model.parameters(), lr=options.lr, weight_decay=options.weight_decay)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.size for parameter in model.parameters())


# ---- errors and signals ----------------------------------------------------------------------------------------------


@contextmanager
def user_errors(script: str) -> Iterator[None]:
    """Turn errors about files, devices and options into one line on stderr and exit status 2."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        print(f"{script}:", *str(error).split(), file=sys.stderr)
        raise SystemExit(2) from None


@contextmanager
def interruptible(rows: Sized, epochs: int) -> Iterator[None]:
    """At Ctrl-C report how many epochs are complete (the length of `rows`) and exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped after {len(rows)} of {epochs} epochs", file=sys.stderr)
        raise SystemExit(130) from None
