"""The benchmark: that it runs, that it does without torch, and that it refuses to time what is not the same work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from apps import benchmark

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "apps" / "benchmark.py"
CORETYPE = "OPENBLAS_CORETYPE"


def report(*arguments, path=(), **variables):
    """What the script prints."""
    environment = {name: value for name, value in os.environ.items() if name != CORETYPE} | variables
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (*path, ROOT)))
    command = [sys.executable, SCRIPT, "--smoke", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300).stdout


def test_it_times_both_and_writes_what_it_prints(tmp_path):
    text = report("--out", tmp_path / "out", "--cpu-time")
    assert "Medians of 2 rounds, CPU time." in text
    assert text == (tmp_path / "out" / "benchmark.md").read_text("utf-8")
    record = json.loads((tmp_path / "out" / "benchmark.json").read_text("utf-8"))
    (run,) = record["runs"]
    assert run["threads"] == 1
    assert f"torch: {run['rivals']['torch']}\n" in text
    assert set(run["seconds"]) == {benchmark.STEP, *benchmark.OPS}
    for case, seconds in run["seconds"].items():
        assert f"\n| {case} " in text
        assert set(seconds) == {"needle", "torch"}
        assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in seconds.values())


def test_without_torch_it_times_needle_alone_with_both_kernels(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')", "utf-8")
    text = report("--threads", 1, 2, path=[tmp_path], OPENBLAS_CORETYPE="Haswell")
    assert "Threads: 1. torch is not installed, needle is timed alone" in text
    assert "Threads: 2. torch is not installed, needle is timed alone" in text
    assert text.count("| needle [ms] | needle (native) [ms] |\n") == 2


class Same:
    """A rival that computes 1, or something else in one case."""

    def __init__(self, case=None, value=1.0):
        self.case, self.value = case, value

    def ask(self, case, first, count):
        value = self.value if case == self.case else 1.0
        return [[1.0, 1.0]] * (first - 1) + [[1.0, value]]


def test_what_is_not_the_same_work_is_not_timed():
    benchmark.prove({"needle": Same(), "torch": Same()})
    for case in (benchmark.STEP, *benchmark.OPS):
        for value in (1.001, float("nan")):
            with pytest.raises(SystemExit, match=f"{case} of needle is off by"):
                benchmark.prove({"needle": Same(case, value), "torch": Same()})


def test_the_table_gives_medians_and_the_range_of_the_ratio():
    times = {"needle": [0.002, 0.004, 0.006], "torch": [0.001, 0.001, 0.002]}
    first, _, row = benchmark.table({"work": times}, ["needle", "torch"]).splitlines()
    assert [cell.strip() for cell in first.split("|")] == ["", "", "needle [ms]", "torch [ms]", "needle / torch", ""]
    assert [cell.strip() for cell in row.split("|")] == ["", "work", "4", "1", "3.00 (2.00 to 4.00)", ""]
