"""Runs that are killed at random moments end as the uninterrupted run, byte for byte, and leave no other files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks")


def kill(count):
    """Run the script in an interpreter without other threads, and return what it prints."""
    command = [sys.executable, "-W", "error", "-m", "tests.training.kills", str(count)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_a_few_kills():
    assert kill(3).startswith("kills: 3, in a write: ")


@pytest.mark.slow
def test_a_hundred_kills():
    assert kill(100).startswith("kills: 100, in a write: ")
