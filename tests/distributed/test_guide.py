"""The loop of the guide trains by two workers as by one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import needle as ndl

ROOT = Path(__file__).resolve().parents[2]


def test_the_loop_of_the_guide(tmp_path, capsys, monkeypatch):
    guide = (ROOT / "docs/distributed.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(# loop\.py\n.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "loop.py").write_text(program, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, str(tmp_path / "loop.py")]
    by_two = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    names = {"__name__": "loop"}
    exec(compile(program, "loop.py", "exec"), names)
    ndl.seed(0)
    names["train"](3)
    outputs = by_two, capsys.readouterr().out
    losses = [[float(number) for number in re.findall(r": ([\d.]+)$", text, re.MULTILINE)] for text in outputs]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], abs=0.003)  # float32, rounded to three digits
