"""Every fault that a test of a kernel lists is found by the test that it names."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from needle.kernels.gpu.source import Source
from tests.gpu.kernels import KernelError, missing, running
from tests.gpu.shim_device import SHIM


def faults():
    """The faults of all test modules, but those that run on a GPU alone."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if path.stem != "test_faults":
            with suppress(pytest.skip.Exception):
                yield from getattr(import_module(f"tests.gpu.{path.stem}"), "FAULTS", [])


FAULTS = [*faults()]
NAMES = [f"{fault.source}: {fault.what}" for fault in FAULTS]


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_planted_fault_is_found(fault):
    if problem := missing():
        pytest.skip(problem)
    module = SHIM.raw_module(Source(fault.source).text)
    with (
        running(checked=True) as run,
        module.altered(fault.text, fault.replacement),
        pytest.raises((AssertionError, KernelError)),
    ):
        fault.test(run=run)


def test_faults_are_many_and_told_apart():
    assert len(NAMES) == len(set(NAMES)) >= 30
