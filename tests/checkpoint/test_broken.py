"""Files that are cut, changed or made to harm: refused in little memory, or read as what they were."""

from __future__ import annotations

import io
import json
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest

import needle as ndl
from needle.files import Broken
from tests.checkpoint.test_refusals import archive, described, entry, member, npy, tensors
from tests.checkpoint.test_round_trip import KINDS, as_read, assert_same, content, read
from tests.data.test_files import NO_FILE

FLAT = {"w": np.arange(6, dtype="f4").reshape(2, 3), "ü": np.array([True, False]), "b": np.ones((2, 2), order="F")}
STATES = {"flat": FLAT, "nested": {"model": FLAT, "o": {0: [1, 2.5, None, "x"], "big": 2**70}}}


def compressed():
    file = io.BytesIO()
    np.savez_compressed(file, **FLAT)
    return file.getvalue()


FILES = {
    **{
        f"{name} {kind}": (kind, content(kind, state), as_read(kind, state))
        for kind in KINDS
        for name, state in STATES.items()
    },
    "compressed .npz": (".npz", compressed(), FLAT),
}


@pytest.mark.parametrize(("kind", "content", "state"), FILES.values(), ids=FILES)
def test_a_cut_file_of_any_length(kind, content, state):
    assert_same(read(kind, content), state)
    for length in range(len(content)):
        with pytest.raises(Broken):
            read(kind, content[:length])
    with pytest.raises(Broken):
        read(kind, content + b"\0")


@pytest.mark.parametrize(("kind", "content", "state"), FILES.values(), ids=FILES)
def test_any_byte_changed(kind, content, state):
    """A .npz is never read as another state. A .safetensors file has no checksum, and no other error comes."""
    refused = 0
    for place in range(len(content)):
        for flip in (1 << place % 8, 255):
            changed = bytearray(content)
            changed[place] ^= flip
            try:
                other = read(kind, bytes(changed))
            except Broken:
                refused += 1
            else:
                if kind == ".npz":
                    assert_same(other, state)
    assert refused > len(content)


@pytest.mark.parametrize(("kind", "content", "state"), FILES.values(), ids=FILES)
def test_parts_lost_or_repeated(kind, content, state):
    draw = np.random.default_rng(0).integers
    for _ in range(100):
        first, second = sorted(draw(1, len(content), 2))
        for changed in (content[:first] + content[second:], content[:second] + content[first:], content[first:]):
            try:
                other = read(kind, changed)
            except Broken:
                continue
            assert_same(other, state)


MARKS = b"0123456789[](){}\"',:-$<>|OfiubcNTrue.\\ \x80"


def with_headers_changed(kind, content, draw):
    """The file with a few characters of its headers and its text replaced; checksums are right."""

    def changed(part, size):
        part = bytearray(part)
        for place in draw(0, size, draw(1, 4)):
            part[place] = MARKS[draw(len(MARKS))]
        return bytes(part)

    if kind == ".safetensors":
        size = 8 + int.from_bytes(content[:8], "little")
        return content[:8] + changed(content[8:], size - 8)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        parts = [(name, file.read(name)) for name in file.namelist()]
    return archive([(name, changed(part, len(part) if name == "needle.json" else 128)) for name, part in parts])


@pytest.mark.parametrize("name", ["nested .npz", "nested .safetensors"])
def test_headers_changed(name):
    kind, content, _ = FILES[name]
    draw, refused = np.random.default_rng(0).integers, 0
    for _ in range(300):
        try:
            read(kind, with_headers_changed(kind, content, draw))
        except Broken:
            refused += 1
    assert refused > 200


# ---- small files that promise much -----------------------------------------------------------------------------------


def overlapping():
    """Members of an archive that share one compressed part, as in https://www.bamsoftware.com/hacks/zipbomb/."""
    content = npy(described(shape=(2**20,)), bytes(2**22))
    one = archive([("a.npy", content)], compression=zipfile.ZIP_DEFLATED)
    start = one.index(b"PK\1\2")
    record = one[start : one.index(b"PK\5\6")]
    records = b"".join(record.replace(b"a.npy", b"%c.npy" % letter) for letter in range(97, 123))
    end = bytearray(one[one.index(b"PK\5\6") :])
    end[8:12] = (26).to_bytes(2, "little") * 2
    end[12:16] = len(records).to_bytes(4, "little")
    return one[:start] + records + bytes(end)


