"""A run that was stopped after any batch and goes on in new objects is the uninterrupted run, byte for byte."""

from __future__ import annotations

import shutil

import pytest

from needle import optim
from needle.optim import lr_scheduler
from needle.training import Checkpoints
from tests.training.runs import adam, bytes_of, make, momentum, repeatable


class Copies:
    """A callback that keeps the checkpoint of every batch and every epoch, with some state of its own."""

    def __init__(self, folder):
        self.folder, self.files, self.steps = folder, [], 0

    def on_step(self, state):
        self.steps += 1

    def on_exit(self, state):
        pass

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


class Keeper(Checkpoints):
    """Checkpoints after every batch, of which each is kept."""

    def save(self, path, state):
        super().save(path, state)
        if path == self.last:
            kept = self.folder / f"{state.epoch}-{state.batch}.npz"
            shutil.copy(path, kept)


RUNS = {
    "Adam, accumulation, clipping": (adam, None, {"accumulate": 3, "clip_norm": 0.5, "clip_value": 0.2}),
    "SGD, seeded loader, early stopping": (momentum, 7, {"early_stopping": 1}),
    "Adam, OneCycleLR, averaged weights": (
        adam,
        None,
        {
            "schedule": "OneCycleLR",
        },
    ),
    "SGD, ReduceLROnPlateau, accumulation": (momentum, None, {"schedule": "ReduceLROnPlateau", "accumulate": 2}),
    "SGD, StepLR": (momentum, None, {"schedule": "StepLR"}),
}
SCHEDULES = {
    "OneCycleLR": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=14),
    "ReduceLROnPlateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1.0),
    "StepLR": lambda optimizer: lr_scheduler.StepLR(optimizer, 1, 0.5),
}


def start(optimizer, seed, options):
    options = dict(options)
    schedule, averages = options.pop("schedule", None), options.pop("ema", False)
    model, made, run = make(optimizer, seed)
    options["scheduler"] = SCHEDULES[schedule](made) if schedule else None
    options["ema"] = optim.ExponentialMovingAverage(model, 0.9) if averages else None
    return model, options["ema"], lambda **more: run(**options, **more)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_every_batch(name, tmp_path):
    def play(folder, **more):
        model, ema, run = start(*RUNS[name])
        copies = Copies(folder)
        history = run(callbacks=[copies], **more)
        averages = None if ema is None else {k: v.tobytes() for k, v in flat(ema.state_dict())}
        return bytes_of(model), averages, copies.steps, repeatable(history)

    expected = play(tmp_path, checkpoints=Keeper(tmp_path, every=1))
    files = sorted(tmp_path.glob("[0-9]*.npz"))
    assert len(files) == 1 + 2 * 7 + 2  # the start, every batch, every epoch
    for file in files:
        other = tmp_path / file.stem  # another folder: a run may branch off
        assert play(other, resume=file, checkpoints=Keeper(other)) == expected, file.name
    assert play(tmp_path) == expected  # without checkpoints


def flat(state, path=""):
    """(path, array) of all arrays in a nested state."""
    for key, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}.{key}")
        elif hasattr(value, "numpy") or hasattr(value, "tobytes"):
            yield f"{path}.{key}", value.numpy() if hasattr(value, "numpy") else value
