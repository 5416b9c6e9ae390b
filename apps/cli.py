"""The command line of the training scripts: shared options and their checks."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import errors  # noqa: F401 (it refuses to go on without needle)
import needle as ndl
from needle import nn, optim

__all__ = [
    "add_optimizer_options",
    "add_run_options",
    "check_numbers",
    "check_optimizer",
    "count_parameters",
    "make_optimizer",
    "start",
]

SEEDS = 2**32 - 1  # the largest seed of NumPy's global generator
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


def check_numbers(parser: argparse.ArgumentParser, options: argparse.Namespace, *names: str) -> None:
    """Exit with a usage error unless these options are None or positive and finite, and --seed is a seed.

    --weight-decay may also be 0.
    """
    if not 0 <= options.seed <= SEEDS:
        parser.error(f"--seed must lie in [0, {SEEDS}], but got {options.seed}")
    for name in names:
        value, zero = getattr(options, name), name == "weight_decay"
        if value is None or 0 < value < math.inf or (zero and value == 0):
            continue
        rule = "at least 1" if isinstance(value, int) else f"finite and {'at least' if zero else 'greater than'} 0"
        parser.error(f"--{name.replace('_', '-')} must be {rule}, but got {value}")


def check_optimizer(parser: argparse.ArgumentParser, options: argparse.Namespace, rates: Mapping[str, float]) -> None:
    """Check the options of `add_optimizer_options`, and fill in the default of --lr."""
    check_numbers(parser, options, "lr", "weight_decay", "clip")
    if options.lr is None:
        options.lr = rates[options.optimizer]


# ---- what the options name -------------------------------------------------------------------------------------------


def start(seed: int, device: str) -> ndl.BackendDevice:
    """Seed NumPy's global generator and return the named device; raises RuntimeError if it cannot be used."""
    ndl.manual_seed(seed)
    named = {"cpu": ndl.cpu, "cuda": ndl.cuda}[device]()
    named.zeros(1)  # the first allocation reports what is missing
    return named


def make_optimizer(model: nn.Module, options: argparse.Namespace) -> optim.Optimizer:
    """The optimizer that `add_optimizer_options` describes."""
    return OPTIMIZERS[options.optimizer](model.parameters(), lr=options.lr, weight_decay=options.weight_decay)


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.size for parameter in model.parameters())