def boasting(size):
    """A compressed member that is said to be much larger than deflate can make it."""
    content = bytearray(
        archive([("a.npy", npy(described(shape=(size // 4,)), bytes(100)))], compression=zipfile.ZIP_DEFLATED)
    )
    start = content.index(b"PK\1\2")
    content[start + 24 : start + 28] = (size + 80).to_bytes(4, "little")
    return bytes(content)


def hidden(count):
    """Zeros that make a header long."""
    content = b"\x93NUMPY\2\0" + count.to_bytes(4, "little") + bytes(count)
    return archive([("a.npy", content)], compression=zipfile.ZIP_DEFLATED)


MUCH = 2**31
PROMISES = {
    "shape": (".npz", member(described(shape=(MUCH,)))),
    "shapes beyond 64 bits": (".npz", member(described(shape=(2**62, 2**62, 0)))),
    "boast": (".npz", boasting(MUCH)),
    "overlap": (".npz", overlapping()),
    "long header": (".npz", hidden(2**24)),
    "lists in a header": (".npz", archive([("a.npy", npy("[" * 9000))])),
    "a power in a header": (".npz", member("9**9**9**9")),
    "compressed text": (".npz", archive([("needle.json", b"[]," * 2**20)], compression=zipfile.ZIP_DEFLATED)),
    "deep text": (".npz", archive([("needle.json", b"[" * 10**6)])),
    "long number": (".npz", archive([("needle.json", b"9" * 10**6)])),
    "pickle": (".npz", archive([("a.npy", npy(described(descr="|O"), b"cos\nsystem\n(S'false'\ntR."))])),
    "header of gigabytes": (".safetensors", (2**40).to_bytes(8, "little") + b"{}"),
    "header beyond 64 bits": (".safetensors", b"\xff" * 8 + b"{}"),
    "tensor shape": (".safetensors", tensors({"a": entry(shape=[MUCH], offsets=[0, 4 * MUCH])})),
    "empty tensor shape": (".safetensors", tensors({"a": entry(shape=[2**62, 2**62, 0], offsets=[0, 0])})),
    "deep header": (".safetensors", tensors(b'{"a":' * 10**5)),
}


@pytest.mark.parametrize("name", PROMISES)
def test_a_file_that_promises_much_takes_little_memory(tmp_path, name):
    kind, content = PROMISES[name]
    path = tmp_path / f"state{kind}"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"^load: path must be a whole \{kind} file of numbers, but {path} "):
            ndl.load(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(content) + 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_takes_its_own_memory(tmp_path, kind):
    state = {"a": np.zeros(2**20), "b": np.asfortranarray(np.ones((2**10, 2**10))), "c": [np.zeros(2**21, "f4")[::-1]]}
    size = 3 * 2**23
    ndl.save(tmp_path / f"warm{kind}", {})
    tracemalloc.start()
    try:
        ndl.save(tmp_path / f"state{kind}", state)
        # A .safetensors file is written of copies of the two arrays that are not in its order.
        assert tracemalloc.get_traced_memory()[1] < (0.5 if kind == ".npz" else 0.7) * size
        tracemalloc.reset_peak()
        loaded = ndl.load(tmp_path / f"state{kind}")
        assert tracemalloc.get_traced_memory()[1] < 1.1 * size
    finally:
        tracemalloc.stop()
    assert_same(loaded, state)


# ---- no file ---------------------------------------------------------------------------------------------------------


@NO_FILE
@pytest.mark.parametrize("ending", KINDS)
def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path, monkeypatch, make, kind, ending):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"state{ending}"
    make(path)
    for op, call in (("load", ndl.load), ("save", lambda path: ndl.save(path, {}))):
        with pytest.raises(OSError, match=re.escape(f"{op}: path must be a regular file, but {path} is {kind}")):
            call(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("content", [b"", b"\n", b"a text\n" * 100, b"\x80\x04N.", b"\x89PNG\r\n\x1a\n", bytes(5000)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind(kind, content):
    with pytest.raises(Broken):
        read(kind, content)


def test_the_formats_under_each_other_s_ending(tmp_path):
    for kind, other in ((".npz", ".safetensors"), (".safetensors", ".npz")):
        (tmp_path / f"state{other}").write_bytes(content(kind, FLAT))
        with pytest.raises(ValueError, match=r"^load: path must be a whole "):
            ndl.load(tmp_path / f"state{other}")


def test_a_pickle_is_not_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    np.savez(tmp_path / "state.npz", a=np.array([Harm()], object))
    with pytest.raises(ValueError, match=r"holds 'a\.npy' of type '\|O', but only bools and numbers"):
        ndl.load(tmp_path / "state.npz")
    assert not (tmp_path / "harm").exists()


def test_a_text_that_names_an_array_twice(tmp_path):
    text = {"needle": 1, "state": {"a": {"$array": "x"}, "b": {"$array": "x"}}}
    content = archive([("x.npy", npy(described(), bytes(8))), ("needle.json", json.dumps(text))])
    assert_same(read(".npz", content), {"a": np.zeros(2, "f4"), "b": np.zeros(2, "f4")})
