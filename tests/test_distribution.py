"""What is packed and what is deleted: the source distribution is complete, and `make` leaves alone what users made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_architecture import AT_ROOT

ROOT = Path(__file__).resolve().parent.parent
ADDED = {"PKG-INFO", "setup.cfg"}  # by setuptools, after the list is made
NO_SOURCE = {"__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", ".pytest_cache"}


def test_the_source_distribution_holds_apps_docs_and_tests(tmp_path):
    pytest.importorskip("setuptools", "77")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    packed = {Path(line) for line in (tmp_path / "needle_dl.egg-info/SOURCES.txt").read_text("utf-8").splitlines()}
    files = [ROOT / name for name in AT_ROOT - ADDED]
    files += [path for folder in files for path in folder.rglob("*") if not NO_SOURCE & {*path.parts}]
    expected = {path.relative_to(ROOT) for path in files if path.is_file()}
    assert {Path("apps/train.py"), Path("docs/conf.py"), Path("tests/conftest.py"), Path("Makefile")} <= expected
    assert expected - packed == set()


# ---- make ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path):
    """A function that runs make in a folder with only the Makefile and what a user made."""
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "setup.py", tmp_path)
    for name in ("runs/mine/metrics.csv", ".venv/mine", ".venv/lib/__pycache__/mine.pyc", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")

    def run(*arguments):
        process = subprocess.run(["make", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        return process.returncode, process.stderr

    return run


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_make_clean_deletes_only_what_make_made(make, tmp_path):
    before = files_in(tmp_path)
    for name in ("build/docs/index.html", "needle/__pycache__/nn.pyc", "needle_dl.egg-info/PKG-INFO", ".coverage"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert make("clean") == (0, "")
    assert files_in(tmp_path) == before
    (tmp_path / ".venv/.by-make").write_text("")
    assert make("clean") == (0, "")
    assert not (tmp_path / ".venv").exists()


def test_make_does_not_overwrite_an_environment_of_the_user(make, tmp_path):
    before = files_in(tmp_path)
    status, message = make("train", f"PYTHON={sys.executable}")
    assert status == 2
    assert message.startswith(".venv is not one that make made; ")
    assert files_in(tmp_path) == before
