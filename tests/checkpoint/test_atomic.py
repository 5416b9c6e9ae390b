"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from needle.checkpoint import atomic, remove_leftovers, write_atomically
from tests.checkpoint.test_refusals import largest_file
from tests.interrupts import interrupt_everywhere

ROOT = Path(__file__).resolve().parents[2]
LEFTOVER = ".run.csv.0123456789abcdef.needle-tmp"


def write(path, content):
    with write_atomically(path) as file:
        file.write(content)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.csv"


def test_bytes_and_text(path):
    write(path, b"\0\1")
    assert path.read_bytes() == b"\0\1"
    with write_atomically(path, "w") as file:
        file.write("ü\r\n1\n")
    assert path.read_bytes() == b"\xc3\xbc\r\n1\n"
    assert os.listdir(path.parent) == ["run.csv"]


def test_nothing_is_seen_before_the_end(path):
    path.write_bytes(b"old")
    with write_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_a_block_that_raises_changes_nothing(path, mode):
    for error in (RuntimeError, KeyboardInterrupt, GeneratorExit):
        for content in (None, b"old"):
            if content:
                path.write_bytes(content)
            with contextlib.suppress(error), write_atomically(path, mode) as file:
                file.write("new" if mode == "w" else b"new")
                raise error
            assert os.listdir(path.parent) == (["run.csv"] if content else [])
            assert not content or path.read_bytes() == content
        path.unlink()


def test_a_block_may_close_its_file(path):
    for mode, content in (("wb", b"whole"), ("w", "whole")):
        with write_atomically(path, mode) as file:
            file.write(content)
            file.close()
        assert path.read_bytes() == b"whole"
        path.unlink()


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_full_disk(path, size):
    """Also where the system refuses at the flush after the block, and again when the file is closed."""
    path.write_bytes(b"old")
    message = f"^write_atomically: path must be a file that can be written, but {path}: File too large$"
    with largest_file(5), pytest.raises(OSError, match=message) as caught:
        write(path, bytes(size))
    assert caught.value.errno == 27
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["run.csv"]
    assert not open_files_in(path.parent)


def open_files_in(folder):
    """The open files of this process in a folder."""
    links = []
    for link in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(link.path))
    return [link for link in links if link.startswith(str(folder))]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # an interrupt may come between a file and its close
def test_an_interrupt_at_any_line(path):
    path.write_bytes(b"old")
    places = []
    for place in interrupt_everywhere(lambda: write(path, b"new"), contextlib, atomic):
        assert path.read_bytes() in (b"old", b"new"), place
        assert os.listdir(path.parent) == ["run.csv"], place
        places.append(place)
    functions = {place.split(":")[0] for place in places}
    assert functions >= {"whole_path", "_whole_file", "_new_file", "_remove_folder", "_sync"}
    assert path.read_bytes() == b"new"


def test_an_error_of_another_file_is_not_reworded(path):
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '/no/file'"), write_atomically(path):
        Path("/no/file").read_bytes()
    with pytest.raises(OSError, match=r"^mine$"), write_atomically(path):
        raise OSError("mine")


# ---- leftovers -------------------------------------------------------------------------------------------------------


def test_leftovers_of_the_same_path_are_removed_by_the_next_writer(path):
    for name in (LEFTOVER, LEFTOVER.replace("run", "other"), ".run.csv.needle-tmp", ".run.csv.swp"):
        (path.parent / name).mkdir()
        (path.parent / name / ".tmpFl5Tyg").write_bytes(b"half")
    write(path, b"new")
    left = sorted(os.listdir(path.parent))
    assert left == sorted(["run.csv", LEFTOVER.replace("run", "other"), ".run.csv.needle-tmp", ".run.csv.swp"])
    assert remove_leftovers(path.parent) == [str(path.parent / LEFTOVER.replace("run", "other"))]
    assert len(os.listdir(path.parent)) == 3


def test_the_file_of_a_writer_at_work_stays(path):
    with write_atomically(path) as first:
        first.write(b"first")
        write(path, b"second")
        assert remove_leftovers(path.parent) == []
        assert path.read_bytes() == b"second"
        assert len(os.listdir(path.parent)) == 2
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["run.csv"]


