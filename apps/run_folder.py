"""The folder of a run: settings in config.json, figures in metrics.csv, checkpoints in last.npz and best.npz.

A folder holds one run: it is made when the run starts, and after that only --resume writes to it.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import platform
import shlex
import shutil
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

import needle as ndl
from needle.checkpoint import remove_leftovers, write_atomically
from ranks import launcher

__all__ = ["RunFolder", "check_data", "checksum", "read_config", "read_metrics"]

CONFIG, METRICS = "config.json", "metrics.csv"
FILES = (CONFIG, METRICS, "last.npz", "best.npz", "report.html")
COPIES = 9  # of the weights that a run may hold: themselves and two moments, as last.npz, best.npz and a new one
NEEDED = {"script": str, "settings": dict, "commands": list, "data": dict}  # what config.json must hold


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json in a folder; raises ValueError if there is none, or one that no run wrote."""
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"RUN must be the folder of a run, but there is no {path}")
    try:
        config = json.loads(path.read_text("utf-8"))
        for name, kind in NEEDED.items():
            if not isinstance(config[name], kind):
                raise TypeError(f"{name!r} must be a {kind.__name__}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} must describe a run, but it is damaged: {type(error).__name__}: {error}") from error
    return config


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv in a folder; raises OSError or ValueError if it is missing or damaged."""
    with open(folder / METRICS, newline="", encoding="utf-8") as file:
        try:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
            return sorted(rows, key=lambda row: row["epoch"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder / METRICS} must hold figures of epochs, but it is damaged: {error}") from error


def checksum(*arrays: np.ndarray) -> str:
    """A number that depends on every byte."""
    number = 0
    for array in arrays:
        number = zlib.crc32(np.ascontiguousarray(array), number)
    return f"{number:08x}"


def check_data(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError if the data of a run are not those that its config.json describes; their name may change."""
    for name, value in before["data"].items():
        found = now["data"].get(name)
        if name != "name" and found != value:
            raise ValueError(f"the data must be those that {folder} began with, but {name} is {found}, not {value}")


def versions() -> dict[str, str]:
    """The versions of what a run's numbers depend on."""
    machine = f"{platform.system()} {platform.machine()}"
    return {"needle": ndl.__version__, "numpy": np.__version__, "python": platform.python_version(), "machine": machine}


def command() -> str:
    """The command line of this run."""
    return launcher() + shlex.join(["python", *sys.orig_argv[1:]])


class RunFolder:
    """The folder of a run that this process makes or continues; no other process may, within `with`.

    The run has begun with its first metrics.csv. Leaving the block before that takes back what `create` made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = {}
        self._lock: int | None = None
        self._made: list[Path] | None = None  # folders that `create` made for a run that has not begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Let other processes in."""
        if self._made is not None:
            self._remove(self._made)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def create(self, config: Mapping[str, Any]) -> None:
        """Start a run. Raises ValueError if the folder holds one, OSError if it cannot be written to."""
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise type(error)(f"--out must be a folder, or a new one, but {self.path}: {error.strerror}") from error
        self._own()
        for name in FILES:
            if (self.path / name).exists():
                raise ValueError(
                    f"--out must be a folder without a run, but {self.path} holds {name}; "
                    f"continue that run with --resume {self.path}, or choose another folder"
                )
        self._made = made  # from here on the folder is ours
        start = {"commands": [command()], "started": time.strftime("%Y-%m-%d %H:%M:%S"), "versions": versions()}
        self._write_config({**config, **start})

    def resume(self, config: Mapping[str, Any]) -> None:
        """Continue the run, of which `config` is what this process knows. Raises ValueError if its data differ."""
        before = read_config(self.path)
        check_data(self.path, before, config)
        self._own()
        remove_leftovers(self.path)
        self._write_config({**before, **config, "commands": [*before["commands"], command()]})

    def _remove(self, folders: list[Path]) -> None:
        """Remove the files of the run and these folders, as far as that is possible."""
        with contextlib.suppress(OSError):
            for name in FILES:
                (self.path / name).unlink(missing_ok=True)
            for path in folders:
                path.rmdir()

    def _own(self) -> None:
        """Keep other processes out, where the system can; raises ValueError if one is in."""
        try:
            import fcntl
        except ModuleNotFoundError:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self.path} must be used by one process at a time, but another one has it") from error

    def _write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.json, if there is space for the checkpoints, too."""
        needed, free = COPIES * 4 * config["parameters"], shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"{self.path} must have {needed / 1e6:,.1f} MB free for the checkpoints, but has {free / 1e6:,.1f}"
            )
        self.config = dict(config)
        with write_atomically(self.path / CONFIG, "w") as file:
            json.dump(self.config, file, indent=2)
            file.write("\n")

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write metrics.csv: one row per epoch."""
        self._made = None
        with write_atomically(self.path / METRICS, "w") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["epoch"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
