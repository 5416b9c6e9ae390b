"""Freed memory is kept, so that new big arrays cause no page faults, unless the user turns it off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from needle.backend import malloc

# Counts the page faults of allocating and freeing four arrays of 16 MiB five times, after a first round.
FAULTS = """
import resource
import numpy as np
{first}
def make():
    for _ in range(5):
        [np.ones(1 << 22, "float32") for _ in range(4)]
make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first, **variables):
    process = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first)], env={"PYTHONPATH": ":".join(sys.path), **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(process.stdout)


@pytest.mark.skipif(not malloc.keep_freed_memory(), reason="the C library lacks mallopt, or the user configured it")
def test_importing_needle_keeps_freed_memory():
    without = faults("")
    assert without > 1000
    assert faults("import needle") < without / 10
    assert faults("import needle", MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > without / 2


@pytest.mark.parametrize("variable", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_variables_of_the_user_turn_it_off(variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert malloc.keep_freed_memory() is False


def test_other_systems_and_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    assert malloc.keep_freed_memory() is False
    monkeypatch.setattr(malloc.sys, "platform", "linux")
    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: object())
    assert malloc.keep_freed_memory() is False
