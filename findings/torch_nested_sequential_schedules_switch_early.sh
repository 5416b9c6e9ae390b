#!/usr/bin/env bash
# torch 2.13.0: a SequentialLR inside a SequentialLR switches one step before its milestone, since the outer one takes
# back the first step of the innermost schedules, but not the inner sequence's own count. As the second of a sequence it
# ends with a NotImplementedError at the outer milestone, hours into a run. An ExponentialLR in a ChainedScheduler in a
# SequentialLR is one decay ahead from the start.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR, SequentialLR


def rates(make, steps=6):
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    seen = [optimizer.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def two(optimizer):
    return SequentialLR(optimizer, [ConstantLR(optimizer, factor, 99) for factor in (0.5, 0.25)], [3])


def chain(optimizer):
    return ChainedScheduler([ExponentialLR(optimizer, 0.5)])


alone = rates(two)
nested = rates(lambda o: SequentialLR(o, [two(o), ConstantLR(o, 0.125, 99)], [5]))
chained = rates(lambda o: SequentialLR(o, [chain(o), ConstantLR(o, 0.125, 99)], [3]))
print("alone   ", alone)
print("nested  ", nested)
print("chained ", chained)
assert alone == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
assert nested == [0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
assert chained == [0.5, 0.25, 0.125, 0.125, 0.125, 0.125, 0.125]  # without the sequence: 1, 0.5, 0.25
try:
    rates(lambda o: SequentialLR(o, [ConstantLR(o, 0.125, 99), two(o)], [2]))
except NotImplementedError as error:
    print("second  ", repr(error))
else:
    raise AssertionError
PYTHON
