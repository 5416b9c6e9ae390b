"""Kill a small training run at random moments, let it go on each time, and compare its end with an uninterrupted one.

`python -m tests.training.kills 100` does so until 100 processes were killed, and prints what happened. Each process is
a fork of this one, so that it trains at once. A checkpoint is written after every batch, so many kills hit a write.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import needle as ndl
from needle.optim import lr_scheduler
from needle.training import Checkpoints
from tests.training.runs import make, repeatable

EPOCHS = 8


def train(folder):
    """The whole run, or what is left of it: 8 epochs of 7 batches."""
    _, optimizer, run = make(accumulate=3, clip_norm=0.5, early_stopping=20)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    checkpoints = Checkpoints(folder, every=1)
    run(epochs=EPOCHS, scheduler=schedule, checkpoints=checkpoints, resume=True, bar=False)


def begin(folder):
    """Train in a process of its own; returns its number."""
    process = os.fork()
    if not process:
        try:
            train(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def result(folder):
    """All that a finished run leaves, but for times: both files, as bytes."""
    states = [ndl.load(folder / name) for name in ("last.npz", "best.npz")]
    for state in states:
        state["history"] = repeatable(state["history"])
        del state["seconds"]
    return [plain(state) for state in states]


def plain(state):
    """A state with the bytes of its arrays."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list):
        return [plain(value) for value in state]
    return (state.shape, state.dtype.str, state.tobytes()) if hasattr(state, "tobytes") else state


def finish(process):
    """Wait for a process that must not fail."""
    _, status = os.waitpid(process, 0)
    assert status == 0, "training failed"


def main(kills, seed=0):
    """Runs with kills until there were `kills`; returns figures of them, and raises AssertionError if a run differs."""
    moments = random.Random(seed)
    figures = {"kills": 0, "in a write": 0, "runs": 0, "before the first checkpoint": 0}
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name, "whole")
        start = time.perf_counter()
        finish(begin(whole))
        duration = time.perf_counter() - start
        expected = result(whole)
        while figures["kills"] < kills:
            folder = Path(name, str(figures["runs"]))
            while True:
                process = begin(folder)
                if figures["kills"] < kills:
                    time.sleep(moments.uniform(0, duration / 3))
                    os.kill(process, signal.SIGKILL)  # if it is done, its number is kept until it is waited for
                _, status = os.waitpid(process, 0)
                if status != signal.SIGKILL:
                    assert status == 0, "training failed"
                    break
                figures["kills"] += 1
                figures["in a write"] += any(folder.glob(".*.needle-tmp"))
                figures["before the first checkpoint"] += not (folder / "last.npz").exists()
                for file in folder.glob("*.npz"):
                    ndl.load(file)  # whole, whenever the process was killed
            figures["runs"] += 1
            assert result(folder) == expected, "the end of a run differs"
            files = sorted(file.name for file in folder.iterdir())
            assert files == ["best.npz", "last.npz"], f"files are left over: {files}"
    return figures | {"seconds of an uninterrupted run": round(duration, 2)}


if __name__ == "__main__":
    sys.stdout.write(", ".join(f"{name}: {value}" for name, value in main(*map(int, sys.argv[1:])).items()) + "\n")
