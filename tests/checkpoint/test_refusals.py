"""What `save`, `load` and the writer of whole files refuse, before anything is written or much is read."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors import SafetensorError

import needle as ndl
from needle import checkpoint
from needle.files import Broken, open_file
from needle.npz import read_npz

ONES = np.ones(2, "float32")


def in_folder(call):
    """`call(folder)` in a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        return call(Path(folder))


def saved(state, kind=".npz"):
    """Save a state, which is refused: no file appears."""

    def run(folder):
        try:
            ndl.save(folder / f"state{kind}", state)
        finally:
            assert not os.listdir(folder)

    in_folder(run)


def loaded(content, kind=".npz"):
    def run(folder):
        path = folder / f"state{kind}"
        path.write_bytes(content)
        return ndl.load(path)

    return in_folder(run)


def archive(members, **options):
    """The bytes of a ZIP archive of (name, content) pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as made:
        for name, content in members:
            made.writestr(name, content)
    return file.getvalue()


def npy(form, data=b"", start=b"\x93NUMPY\1\0"):
    """The bytes of a .npy with this header."""
    header = str(form).encode()
    return start + len(header).to_bytes(2, "little") + header + data


def member(form, data=b""):
    """The bytes of a .npz with an array `a` of this header."""
    return archive([("a.npy", npy(form, data))])


def described(**changes):
    return {"descr": "<f4", "fortran_order": False, "shape": (2,)} | changes


def told(text, arrays=()):
    """The bytes of a .npz with arrays of these names and a text."""
    content = text if isinstance(text, str) else json.dumps(text)
    return archive([*((f"{name}.npy", npy(described(), bytes(8))) for name in arrays), ("needle.json", content)])


def tensors(header, data=b""):
    """The bytes of a .safetensors file with this header."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(content).to_bytes(8, "little") + content + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def nested(depth, value=()):
    for _ in range(depth):
        value = [value]
    return {"a": value}


def encrypted():
    content = bytearray(archive([("a.npy", b"")]))
    content[content.index(b"PK\1\2") + 8] |= 1
    return bytes(content)


def promising(size, data=bytes(100), **options):
    """A member with this data that says to be of `size` bytes."""
    content = bytearray(archive([("a.npy", data)], **options))
    start = content.index(b"PK\1\2")
    content[start + 24 : start + 28] = size.to_bytes(4, "little")
    return bytes(content)


def pattern(text):
    """A message as a regular expression."""
    return text.pattern if isinstance(text, re.Pattern) else re.escape(text)


def before_its_begin():
    """A member that begins before the file does."""
    content = bytearray(archive([("a.npy", npy(described(), bytes(8)))]))
    content[-6] += 64
    return bytes(content)


def twice():
    content = archive([("a.npy", npy(described(), bytes(8))), ("b.npy", npy(described(), bytes(8)))])
    return content.replace(b"b.npy", b"a.npy")


