"""Helpers to run scripts in this process or as programs."""

import csv
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle.data import DigitsDataset

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def popen(command):
    """Start Python with `command` in the root of the repository; warnings are errors."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *map(str, command)], cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)


def finish(command):
    """The exit status, stdout and stderr of Python with `command`."""
    with popen(command) as process:
        out, err = process.communicate()
    return process.returncode, out, err


def run(script, capsys, *arguments):
    """The rows and the lines of a run of `script.main`."""
    rows = script.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    assert output.err == ""
    return rows, output.out.splitlines()


def error_of(script, capsys, *arguments):
    """The lines that a script writes when it refuses `arguments`."""
    with pytest.raises(SystemExit) as caught:
        script.main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    return output.err.splitlines()


def without_speed(rows):
    return [
        {name: value for name, value in row.items() if name != "seconds" and not name.endswith("_per_second")}
        for row in rows
    ]


def state_of(folder, name="last"):
    """The checkpoint of a run without what measures time, each array as its bytes."""
    return _plain(ndl.load(folder / f"{name}.npz"))


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name not in ("seconds", "items_per_second")}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def read_metrics(folder):
    """The columns of metrics.csv, and its rows as numbers."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = [{name: float(value) for name, value in row.items()} for row in reader]
    return tuple(reader.fieldnames), rows


# ---- small data ------------------------------------------------------------------------------------------------------


def write_idx(path, array):
    """Write a uint8 array as an IDX file, gzipped if the name ends in .gz."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_digits(folder, count=96, side=8, end=""):
    """Write four IDX files like MNIST's: `count` digits for training, half as many for testing.

    `side` is that of square images, or their height and width.
    """
    folder.mkdir(exist_ok=True)
    digits = DigitsDataset()
    for part, number in (("train", count), ("t10k", count // 2)):
        images = np.resize(np.round(digits.arrays[0][:, 0] * 255).astype(np.uint8), (number, 8, 8))
        height, width = (side, side) if isinstance(side, int) else side
        images = np.pad(images, ((0, 0), (0, max(0, height - 8)), (0, max(0, width - 8))))[:, :height, :width]
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", np.resize(digits.arrays[1], number))
    return folder


def write_texts(folder):
    """Write two texts of 55 words each, line ends included, 5 of them different."""
    folder.mkdir(exist_ok=True)
    (folder / "train.txt").write_text(" no it was not \n it was \n not no \n" * 5, "utf-8")
    (folder / "test.txt").write_text(" it was \n no it was not \n was it \n" * 5, "utf-8")
    return folder
