"""The same seed reproduces the same bits, with one thread and with two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = """
import hashlib
import needle as ndl
from needle import nn, optim

ndl.seed(3)
model = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
    nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 10),
)
optimizer = optim.Adam(model.parameters(), lr=0.01)
for _ in range(3):
    images, labels = ndl.init.randn(16, 3, 32, 32), ndl.init.one_hot(10, list(range(10)) + list(range(6)))
    loss = nn.MSELoss()(model(images), labels)
    optimizer.reset_grad()
    loss.backward(create_graph=False)
    optimizer.step()
digest = hashlib.sha256()
for value in model.state_dict().values():
    digest.update(value.numpy().tobytes())
print(digest.hexdigest())
"""


def trained(threads):
    """A digest of the parameters after three steps in a process with that number of threads."""
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", TRAINING]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_seed_gives_the_same_bits(threads):
    assert trained(threads) == trained(threads) != ""
