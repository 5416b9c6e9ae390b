"""Training steps of seven networks on the null device: what they compute, launch and transfer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import needle as ndl
from tests.gpu.null import device
from tests.gpu.null.steps import NETWORKS, Training

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(device.library is None, reason="runs on the null device (make gpu-check)"),
]

# Kernels, products, fills and copies of one step: what a change may lower, and must not raise.
LAUNCHES = {
    "lenet": 20,
    "resnet9": 55,
    "cnn": 29,
    "vgg": 24,
    "conv1d": 20,
    "autoencoder": 19,
    "depthwise": 20,
}


@pytest.fixture(scope="module")
def requests():
    """Network -> stage -> kind -> number of requests, from a process whose kernels do nothing."""
    command = [sys.executable, "-m", "tests.gpu.null.steps", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_launches_no_more_than_this(requests, name):
    launches = {stage: kinds["launches"] for stage, kinds in requests[name].items()}
    assert sum(launches.values()) <= LAUNCHES[name], launches


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_transfers_nothing_and_waits_for_nothing(requests, name):
    for kinds in requests[name].values():
        assert {kind: number for kind, number in kinds.items() if number and kind != "launches"} == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_losses_are_those_of_the_cpu(name):
    net = NETWORKS[name].small()
    here, there = (Training(net, place) for place in (ndl.cpu(), ndl.cuda()))
    for _ in range(4):
        np.testing.assert_allclose(there.step().item(), here.step().item(), rtol=2e-6)
