"""The scripts on a stand-in for a GPU: runs stop and go on there as on the CPU, with nearly the same numbers."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import needle as ndl
import train
import train_ptb
import training
from tests.apps.scripts import state_of, write_digits, write_texts
from tests.apps.test_resume import stop_at
from tests.standin.device import STANDIN

CASES = {
    "tinycnn": (train, ["--accumulate", "2", "--clip", "0.5", "--schedule", "cosine", "--ema", "0.9"]),
    "unet": (train, ["--model", "unet", "--augment"]),
    "lstm": (train_ptb, ["--batch-size", "4", "--seq-len", "4", "--hidden-size", "8", "--embedding-size", "8"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_on_a_gpu(name, tmp_path, monkeypatch, capsys):
    script, options = CASES[name]
    if script is train:
        options = ["--dataset", "mnist", "--data", str(write_digits(tmp_path / "data")), "--batch-size", "32", *options]
    elif script is train_ptb:
        options = ["--data", str(write_texts(tmp_path / "data")), *options]
    monkeypatch.setattr(training, "report", lambda *arguments: None)
    monkeypatch.setattr(ndl, "cuda", lambda: STANDIN)
    rows = {}
    for kind in ("cpu", "cuda"):
        rows[kind] = script.main([*options, "--epochs", "2", "--device", kind, "--out", str(tmp_path / kind)])
    for ours, theirs in zip(*rows.values(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    with monkeypatch.context() as patch:
        stop_at(patch, 1, 1, signal.SIGINT)
        with pytest.raises(SystemExit):
            script.main([*options, "--epochs", "2", "--device", "cuda", "--out", str(tmp_path / "stopped")])
    script.main(["--resume", str(tmp_path / "stopped")])
    assert state_of(tmp_path / "stopped") == state_of(tmp_path / "cuda")
    assert all(np.isfinite(array).all() for array in ndl.load(tmp_path / "cuda" / "best.npz")["model"].values())
