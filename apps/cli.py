"""The command line of the training scripts: shared options, their checks, and how a run is continued with its own."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import errors
import needle as ndl
import run_folder
from needle import nn, optim
from needle.optim import lr_scheduler

__all__ = [
    "add_run_options",
    "add_training_options",
    "count_parameters",
    "make_optimizer",
    "make_scheduler",
    "parse",
    "start",
]

SEEDS = 2**32 - 1  # the largest seed of NumPy's global generator
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "adadelta": optim.Adadelta,
    "adagrad": optim.Adagrad,
    "adam": optim.Adam,
    "adamax": optim.Adamax,
    "adamw": optim.AdamW,
    "nadam": optim.NAdam,
    "radam": optim.RAdam,
    "rmsprop": optim.RMSprop,
    "sgd": optim.SGD,
}
RATES = {"adadelta": 1.0, "adagrad": 0.01, "adamax": 0.002, "nadam": 0.002, "radam": 0.001, "rmsprop": 0.001}  # torch's
SCHEDULES = ("constant", "cosine", "step", "onecycle", "plateau")
OPEN = ("constant", "step", "plateau")  # schedules that do not depend on the number of epochs
DROPS = ("step", "plateau")  # schedules that divide the learning rate by 10
FRACTIONS = ("validation", "label_smoothing", "momentum", "ema")  # in [0, 1)
FROM_ZERO = ("weight_decay", "warmup")  # others are greater than 0
FREE = ("resume", "epochs", "data", "clip", "save_every", "workers", "distributed", "compress")  # may differ later

Complete = Callable[[errors.Parser, argparse.Namespace], None]


# ---- options ---------------------------------------------------------------------------------------------------------


def add_run_options(parser: errors.Parser, batch_size: int) -> None:
    """Add the options of every script that trains, apart from those of learning: --out, --resume, --seed and so on."""
    parser.add_argument("--batch-size", type=int, default=batch_size, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--validation", type=float, default=0.0, metavar="FRACTION",
        help="part of the training set that is held out: the best epoch is chosen by it (default: by the test set)",
    )  # fmt: skip
    processes = "processes that compute each batch together; auto measures 1 and the cores (default: %(default)s)"
    parser.add_argument("--workers", type=_workers, default=1, metavar="N", help=processes)
    joins = "compute each batch by the processes that mpiexec or srun has started, on one machine or several"
    parser.add_argument("--distributed", action="store_true", help=joins)
    sent = "round gradients to 16 bits when processes exchange them (default: no)"
    parser.add_argument("--compress", choices=("float16", "bfloat16"), help=sent)
    often = "save last.npz after so many batches, too, not only after each epoch"
    parser.add_argument("--save-every", type=int, metavar="BATCHES", help=often)
    folder = parser.add_mutually_exclusive_group()
    folder.add_argument("--out", type=Path, metavar="RUN", help="new folder for checkpoints, figures and a report")
    folder.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder, with its options")


def _workers(text: str) -> int | str:
    """A number of workers, or "auto"."""
    if text == "auto" or text.lstrip("-").isdecimal():
        return text if text == "auto" else int(text)
    raise argparse.ArgumentTypeError(f"must be a number or auto, but got {text}")


def add_training_options(parser: errors.Parser, rates: Mapping[str, float], weight_decay: float) -> None:
    """Add the options of the optimizer, its schedule and its steps; `rates` has some default rates."""
    rates = RATES | rates
    defaults = ", ".join(f"{rate} for {name}" for name, rate in rates.items())
    add = parser.add_argument_group("learning").add_argument
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="default: %(default)s")
    add("--lr", type=float, help=f"learning rate, the largest of a schedule (default: {defaults})")
    add("--momentum", type=float, default=0.0, help="of sgd (default: %(default)s)")
    add("--weight-decay", type=float, default=weight_decay, help="default: %(default)s")
    add("--schedule", choices=SCHEDULES, default="constant", help="of the learning rate (default: %(default)s)")
    add("--warmup", type=float, default=0.0, metavar="EPOCHS", help="in which the rate rises (default: %(default)s)")
    drop = "step: divide the rate by 10 each time; plateau: after so many without progress (default: 10)"
    add("--drop-after", type=int, metavar="EPOCHS", help=drop)
    add("--clip", type=float, help="largest norm of all gradients together (default: no limit)")
    add("--ema", type=float, metavar="DECAY", help="evaluate a running mean of the weights (default: the weights)")
    add("--accumulate", type=int, default=1, metavar="BATCHES", help="for each step (default: %(default)s)")
    add("--label-smoothing", type=float, default=0.0, help="default: %(default)s")
    end = "stop after so many without progress on the validation set (default: never)"
    add("--patience", type=int, metavar="EPOCHS", help=end)


def parse(
    parser: errors.Parser,
    arguments: Sequence[str] | None,
    script: str,
    rates: Mapping[str, float],
    complete: Complete = lambda parser, options: None,
) -> argparse.Namespace:
    """The options of a new run, or with --resume those of the run in that folder, checked.

    `complete` checks the options that only this script has, and fills in defaults that depend on others. To continue a
    run, its saved settings are read as if they were the command line. Exits with a usage error if an option is wrong
    or contradicts a saved one: only --data, --clip, --save-every, --workers, --distributed and --compress may differ,
    and --epochs be larger if the schedule does not depend on it.
    """

    def checked(arguments: Sequence[str] | None, saved: argparse.Namespace | None = None) -> argparse.Namespace:
        options = parser.parse_args(arguments, saved and argparse.Namespace(**vars(saved)))
        _check(parser, options)
        complete(parser, options)
        if options.lr is None:
            options.lr = (RATES | rates)[options.optimizer]
        return options

    given = parser.parse_args(arguments)
    folder = given.resume
    if folder is None:
        return checked(arguments)
    with errors.user_errors(script):
        config = run_folder.read_config(folder)
        if config["script"] != script:
            raise ValueError(f"--resume must be a run of {script}.py, but {folder} is one of {config['script']}.py")
    with _damage(parser, script, folder):
        saved = checked([f"--resume={folder}", *_as_arguments(config["settings"])])
    if given.distributed:
        saved.workers = 1  # ranks take their place
    options = checked(arguments, saved)
    _compare(parser, options, saved)
    return options


@contextmanager
def _damage(parser: errors.Parser, script: str, folder: Path) -> Iterator[None]:
    """Report usage errors as damage of the run's config.json."""
    usage = parser.error

    def error(message: str) -> NoReturn:
        errors.leave(f"{script}: config.json of {folder} must hold the settings of a run, but: {message}", 2)

    parser.error = error  # type: ignore[method-assign]
    try:
        yield
    finally:
        parser.error = usage  # type: ignore[method-assign]


