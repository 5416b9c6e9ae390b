"""docs/*.md: every Python example runs as it stands and prints what it says, and links lead somewhere."""

import doctest
import re
from operator import attrgetter
from pathlib import Path

import pytest

import needle as ndl

DOCS = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))


def failures(text, name):
    """What doctest reports of the examples of a text; its fences are no output. No examples at all are a failure."""
    test = doctest.DocTestParser().get_doctest(re.sub(r"^```.*$", "", text, flags=re.M), {}, name, name, 0)
    report = [] if test.examples else [f"{name}: no examples"]
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_examples_run(path):
    found = failures(path.read_text("utf-8"), path.name)
    assert not found, found


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def names_of_the_course():
    """Every name in the first two columns of the table in docs/course.md."""
    text = next(path for path in DOCS if path.name == "course.md").read_text("utf-8")
    (listed,) = re.findall(r"<!-- names.*? -->\n(.*?)<!-- end -->", text, re.DOTALL)
    for line in listed.splitlines()[2:]:
        yield from (name for cell in line.split("|")[1:3] for name in re.findall(r"`([\w.]+)`", cell))


@pytest.mark.parametrize("name", sorted(set(names_of_the_course())))
def test_the_names_of_the_course_exist(name):
    assert callable(attrgetter(name)(ndl))


@pytest.mark.parametrize("text", ["", "```python\n>>> 1 + 1\n3\n```", "```python\n>>> undefined\n```"])
def test_an_example_that_fails_is_reported(text):
    assert failures(text, "text")
    assert not failures("```python\n>>> 1 + 1\n2\n```", "text")
