"""docs/: examples run and print what they show, links resolve, and every public name is listed."""

import doctest
import os
import re
import sys
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
import torch

import needle as ndl
from needle import tuning

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAPERS = [*DOCS, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
WITH_EXAMPLES = {"architecture", "convolution", "course", "debugging", "from_pytorch", "gpu", "kernels", "performance"}
WITH_EXAMPLES |= {"capture", "checkpoints", "data", "interop", "onnx"}


def name(path):
    return str(path.relative_to(ROOT))


# ---- examples --------------------------------------------------------------------------------------------------------


def failures(text, name):
    """Doctest's report on the examples of a text; fences are not part of the output."""
    test = doctest.DocTestParser().get_doctest(re.sub(r"^```.*$", "", text, flags=re.M), {}, name, name, 0)
    report = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("path", [path for path in DOCS if ">>>" in path.read_text("utf-8")], ids=name)
def test_the_examples_run(path):
    report = failures(path.read_text("utf-8"), path.name)
    assert not report, report


def test_the_guides_have_examples():
    assert {path.stem for path in DOCS if ">>> " in path.read_text("utf-8")} == WITH_EXAMPLES


@pytest.mark.parametrize("text", ["```python\n>>> 1 + 1\n3\n```", "```python\n>>> undefined\n```"])
def test_an_example_that_fails_is_reported(text):
    assert failures(text, "text")
    assert not failures("```python\n>>> 1 + 1\n2\n```", "text")


# ---- the life of a call ----------------------------------------------------------------------------------------------


def calls(run):
    """(function, file in needle/) of every Python call within needle, in order."""
    root, seen = str(Path(ndl.__file__).parent) + os.sep, []

    def record(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            seen.append((frame.f_code.co_name, frame.f_code.co_filename.removeprefix(root).replace(os.sep, "/")))

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        run()
    finally:
        sys.setprofile(before)
    return seen


def test_the_life_of_a_call_is_as_documented():
    """Each `function` (`file`) of a numbered step is called, and in the order of the text."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    scope = {}
    sections = re.findall(r"<!-- trace: (.*?) -->\n```python\n(.*?)^```\n(.*?)^## ", text, re.M | re.S)
    assert len(sections) == 2
    for expression, example, steps in sections:
        for line in re.findall(r"^>>> (.*)", example, re.M):
            if expression not in line:
                exec(line, scope)
                continue
            made = calls(lambda line=line: exec(line, scope))
        told = re.findall(r"`(\w+)` \(`([\w/]+\.py)`\)", steps)
        assert len(told) > 7
        remaining = iter(made)
        assert not [step for step in told if step not in remaining]


def test_the_kernels_that_can_be_replaced_are_listed():
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    (listed,) = re.findall(r"^These kernels can be replaced: (.*?)\n\n", text, re.M | re.S)
    sources = [path.read_text("utf-8") for path in (ROOT / "needle/kernels").rglob("*.py")]
    defined = [name for source in sources for name in re.findall(r"^@overridable\ndef (\w+)", source, re.M)]
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(defined)


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(text):
    """The anchors that GitHub, and MyST after it, make of the headings of a text."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path):
    """Links of a page to files or headings that do not exist; pages in docs/ link only to each other."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        file = (path.parent / target).resolve() if target else path
        inside = ROOT / "docs" not in path.parents or ROOT / "docs" in file.parents
        if not (inside and file.exists() and (not anchor or anchor in anchors(file.read_text("utf-8")))):
            yield f"{target}#{anchor}"


@pytest.mark.parametrize("path", PAPERS, ids=name)
def test_links_lead_somewhere(path):
    assert not list(dead_links(path))


def test_dead_links_are_reported(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A title: `b`\n[a](page.md#a-title-b) [b](#no) [c](no.md) [d](page.md#no)", "utf-8")
    assert list(dead_links(page)) == ["#no", "no.md#", "page.md#no"]


@pytest.mark.parametrize("path", [path for path in PAPERS if path.stem != "CHANGELOG"], ids=name)
def test_the_files_that_are_named_exist(path):
    """In backticks and with their folder, seen from the root or from needle/: `tests/conftest.py`, `ops/base.py`."""
    named = re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", path.read_text("utf-8"))
    named = [file for file in named if not file.startswith("runs/")]  # made by the command that the text describes
    assert not [file for file in named if not ((ROOT / file).exists() or (ROOT / "needle" / file).exists())]


def test_the_thresholds_that_are_named_exist():
    named = re.findall(r"`([A-Z][A-Z0-9_]+)`", (ROOT / "docs/kernels.md").read_text("utf-8"))
    assert len(named) > 10
    assert not [name for name in {*named} - {"OMP_NUM_THREADS"} if not hasattr(tuning, name)]


# ---- the reference and the course ------------------------------------------------------------------------------------


def referenced():
    """(module, name) of every name that the pages in docs/api/ document."""
    for path in DOCS:
        for module, listed in re.findall(r"^```\{api\} (\S+)\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            yield from ((module, name) for name in re.sub(r"^:.*$", "", listed, flags=re.M).split())


MODULES = ["nn", "nn.functional", "nn.utils", "optim", "optim.lr_scheduler", "data", "init"]
MODULES += ["metrics", "training", "checkpoint", "distributed", "interop.torch", "interop.foreign"]
MODULES += ["onnx", "onnx.backend"]


def test_no_name_is_documented_twice():
    names = list(referenced())
    assert len(names) == len(set(names))


def public(module):
    """The names of a module, except for modules and NumPy's dtypes."""
    members = {name: getattr(module, name) for name in module.__all__}
    return {name for name, value in members.items() if getattr(value, "__module__", "numpy") != "numpy"}


@pytest.mark.parametrize("module", [f"needle.{name}" for name in MODULES])
def test_every_public_name_of_a_module_is_documented(module):
    assert {name for place, name in referenced() if place == module} == public(import_module(module))


def test_every_public_name_of_needle_is_documented():
    """Under its name in needle or in one of the modules."""
    documented = {id(getattr(import_module(module), name)) for module, name in referenced()}
    assert not {name for name in public(ndl) & {*ndl.__all__} if id(getattr(ndl, name)) not in documented}


def test_every_documented_name_has_a_docstring():
    assert not [name for module, name in referenced() if not getattr(import_module(module), name).__doc__]


def tables(path):
    """The cells of the tables of a page that `<!-- names -->` marks, a list for each row."""
    for listed in re.findall(r"<!-- names.*? -->\n(.*?)<!-- end -->", path.read_text("utf-8"), re.DOTALL):
        for line in listed.splitlines()[2:]:
            yield re.split(r" *(?<!\\)\| *", line)[1:-1]


def names_in(page, columns):
    for cells in tables(ROOT / "docs" / page):
        yield from (name for cell in cells[columns] for name in re.findall(r"`([\w.]+)`", cell))


@pytest.mark.parametrize("name", sorted(set(names_in("course.md", slice(2)))))
def test_the_names_of_the_course_exist(name):
    assert callable(attrgetter(name)(ndl))


def test_the_table_for_users_of_torch_names_what_exists():
    """The first column holds names of torch, the second needle's."""
    rows = list(tables(ROOT / "docs/from_pytorch.md"))
    assert len(rows) > 15
    for theirs, ours, *_ in rows:
        for name in re.findall(r"`torch\.([\w.]+)`", theirs):
            attrgetter(name)(torch)
        for name in re.findall(r"`ndl\.([\w.]+)`", ours):
            attrgetter(name)(ndl)