def _as_arguments(settings: Mapping[str, object]) -> list[str]:
    """Settings as a command line that sets them."""
    chosen = {name: value for name, value in settings.items() if value is not None and value is not False}
    return [_flag(name) if value is True else f"{_flag(name)}={value}" for name, value in chosen.items()]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# ---- checks ----------------------------------------------------------------------------------------------------------


def _check(parser: errors.Parser, options: argparse.Namespace) -> None:
    """Check every number, and that the shared options fit together."""
    if not 0 <= options.seed <= SEEDS:
        parser.error(f"--seed must lie in [0, {SEEDS}], but got {options.seed}")
    for name, value in vars(options).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "seed":
            holds, rule = _rule(name, value)
            if not holds:
                parser.error(f"{_flag(name)} must be {rule}, but got {value}")
    if options.momentum and options.optimizer != "sgd":
        parser.error(f"--momentum is for sgd, but --optimizer is {options.optimizer}")
    if options.warmup and options.schedule in ("onecycle", "plateau"):
        parser.error(f"--warmup is for constant, cosine and step, but --schedule is {options.schedule}")
    if options.drop_after is not None and options.schedule not in DROPS:
        parser.error(f"--drop-after is for {' and '.join(DROPS)}, but --schedule is {options.schedule}")
    if options.distributed and options.workers != 1:
        parser.error(f"--workers must be 1 with --distributed, where mpiexec starts them, but got {options.workers}")
    if options.compress and options.workers == 1 and not (options.distributed or options.resume):
        parser.error("--compress is for processes of --workers or --distributed, but there is only one")
    if options.save_every is not None and not (options.out or options.resume):
        parser.error("--save-every is for runs with --out RUN, but there is none")
    if options.drop_after is None and options.schedule in DROPS:
        options.drop_after = 10