PATH = r"/\S+/state"
LOADED = [
    (b"", "is not a complete ZIP archive: File is not a zip file"),
    (archive([("a.npy", npy(described(), bytes(8)))])[:-1], "is not a complete ZIP archive: File is not a zip file"),
    (before_its_begin(), re.compile("is not a complete ZIP archive: .*")),
    (archive([("a", b"x")]), "holds 'a', which is no array; np.load reads it"),
    (twice(), "holds two members of one name"),
    (promising(867, npy(described(shape=(200,)), bytes(400)), compression=zipfile.ZIP_DEFLATED),
     "holds 'a.npy' with fewer bytes than its header says"),
    (archive([("../a.npy", b"x")]), "holds '../a.npy', a name that no array may have"),
    (archive([("a.npy", b"x")], compression=zipfile.ZIP_BZIP2),
     "holds 'a.npy' encrypted, or compressed by another method than deflate"),
    (encrypted(), "holds 'a.npy' encrypted, or compressed by another method than deflate"),
    (promising(2**31), "promises 2147483648 bytes for 'a.npy', more than it can hold"),
    (archive([("needle.json", b"{}")], compression=zipfile.ZIP_DEFLATED),
     "holds needle.json compressed, which needle does not do"),
    (archive([("a.npy", npy(described(), bytes(8)))]) + b"\0",
     "is not a complete ZIP archive: members are missing, or bytes follow its end"),
    (archive([("a.npy", b"x")]), "holds 'a.npy', which is no .npy of version 1 to 3"),
    (archive([("a.npy", npy({}, start=b"\x93NUMPY\4\0"))]), "holds 'a.npy', which is no .npy of version 1 to 3"),
    (archive([("a.npy", b"\x93NUMPY\2\0" + (2**32 - 1).to_bytes(4, "little"))]),
     "holds 'a.npy' with a header of 4294967295 bytes, more than 10000"),
    (member(described(), bytes(7)), "holds 'a.npy' of 72 bytes, which do not fit float32 of shape (2,)"),
    (member(described(shape=(2**62, 2**62))),
     "holds 'a.npy' of 103 bytes, which do not fit float32 of shape (4611686018427387904, 4611686018427387904)"),
    (member(described(shape=(0, 2**62, 2**62))),
     re.compile(r"holds 'a\.npy' of shape \(0, \d+, \d+\), which NumPy cannot hold: .*")),
    (member(described(shape=(-1,))), re.compile(r"holds 'a\.npy' with a header that is none: \{.*\}")),
    (member("{'\\o': 1}"), "holds 'a.npy' with a header that is none: it has a backslash"),
    (member("["), re.compile(r"holds 'a\.npy' with a header that is none: .*")),
    (member("-" * 5000 + "1"), re.compile(r"holds 'a\.npy' with a header that is none: .*")),
    (member(described(descr="|O")),
     "holds 'a.npy' of type '|O', but only bools and numbers of at most 64 bits are read"),
    (member(described(descr="<f3"), bytes(6)),
     "holds 'a.npy' of type '<f3', but only bools and numbers of at most 64 bits are read"),
    (member(described(descr="<f16"), bytes(32)),
     "holds 'a.npy' of type '<f16', but only bools and numbers of at most 64 bits are read"),
    (member(described(descr="|b1"), b"\1\2"), "holds 'a.npy' with bools other than 0 and 1"),
    (told("["), re.compile(r"has a text needle\.json that is not JSON: .*")),
    (told("NaN"), "has a text needle.json that is not JSON: NaN is not JSON"),
    (told('{"a": 1, "a": 2}'), "has a text needle.json that is not JSON: two keys of a dict are the same"),
    (told({}), "has a text needle.json that is not needle's"),
    (told({"needle": 2, "state": {}}), "is of version 2 of the format: load it with a newer needle"),
    (told({"needle": 1, "state": {}}, "a"), "has a text needle.json of another state, which leaves out ['a']"),
    (told({"needle": 1, "state": []}), "has a text needle.json of another state, which leaves out []"),
    (told({"needle": 1, "state": nested(102)}), "has a text needle.json that is nested in more than 100 levels"),
    (told({"needle": 1, "state": {"a": {"$array": "b"}}}),
     "has a text needle.json with an object of '$array' that has no meaning"),
    (told({"needle": 1, "state": {"$dict": [[1]]}}),
     "has a text needle.json with a '$dict' that is not one of keys and values"),
    (told({"needle": 1, "state": {"$dict": [[1, 2], [1, 3]]}}),
     "has a text needle.json with an object of '$dict' that has no meaning"),
    (member(described(), bytes(9)), "holds 'a.npy' of 74 bytes, which do not fit float32 of shape (2,)"),
]
WRONG = re.compile("is not complete, or not right: .*")
TENSORS = [
    (b"", "is not complete, or not right: Error while deserializing header: header too small"),
    (tensors(b"{}")[:9], WRONG),
    ((2**40).to_bytes(8, "little") + b"{}", WRONG),
    (tensors([]), WRONG),
    (tensors(b"{'a'}"), WRONG),
    (tensors(b"[" * 100_000), WRONG),
    (tensors({"__metadata__": {"needle": []}}), WRONG),
    (tensors({"__metadata__": {"needle": "[]"}}), "has a text needle.json that is not needle's"),
    (tensors({"a": []}), WRONG),
    (tensors({"a": entry(shape=[-1])}, bytes(8)), WRONG),
    (tensors({"a": entry([])}, bytes(8)), WRONG),
    (tensors({"a": entry(shape=[10**4000] * 99)}), WRONG),
    (tensors({"a": entry(shape=[1] * 65, offsets=[0, 4])}, bytes(4)), WRONG),
    (tensors({"a": entry("F99")}, bytes(8)), WRONG),
    (tensors({"a": entry("F8_E4M3")}, bytes(2)), WRONG),
    (tensors({"a": entry("F8_E4M3", offsets=[0, 2])}, bytes(2)),
     re.compile("holds 'a' of type F8_E4M3, which is not read; BF16 and BOOL, .*, C64 are")),
    (tensors({"a": entry(shape=[2**62, 4])}, bytes(8)), WRONG),
    (tensors({"a": entry(offsets=[8, 16])}, bytes(16)), WRONG),
    (tensors({"a": entry(), "b": entry()}, bytes(16)), WRONG),
    (tensors({"a": entry()}, bytes(9)), WRONG),
    (tensors({"a": entry()}, bytes(7)), WRONG),
    (tensors({"a": entry("BOOL", [8])}, bytes(range(8))), "holds 'a' with bools other than 0 and 1"),
]  # fmt: skip


