#!/usr/bin/env bash
# torch 2.13.0: a schedule that is resumed with `last_epoch`, after the optimizer's state was loaded, should go on where
# it stopped. StepLR, MultiStepLR and ConstantLR apply the step of the epoch they stop at a second time, if one falls
# on it: the rate is ten times too small (or three times too large) from then on. ExponentialLR, LinearLR, PolynomialLR
# and CosineAnnealingLR guard against it. CosineAnnealingWarmRestarts with T_mult > 1 goes on at a wrong place of a cycle
# once two cycles have passed. `load_state_dict` is right for all of them.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.optim import SGD, lr_scheduler

EPOCHS = 12
SCHEDULES = {
    "StepLR(3)": lambda o, **k: lr_scheduler.StepLR(o, 3, **k),
    "MultiStepLR([3, 6])": lambda o, **k: lr_scheduler.MultiStepLR(o, [3, 6], **k),
    "ConstantLR(1/3, 3)": lambda o, **k: lr_scheduler.ConstantLR(o, 1 / 3, 3, **k),
    "ExponentialLR(0.9)": lambda o, **k: lr_scheduler.ExponentialLR(o, 0.9, **k),
    "LinearLR(0.5, 1, 3)": lambda o, **k: lr_scheduler.LinearLR(o, 0.5, 1, 3, **k),
    "CosineAnnealingLR(5)": lambda o, **k: lr_scheduler.CosineAnnealingLR(o, 5, **k),
    "CosineAnnealingWarmRestarts(2, 2)": lambda o, **k: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2, **k),
}


def optimizer():
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def resumed(make, epoch):
    """The rates before and after a stop, when `epoch` epochs (0 to epoch - 1) are done."""
    first = optimizer()
    schedule = make(first)
    for _ in range(epoch):
        schedule.step()
    again = optimizer()
    again.load_state_dict(first.state_dict())
    make(again, last_epoch=epoch - 1)
    return first.param_groups[0]["lr"], again.param_groups[0]["lr"]


wrong = {}
for name, make in SCHEDULES.items():
    pairs = {epoch: resumed(make, epoch) for epoch in range(1, EPOCHS)}
    wrong[name] = {epoch: pair for epoch, pair in pairs.items() if abs(pair[0] - pair[1]) > 1e-9}
    print(name, {epoch: f"{before:.4g} -> {after:.4g}" for epoch, (before, after) in wrong[name].items()})
assert [[*epochs] for epochs in wrong.values()] == [[3, 6, 9], [3, 6], [3], [], [], [], [4, 5, 7, 8, 9, 10, 11]]
PYTHON