def _rule(name: str, value: float) -> tuple[bool, str]:
    """Whether a number is allowed as the value of this option, and the rule in words."""
    if name in FRACTIONS:
        return 0 <= value < 1, "at least 0 and less than 1"
    if isinstance(value, int):
        return value >= 1, "at least 1"
    if name in FROM_ZERO:
        return 0 <= value < math.inf, "finite and at least 0"
    return 0 < value < math.inf, "finite and greater than 0"


def _compare(parser: errors.Parser, options: argparse.Namespace, saved: argparse.Namespace) -> None:
    """Exit with a usage error where the options of a resumed run contradict its settings."""
    if options.epochs != saved.epochs:
        if options.schedule not in OPEN:
            parser.error(f"--epochs must stay {saved.epochs}: the learning rates of {options.schedule} depend on it")
        if options.epochs < saved.epochs:
            parser.error(f"--epochs must be at least the {saved.epochs} of the run, but got {options.epochs}")
    for name, value in vars(saved).items():
        if name not in FREE and getattr(options, name) != value:
            text = "not given" if value is None or value is False else "given" if value is True else value
            parser.error(f"{_flag(name)} must be as in the run, {text}; leave it out, or start another with --out")


# ---- what the options name -------------------------------------------------------------------------------------------


def start(seed: int, device: str) -> ndl.BackendDevice:
    """Seed the random streams of all devices and return the named device; raises RuntimeError if it cannot be used."""
    ndl.manual_seed(seed)
    named = {"cpu": ndl.cpu, "cuda": ndl.cuda}[device]()
    named.zeros(1)  # the first allocation reports what is missing
    return named


def make_optimizer(model: nn.Module, options: argparse.Namespace) -> optim.Optimizer:
    """The optimizer that the options describe; with momentum, sgd follows torch's rule."""
    extra = {"momentum": options.momentum, "dampening": 0} if options.momentum else {}
    return OPTIMIZERS[options.optimizer](model.parameters(), lr=options.lr, weight_decay=options.weight_decay, **extra)


def make_scheduler(
    optimizer: optim.Optimizer, options: argparse.Namespace, batches: int
) -> lr_scheduler.LRScheduler | None:
    """The schedule that the options describe, for epochs of `batches`; None if the rate is constant.

    All step with the optimizer, except plateau: that follows the validation loss of the epochs.
    """
    steps = -(-batches // options.accumulate)  # of an epoch
    total, warm = options.epochs * steps, round(options.warmup * steps)
    match options.schedule:
        case "cosine":
            main = lr_scheduler.CosineAnnealingLR(optimizer, max(1, total - warm))
        case "step":
            main = lr_scheduler.StepLR(optimizer, options.drop_after * steps, 0.1)
        case "onecycle":
            return lr_scheduler.OneCycleLR(optimizer, options.lr, total, cycle_momentum=False)
        case "plateau":
            return lr_scheduler.ReduceLROnPlateau(optimizer, "min", 0.1, options.drop_after)
        case _:
            main = lr_scheduler.ConstantLR(optimizer, 1.0)
    if not warm:
        return None if options.schedule == "constant" else main
    rise = lr_scheduler.LinearLR(optimizer, 1 / warm, total_iters=warm)
    return lr_scheduler.SequentialLR(optimizer, [rise, main], [warm])


def count_parameters(model: nn.Module) -> int:
    """How many numbers the model learns."""
    return sum(parameter.size for parameter in model.parameters())
