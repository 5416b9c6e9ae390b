"""README.md and CONTRIBUTING.md: their Python runs as it stands, and the names and commands that they give exist."""

import re
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle.ops import elementwise
from tests.ops import table
from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parent.parent
README, CONTRIBUTING, MAKEFILE = (
    (ROOT / name).read_text("utf-8") for name in ("README.md", "CONTRIBUTING.md", "Makefile")
)


def blocks(text, language):
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_network_of_the_readme_learns(capsys):
    train, _ = blocks(README, "python")
    exec(compile(train, "README.md", "exec"), {"__name__": "readme"})
    correct, total = map(int, re.match(r"(\d+) of (\d+) ", capsys.readouterr().out).groups())
    assert total == 355
    assert correct > 0.95 * total
    assert len([line for line in train.splitlines() if line]) < 30


def test_the_second_derivative_of_the_readme_is_what_its_comment_says(capsys):
    _, second = blocks(README, "python")
    exec(compile(second, "README.md", "exec"), {"__name__": "readme"})
    (comment,) = re.findall(r"print\(.*#  ?(.*)", second)
    assert capsys.readouterr().out.strip() == comment


def test_the_op_of_the_guide_passes_the_test_of_the_guide(device, monkeypatch):
    op, test = blocks(CONTRIBUTING, "python")
    file = dict(vars(elementwise))
    exec(compile(op, "CONTRIBUTING.md", "exec"), file)
    assert not hasattr(ndl.ops, "arctan")  # the example adds an op that is not there
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


def table_rows():
    """(place, name) of every name in the README's table of what is there."""
    (listed,) = re.findall(r"<!-- names.*? -->\n(.*?)<!-- end -->", README, re.DOTALL)
    for line in listed.splitlines()[2:]:
        _, place, names, _ = line.split("|")
        yield from ((place.strip(), name) for name in re.findall(r"`(\w+)`", names))


@pytest.mark.parametrize(("place", "name"), list(table_rows()))
def test_the_readme_lists_what_exists(place, name):
    """A row is of what is in the module that its first cell names, without one in needle itself."""
    module = attrgetter(place.strip("`"))(ndl) if place.startswith("`") else ndl
    assert hasattr(module, name)


def test_the_readme_lists_every_layer_and_function():
    listed = {name for _, name in table_rows()}
    functions = {name for name in ndl.ops.__all__ if not isinstance(getattr(ndl.ops, name), type)}
    scalar = {name for name in functions if name.endswith("_scalar")}
    assert not {*ndl.nn.__all__} - {"functional"} - listed
    assert not functions - scalar - {"make_tuple", "tuple_get_item"} - listed


def test_the_house_of_the_readme_has_its_floors():
    drawn = re.findall(r"^ +(\d)  │  (\S+(?: · \S+)*) ", README, re.MULTILINE)
    floors = {int(number): names.split(" · ") for number, names in drawn}
    assert [floors[number] for number in sorted(floors)][:-1] == FLOORS
    assert floors[len(FLOORS) + 1] == ["optim", "data", "gradcheck", "doctor"]


def test_every_make_command_is_a_target():
    targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)(?:\S+=\S+ )?make (\w+)", README + CONTRIBUTING, re.MULTILINE))
    assert {"train", "test", "lint", "check", "bench"} <= named <= targets


def test_links_lead_somewhere():
    for text in (README, CONTRIBUTING):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / target).exists(), target