def endless():
    state = {}
    state["a"] = state
    return state


PLAIN = "save: state must hold dicts, lists, numbers, text, None, and arrays that NumPy or needle made, but "
NUMBERS = "save: arrays must hold bools or numbers of at most 64 bits, but "
DEEP = re.compile(r"save: state must be nested in at most 100 levels, but a(\.\w)+\.?… is deeper or endless")
SAVED = [
    ([ONES], TypeError, "save: state must be a dict, but got list"),
    (nested(101), ValueError, DEEP),
    (endless(), ValueError, DEEP),
    ({"a": {"b": {1}}}, TypeError,
     PLAIN + "a.b is a set"),
    ({"a": b"bytes"}, TypeError,
     PLAIN + "a is a bytes"),
    ({"a": np.ma.ones(2)}, TypeError,
     PLAIN + "a is a numpy.ma.MaskedArray"),
    ({"a": [np.array([None])]}, TypeError,
     NUMBERS + "a.0 is of object"),
    ({"a": np.ones(2, np.longdouble)}, TypeError,
     re.compile(NUMBERS + "a is of (float128|float96|longdouble)")),
    ({"a": np.zeros(2, "V2")}, TypeError, NUMBERS + "a is of |V2"),  # as bfloat16 of ml_dtypes
    ({"a": np.zeros(2, [("x", "f4")])}, TypeError, NUMBERS + "a is of [('x', '<f4')]"),
    ({"a": np.array(["x"])}, TypeError, NUMBERS + "a is of <U1"),
    ({"a": np.datetime64(1, "s")}, TypeError,
     NUMBERS + "a is of datetime64[s]"),
    ({"a": "\ud800"}, ValueError, "save: text must be Unicode, but a has '\\ud800'"),
    ({"\ud800": 1}, ValueError, "save: text must be Unicode, but a key has '\\ud800'"),
    ({"a": {1.5: 1}}, TypeError, "save: keys must be text or integers, but a key in a is a float"),
    ({True: 1}, TypeError, "save: keys must be text or integers, but a key is a bool"),
    ({"a": "x" * 2**24}, ValueError,
     re.compile("save: state must take at most 16777216 bytes beside its arrays, but got 16777245; keep .*")),
]  # fmt: skip


def write(path):
    with checkpoint.write_atomically(path):
        pass


def read_only(folder):
    path = folder / "state.npz"
    path.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda *arguments: False)
        write(path)


