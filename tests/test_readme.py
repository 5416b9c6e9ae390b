"""README.md and CONTRIBUTING.md: their Python runs as it stands, and the names and commands in them exist."""

import re
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle.ops import elementwise
from tests.ops import table
from tests.test_architecture import FLOORS, TOP

ROOT = Path(__file__).resolve().parent.parent
README, CONTRIBUTING, MAKEFILE = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md", "Makefile")
)


def blocks(text, language):
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_is_short():
    assert README.count("\n") <= 130


def test_the_first_lines_of_the_readme_print_what_their_comment_says(capsys):
    first, _ = blocks(README, "python")
    assert first.count("\n") <= 11
    exec(compile(first, "README.md", "exec"), {"__name__": "readme"})
    (comment,) = re.findall(r"print\(.*#  ?(.*)", first)
    assert capsys.readouterr().out.strip() == comment


def test_the_network_of_the_readme_learns(capsys):
    _, train = blocks(README, "python")
    exec(compile(train, "README.md", "exec"), {"__name__": "readme"})
    percent, total = re.match(r"([\d.]+)% of (\d+) ", capsys.readouterr().out).groups()
    assert total == "355"
    assert float(percent) > 95


def test_the_op_of_the_guide_passes_the_test_of_the_guide(device, monkeypatch):
    op, test = blocks(CONTRIBUTING, "python")
    file = dict(vars(elementwise))
    exec(compile(op, "CONTRIBUTING.md", "exec"), file)
    assert not hasattr(ndl.ops, "arctan")  # the example adds an op that does not exist yet
    monkeypatch.setattr(ndl.ops, "arctan", file["arctan"], raising=False)
    monkeypatch.setattr(table, "ROWS", [])
    exec(compile(test, "CONTRIBUTING.md", "exec"), dict(vars(table)))
    (row,) = table.ROWS
    for order in ("row-major", *table.ORDERS):
        table.check_row(row, device, order)
    x = ndl.Tensor(np.array([-1e4, 0, 1e4], "float32"), device=device)
    assert file["arctan"](x).dtype == "float32"
    assert file["arctan"](x).numpy().tolist() == pytest.approx([-np.pi / 2, 0, np.pi / 2], abs=1e-3)
    assert ndl.gradcheck(file["arctan"], ndl.Tensor([0.5, -2.0], device=device))


def test_the_readme_draws_the_floors():
    drawn = re.findall(r"^ +(\d)  │  (\S+(?: · \S+)*) ", README, re.MULTILINE)
    floors = {int(number): names.split(" · ") for number, names in drawn}
    *listed, siblings, top = (floors[number] for number in sorted(floors))
    assert (listed, top) == (FLOORS, TOP)
    named = {
        path.stem for path in (ROOT / "needle").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {*siblings} == named - {*sum(FLOORS, TOP), "__init__"}


def test_every_make_command_is_a_target():
    targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)(?:\S+=\S+ )?make (\w+)", README + CONTRIBUTING, re.MULTILINE))
    assert {"train", "test", "quick", "lint", "check", "docs", "bench"} <= named <= targets