def test_what_is_not_needle_s_stays(path, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_bytes(b"")
    (path.parent / LEFTOVER / "folder").mkdir(parents=True)
    (path.parent / LEFTOVER.replace("0", "1")).symlink_to(tmp_path / "other")
    os.mkfifo(path.parent / LEFTOVER.replace("0", "2"))
    (path.parent / LEFTOVER.replace("0", "3")).write_bytes(b"")
    write(path, b"new")
    assert remove_leftovers(path.parent) == []
    assert len(os.listdir(path.parent)) == 6
    assert os.listdir(tmp_path / "other") == ["file"]


def test_a_killed_writer_of_another_process(path):
    """Its file stays while it lives, and goes when it is dead."""
    code = (
        "import sys\nfrom needle.checkpoint import write_atomically\n"
        "with write_atomically(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        write(path, b"new")
        assert len(os.listdir(path.parent)) == 2
        process.kill()
        process.wait()
    assert len(os.listdir(path.parent)) == 2
    write(path, b"newer")
    assert os.listdir(path.parent) == ["run.csv"]


def test_a_folder_that_is_removed_before_it_is_locked_is_made_anew(path, monkeypatch):
    """A writer takes a new folder for a leftover of a killed one, if it sees it in the moment before the lock."""
    lock, removed = fcntl.flock, []

    def flock(descriptor, how):
        if how == fcntl.LOCK_EX and not removed:
            removed.extend(remove_leftovers(path.parent))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    write(path, b"new")
    assert len(removed) == 1
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["run.csv"]
    assert not open_files_in(path.parent)


def test_a_file_system_without_locks(path, monkeypatch):
    """Files are written, and leftovers stay, since nobody knows whose they are."""

    def refuse(descriptor, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (path.parent / LEFTOVER).mkdir()
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(path.parent)) == [LEFTOVER, "run.csv"]


def test_many_writers_at_once(path):
    contents = [bytes([n]) * 100_000 for n in range(8)]

    def work(content):
        for _ in range(10):
            write(path, content)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert os.listdir(path.parent) == ["run.csv"]


def test_the_old_file_is_closed(path, monkeypatch):
    """In a thread, or, if there can be none, before the writer returns."""
    write(path, b"old")
    write(path, b"new")
    while open_files_in(path.parent):
        pass

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    write(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert not open_files_in(path.parent)


# ---- as open does ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions(path, umask):
    before = os.umask(umask)
    try:
        write(path, b"new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
        for mode in (0o600, 0o664, 0o640):
            path.chmod(mode)
            with write_atomically(path):
                (room,) = path.parent.glob(".*")
                assert stat.S_IMODE(room.stat().st_mode) == 0o700 & ~umask  # others cannot read what is in it
            assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_links_are_followed(path, tmp_path):
    (tmp_path / "far").mkdir()
    path.symlink_to("far/there")
    for content in (b"new", b"newer"):
        write(path, content)
        assert path.is_symlink()
        assert (tmp_path / "far/there").read_bytes() == content
    assert os.listdir(tmp_path / "far") == ["there"]


def test_long_names(tmp_path):
    path = tmp_path / ("ü" * 127)
    for content in (b"new", b"newer"):
        write(path, content)
        assert path.read_bytes() == content
    assert len(os.listdir(tmp_path)) == 1


def test_a_relative_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    write("run.csv", b"new")
    write(b"./run.csv", b"newer")
    assert path.read_bytes() == b"newer"


def test_a_read_only_file(path, monkeypatch):
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda name, how: how != os.W_OK)  # root may write all
    message = f"^write_atomically: path must be a file that can be written, but {path} is read-only$"
    with pytest.raises(PermissionError, match=message):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_listed(path, monkeypatch):
    """Leftovers stay, and nothing else is lost."""

    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    write(path, b"new")
    assert path.read_bytes() == b"new"


# ---- killed at any moment --------------------------------------------------------------------------------------------

KILLS = """
import os, random, signal, sys, time
import numpy as np
import needle as ndl

folder, ending, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
path, leftovers = os.path.join(folder, f"state{ending}"), 0
random.seed(0)
ndl.save(path, {"step": 0, "a": np.zeros(100_000), "b": [np.zeros(3)]})
for _ in range(kills):
    child = os.fork()
    if not child:
        for step in range(1, 10**9):
            ndl.save(path, {"step": step, "a": np.full(100_000, float(step)), "b": [np.full(3, float(step))]})
    time.sleep(random.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state = ndl.load(path)
    assert (state["a"] == state["step"]).all() and (state["b"][0] == state["step"]).all()
    assert len(os.listdir(folder)) <= 2
    leftovers += len(os.listdir(folder)) - 1
ndl.save(path, {})
assert os.listdir(folder) == [f"state{ending}"]
print(leftovers)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_writer_that_is_killed_at_any_moment(tmp_path, ending):
    """The file is whole after each of 200 kills, the kills hit writers, and the next writer removes what they left."""
    command = [sys.executable, "-c", KILLS, tmp_path, ending, "200"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) > 50