def without_safetensors(call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        call()


@contextmanager
def largest_file(size):
    """The system refuses to write more than `size` bytes into a file, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def on_a_full_disk(kind):
    with largest_file(100):
        saved({"a": np.ones(1000)}, kind)


def with_a_long_header():
    """As of 1,700 names of 60,000 bytes, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        error = SafetensorError("Error while serializing: header too large")
        patch.setattr("safetensors.numpy.save_file", Mock(side_effect=error))
        saved({"a": ONES}, ".safetensors")


def read(path):
    with open_file("open_file", path):
        pass


PACKAGE = r"\.safetensors needs safetensors 0\.8, which `pip install 'needle-dl\[safetensors\]'` installs, but got: .*"
NO_FILE = "path must be a file that can be {}, but /no/folder/x.npz: No such file or directory"
ERRORS = [
    *((partial(saved, state), kind, text) for state, kind, text in SAVED),
    (lambda: saved({"a": np.ones(2, complex)}, ".safetensors"), TypeError,
     "save: a .safetensors file must not hold complex128, but a is; use .npz"),
    *((partial(loaded, content, kind), ValueError, re.compile(
        rf"load: path must be a whole \{kind} file of numbers, but {PATH}\{kind} "
        + pattern(text)))
      for kind, rows in ((".npz", LOADED), (".safetensors", TENSORS)) for content, text in rows),
    (lambda: without_safetensors(partial(saved, {"a": ONES}, ".safetensors")), ModuleNotFoundError,
     re.compile("save: " + PACKAGE)),
    (lambda: without_safetensors(partial(loaded, b"", ".safetensors")), ModuleNotFoundError,
     re.compile("load: " + PACKAGE)),
    *((partial(on_a_full_disk, kind), OSError, re.compile(
        rf"save: path must be a file that can be written, but {PATH}\{kind}: File too large"))
      for kind in (".npz", ".safetensors")),
    (with_a_long_header, ValueError,
     "save: state must fit into a .safetensors file, but got: Error while serializing: header too large"),
    (lambda: ndl.save("x.pt", {}), ValueError, "save: path must end in .npz or .safetensors, but got 'x.pt'"),
    (lambda: ndl.load("x"), ValueError, "load: path must end in .npz or .safetensors, but got 'x'"),
    (lambda: read_npz(io.BytesIO(archive([("b.npy", b""), ("c.npy", b"")])), ["b", "a"]), Broken,
     "holds b, c, without an array 'a'"),
    (lambda: ndl.save(1, {}), TypeError, "save: path must be a path, but got int"),
    (lambda: ndl.load(None), TypeError, "load: path must be a path, but got NoneType"),
    (lambda: ndl.load("a\0.npz"), ValueError,
     re.compile(r"load: path must be a name that a file can have, but got 'a\\x00\.npz': .*null.*")),
    (lambda: ndl.save("a\0.npz", {}), ValueError,
     re.compile(r"save: path must be a name that a file can have, but got 'a\\x00\.npz': .*null.*")),
    (lambda: ndl.load("/no/folder/x.npz"), FileNotFoundError, "load: " + NO_FILE.format("read")),
    (lambda: ndl.save("/no/folder/x.npz", {}), FileNotFoundError, "save: " + NO_FILE.format("written")),
    *((lambda path=path: write(path), FileNotFoundError,
       f"write_atomically: path must be a file that can be written, but {path}: No such file or directory")
      for path in ("", "no/", "/no/folder/")),
    (lambda: write("/tmp"), OSError, "write_atomically: path must be a regular file, but /tmp is a folder"),
    (lambda: write("/dev/null"), OSError, "write_atomically: path must be a regular file, but /dev/null is a device"),
    (lambda: read("/dev/null"), OSError, "open_file: path must be a regular file, but /dev/null is a device"),
    (lambda: checkpoint.write_atomically("x", "a"), ValueError,
     "write_atomically: mode must be one of 'wb', 'w', but got 'a'"),
    (lambda: in_folder(read_only), PermissionError, re.compile(
        rf"write_atomically: path must be a file that can be written, but {PATH}\.npz is read-only")),
    (lambda: checkpoint.remove_leftovers("/no/folder"), FileNotFoundError,
     "remove_leftovers: folder must be a folder that can be read, but /no/folder: No such file or directory"),
]  # fmt: skip


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: pattern(row[2])[:90])
def test_message(row):
    call, kind, text = row
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert re.fullmatch(pattern(text), str(caught.value), re.DOTALL)
