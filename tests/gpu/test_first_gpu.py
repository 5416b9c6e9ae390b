"""The script of `make gpu` on the null device: its parts run, and what they find is saved after each."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.gpu.first_gpu import PARTS, ROOT

gpu = pytest.mark.gpu


def script(out, *arguments):
    command = [sys.executable, "-m", "tests.gpu.first_gpu", *arguments]
    variables = os.environ | {"OUT": str(out), "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    return process.returncode, process.stdout, process.stderr


def test_unknown_parts_are_refused(tmp_path):
    status, _, errors = script(tmp_path, "--only", "launches,rest")
    assert (status, errors.splitlines()[-1]) == (
        2,
        f"python -m tests.gpu.first_gpu: error: --only must be of {', '.join(PARTS)}, but got rest",
    )


def test_a_part_that_fails_stops_no_other(tmp_path):
    """Here no CuPy is installed, or it finds no GPU."""
    status, output, _ = script(tmp_path, "--only", "machine,memcheck", "--seconds", "60")
    results = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert list(results) == ["machine", "memcheck"]
    assert results["machine"]["status"] == "1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.log"]
    assert any("Error" in line for line in results["machine"]["output"])
    assert status == 1
    assert "failed: machine" in output
    assert "Error: cuda: " in output.splitlines()[0], "the cause, and what to do"


@gpu
@pytest.mark.slow
def test_the_parts_run_on_the_null_device(tmp_path):
    device = pytest.importorskip("tests.gpu.null.device")
    if device.library is None:
        pytest.skip("runs on the null device (make gpu-check)")
    status, _, _ = script(tmp_path, "--smoke", "--seconds", "1800")
    results = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert list(results) == list(PARTS)
    assert {
        name: entry["status"] for name, entry in results.items() if entry["status"] not in ("0", "not installed")
    } == {}
    assert status == 0
    assert results["steps"]["found"]["lenet"]["largest difference"] < 1e-5
    assert results["captured"]["found"]["lenet"]["equal bits"]
    assert results["captured"]["found"]["lenet"]["warnings"] == []
    assert results["benchmark"]["found"]["lenet"]["runs"]
    assert results["nccl"]["found"]["order of streams"] == "right"
    ranks = results["ranks"]["found"]  # says what is not installed, if no ranks can be started
    assert "not installed" in ranks or ranks["two ranks, a GPU each"]["same bits"]
