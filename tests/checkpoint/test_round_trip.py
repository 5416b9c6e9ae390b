"""States come back as they were, in files that NumPy and torch read, and files of NumPy and torch are read."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
import tempfile
from collections import OrderedDict, defaultdict, namedtuple
from enum import Enum, IntEnum
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import needle as ndl
from needle import nn
from needle.backend_ndarray import NDArray
from needle.checkpoint.npz import write_npz
from needle.checkpoint.safetensors import read_safetensors, write_safetensors
from needle.checkpoint.structure import flatten, nested
from needle.npz import read_npz
from tests.checkpoint.test_refusals import archive, npy
from tests.profiles import examples
from tests.standin.device import STANDIN

ROOT = Path(__file__).resolve().parents[2]
KINDS = [".npz", ".safetensors"]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64"]
DTYPES += ["float64", "complex64"]
ARRAY = np.arange(24, dtype="float32").reshape(2, 3, 4)
ARRAYS = {
    "of no axes": np.array(3.5),
    "scalar": np.float32(0.1),
    "double scalar": np.float64(0.1),
    "empty": np.zeros((2, 0, 3), "int16"),
    "by columns": np.asfortranarray(ARRAY),
    "permuted": ARRAY.transpose(1, 0, 2),
    "flipped": ARRAY[::-1, :, ::-2],
    "strided": ARRAY[..., ::2],
    "broadcast": np.broadcast_to(np.float32(2), (3, 4)),
    "big-endian": ARRAY.astype(">f4"),
    "big-endian by columns": np.asfortranarray(ARRAY.astype(">f4")),
    "big-endian 64": np.arange(5, dtype=">i8")[::-1],
    "big-endian, of no axes": np.array(3, ">i4"),
    "big-endian and empty": np.zeros((3, 0), ">f8"),
    "read-only": np.frombuffer(bytes(range(8)), "uint16"),
    "unaligned": np.frombuffer(bytes(range(13)), "uint8")[1:].view("uint32"),
    "NaN with a payload": np.array([0x7FC00123, 0xFFC00001, 0x80000000], "uint32").view("float32"),
    "long": np.arange(300_000, dtype="float32")[::-1],
    "subclass": ARRAY.view(type("Own", (np.ndarray,), {})),
}
NAMES = [
    "", "a", "a.npy", "a.npy.npy", ".npy", "file", "args", "allow_pickle", "__metadata__", "needle", "needle.json",
    "a.b", "a/b", "/a", "../a", "..", ".", "a/../b", "a\\..\\b", "a..b", "a\\b", "C:\\a", "a\0b", "\0", "a\nb", "ü",
    "😀",
    " ", "a/", "array.0", "array.1", "$array", "$", "0", "x" * 70_000, "ü" * 40_000, "CON", "a:b", "'", '"', "{", "*?",
    "-rf",
]  # fmt: skip
Point = namedtuple("Point", "x y")
NESTED = {
    "model": {"0.weight": ARRAY, "0": {"weight": ARRAY[0]}, "0.weight.": ARRAY[1]},
    "optimizer": {
        "state": {0: {"step": 3, "exp_avg": ARRAY[..., 0]}, -1: {}},
        "param_groups": [{"lr": 1e-3, "params": [0]}],
    },
    "text": ["", "ü", "\0", "\\", '"', "\u2028", "😀", "$array"],
    "numbers": [0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 2**4000, -(10**5000)],
    "others": [True, False, None],
    "floats": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.nan, math.inf, -math.inf, 1e22, 1 / 3],
    "containers": [(), [], {}, (1, (2.0, [ARRAY[0, 0]])), Point(1, 2), OrderedDict(b=1, a=2), defaultdict(list, c=[3])],
    "tags": {"$array": "model", "$": 1, "plain": {"$float": "nan"}},
    2**70: {"$dict": [[1, 2]]},
    "1": ARRAY[0], 1: ARRAY[1],
}  # fmt: skip


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    return tmp_path / f"state{request.param}"


def again(path, state):
    ndl.save(path, state)
    return ndl.load(path)


def content(kind, state):
    """The bytes of a file."""
    if kind == ".npz":
        file = io.BytesIO()
        write_npz(file, *flatten("save", state))
        return file.getvalue()
    with tempfile.NamedTemporaryFile() as file:
        write_safetensors(file.name, *flatten("save", state))
        return Path(file.name).read_bytes()


def read(kind, content):
    """What is read from a file of these bytes."""
    if kind == ".npz":
        return nested(*read_npz(io.BytesIO(content)))
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return nested(*read_safetensors(file))


def as_read(kind, state):
    """The state that is read: of a dict of arrays in a .safetensors file, names come back sorted."""
    is_flat = flatten("save", state)[1] is None
    return dict(sorted(state.items())) if is_flat and kind == ".safetensors" else state


def assert_same(ours, expected):
    """The same values of the same types; tuples are lists, and arrays those of NumPy in native byte order."""
    if isinstance(expected, dict):
        assert type(ours) is dict
        assert [*ours] == [*expected]
        assert [*map(type, ours)] == [*map(type, expected)]
        for key in ours:
            assert_same(ours[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(ours) is list
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert type(ours) is np.ndarray
        assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype.newbyteorder("="))
        assert ours.flags.writeable
        assert ours.flags.aligned
        assert ours.tobytes() == expected.astype(ours.dtype).tobytes()
    elif isinstance(expected, float):
        assert type(ours) is float
        assert repr(ours) == repr(expected)
    else:
        assert (type(ours), ours) == (type(expected), expected)


# ---- what is read by others ------------------------------------------------------------------------------------------


def read_by_others(path):
    """The arrays of a file by name, as NumPy or safetensors for torch gives them."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "needle.json"}
    return {name: tensor.numpy() for name, tensor in safetensors.torch.load_file(path).items()}


def test_a_dict_of_arrays(path):
    state = {f"layers.{name}.weight": np.arange(6).reshape(2, 3).astype(name) for name in DTYPES}
    loaded = again(path, state)
    assert [*loaded] == (sorted(state) if path.suffix == ".safetensors" else [*state])
    assert_same(loaded, as_read(path.suffix, state))
    others = read_by_others(path)
    assert others.keys() == state.keys()
    assert_same({name: others[name] for name in state}, state)
    assert b"needle" not in path.read_bytes()


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(path, name):
    state = {"a": ARRAYS[name]}
    assert_same(again(path, state), as_read(path.suffix, state))
    assert_same({"a": np.array(read_by_others(path)["a"])}, state)


def test_the_order_in_memory_is_kept_in_npz(tmp_path):
    loaded = again(tmp_path / "state.npz", {"by columns": np.asfortranarray(ARRAY), "by rows": ARRAY})
    assert loaded["by columns"].flags.f_contiguous
    assert loaded["by rows"].flags.c_contiguous


def test_complex128_in_npz(tmp_path):
    state = {"a": np.array([1 + 2j, complex(math.nan, -0.0)])}
    assert_same(again(tmp_path / "state.npz", state), state)


def test_a_nested_state(path):
    assert_same(again(path, NESTED), NESTED)
    names = {"model.0.weight", "array.0", "model.0.weight.", "optimizer.state.0.exp_avg", "containers.3.1.1.0", "1"}
    assert read_by_others(path).keys() == {*names, "array.1"}
    assert_same(read_by_others(path)["optimizer.state.0.exp_avg"], ARRAY[..., 0])


def test_metadata_have_one_key(tmp_path):
    """With more keys, the package shuffles them at each save."""
    ndl.save(tmp_path / "state.safetensors", NESTED)
    with safetensors.safe_open(tmp_path / "state.safetensors", "np") as file:
        assert [*file.metadata()] == ["needle"]


@pytest.mark.parametrize("state", [{}, {"a": {}}, {"a": 1}, {1: ARRAY}, {"": {"": ARRAY}}, {"a": [ARRAY]}], ids=str)
def test_small_states(path, state):
    assert_same(again(path, state), as_read(path.suffix, state))
    assert len(read_by_others(path)) == ("float32" in repr(state))


def test_what_is_loaded_does_not_change_with_its_file(path):
    ndl.save(path, {"a": ARRAY})
    loaded = ndl.load(path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert_same(loaded, {"a": ARRAY})


def test_enumerations_come_back_as_their_values(path):
    rule = Enum("rule", {"ADAM": "adam"}, type=str)
    number = IntEnum("number", "ONE")
    state = {"rule": rule.ADAM, rule.ADAM: ARRAY, "inner": {number.ONE: [ARRAY, number.ONE]}}
    assert_same(again(path, state), {"rule": "adam", "adam": ARRAY, "inner": {1: [ARRAY, 1]}})
    assert sorted(read_by_others(path)) == ["adam", "inner.1.0"]


def test_a_state_is_not_changed(path):
    state = {"a": ARRAY.copy(), "b": {"c": [1, ARRAY]}}
    ndl.save(path, state)
    assert_same({"a": state["a"], "b": state["b"]}, {"a": ARRAY, "b": {"c": [1, ARRAY]}})
    loaded = ndl.load(path)
    loaded["a"][:] = 0
    assert_same(ndl.load(path), state)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names(path):
    """All together, alone and as keys of dicts: each comes back, and what has its own name has its own value."""
    flat = {name: np.array([i]) for i, name in enumerate(NAMES)}
    for state in (flat, {"deep": flat, **flat}, {name: {"a": {name: array}} for name, array in flat.items()}):
        assert_same(again(path, state), as_read(path.suffix, state))
    for name, array in flat.items():
        assert_same(again(path, {name: array}), {name: array})
        ((other, read),) = read_by_others(path).items()
        assert_same(np.array(read), array)
        assert other in (name, "array.0")
        assert ".." not in other.replace("\\", "/").split("/")


@pytest.mark.parametrize("name", ["", "a", "file", "args", "allow_pickle", "a.b", "a/b", "ü", "😀", " ", "a\n", "$"])
def test_names_that_are_kept(path, name):
    ndl.save(path, {name: ARRAY})
    assert [*read_by_others(path)] == [name]


def test_names_that_are_the_same_in_the_file(path):
    state = {"a.b": ARRAY[0], "a": {"b": ARRAY[1]}, "array.0": ARRAY, "1": {1: ARRAY, "1": ARRAY[1]}}
    assert_same(again(path, state), as_read(path.suffix, state))
    assert sorted(read_by_others(path)) == ["1.1", "a.b", "array.0", "array.1", "array.2"]


short = st.sampled_from([name for name in NAMES if len(name) < 20])
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | short
keys = st.text(max_size=2) | short | st.integers()
numbers = arrays.arrays(st.sampled_from([">f4", *DTYPES[:-1]]), arrays.array_shapes(min_dims=0, min_side=0, max_side=3))
states = st.recursive(plain | numbers, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12)


@pytest.mark.parametrize("kind", KINDS)
@examples(40)
@given(st.dictionaries(keys, states, max_size=5))
def test_any_state(kind, state):
    saved = content(kind, state)
    loaded = read(kind, saved)
    assert_same(loaded, as_read(kind, state))
    assert content(kind, loaded) == saved


# ---- the same bytes --------------------------------------------------------------------------------------------------


def test_the_same_state_makes_the_same_bytes(tmp_path, monkeypatch):
    """At any time, and in any process."""
    code = (
        "import numpy as np, needle as ndl\n"
        "state = {'a': np.arange(5.0), 'b': {'c': [1, np.arange(3)], 'd': {2: 'ü'}}}\n"
        "for kind in ('npz', 'safetensors'):\n"
        "    ndl.save(f'{folder}/state.{kind}', state)"
    )
    command = [sys.executable, "-c", f"folder = {str(tmp_path)!r}\n{code}"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"PYTHONHASHSEED": "5"})
    first = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    assert len(first) == 2
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *when: (2033, 5, 18, 5, 33, 20, 2, 138, 0))
    exec(code, {"folder": tmp_path})
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == first


# ---- needle's tensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [ndl.cpu(), STANDIN], ids=str)
def test_tensors(path, device):
    x = ndl.Tensor(ARRAY, device=device)
    state = {
        "leaf": ndl.Tensor(ARRAY, device=device, requires_grad=True),
        "result": (x * 2).transpose((0, 2)),
        "parameter": nn.Parameter(x),
        "raw": device.asarray(ARRAY),
        "array": NDArray(ARRAY, device=device),
        "nested": [x[0], {"grad": None}],
    }
    expected = {"result": (ARRAY * 2).transpose(2, 1, 0), "nested": [ARRAY[0], {"grad": None}]}
    assert_same(again(path, state), dict.fromkeys(state, ARRAY) | expected)


def test_a_model(path):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    other = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    x = ndl.init.randn(3, 2, 4, 4)
    model(x)
    other.load_state_dict(again(path, model.state_dict()))
    assert model.eval()(x).numpy().tobytes() == other.eval()(x).numpy().tobytes()
    assert sorted(read_by_others(path)) == sorted(model.state_dict())


# ---- files of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_files_of_numpy(tmp_path, write):
    state = {name.replace(" ", "_"): array for name, array in ARRAYS.items()} | {"args": ARRAY, "a/b": ARRAY}
    write(tmp_path / "state.npz", **state)
    assert_same(ndl.load(tmp_path / "state.npz"), state)


def test_zeros_that_are_compressed_a_thousandfold(tmp_path):
    np.savez_compressed(tmp_path / "state.npz", a=np.zeros(3_000_000), b=np.zeros(0), c=np.ones(1))
    assert (tmp_path / "state.npz").stat().st_size < 26_000
    assert ndl.load(tmp_path / "state.npz")["a"].tobytes() == bytes(24_000_000)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_versions_of_npy(tmp_path, version):
    file = io.BytesIO()
    np.lib.format.write_array(file, ARRAY, version=version)
    (tmp_path / "state.npz").write_bytes(archive([("a.npy", file.getvalue())]))
    assert_same(ndl.load(tmp_path / "state.npz"), {"a": ARRAY})


def test_npy_of_other_writers(tmp_path):
    """Other orders, quotes and spaces; a native mark in place of a byte order."""
    header = '{ "shape":(3,) ,"fortran_order":False,\n"descr":"=i2"}'
    (tmp_path / "state.npz").write_bytes(archive([("a.npy", npy(header, np.arange(3, dtype="=i2").tobytes()))]))
    assert_same(ndl.load(tmp_path / "state.npz"), {"a": np.arange(3, dtype="i2")})


def test_files_of_safetensors(tmp_path):
    path = tmp_path / "state.safetensors"
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES}
    others = {"none": torch.zeros(0, 2), "one": torch.tensor(1.5)}
    safetensors.torch.save_file(tensors | others, path, {"format": "pt", "a": "b"})
    loaded = ndl.load(path)
    for name, tensor in tensors.items():
        assert_same(loaded[name], tensor.numpy())
    assert loaded["none"].shape == (0, 2)
    assert loaded["one"].shape == ()


def test_bfloat16_becomes_float32(tmp_path):
    """All 65,536 numbers, NaN's payloads and all."""
    path = tmp_path / "state.safetensors"
    values = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16).reshape(256, 256)
    others = {"b": torch.ones(3, dtype=torch.float64), "c": torch.zeros(5, dtype=torch.int8)}  # before and behind it
    safetensors.torch.save_file({"a": values, "d": values[3, 4:4].clone(), "e": values[0, 1].clone(), **others}, path)
    state = ndl.load(path)
    assert_same({name: state[name] for name in others}, {name: tensor.numpy() for name, tensor in others.items()})
    assert_same(state["d"], np.zeros(0, "float32"))
    assert_same(state["e"].view("uint32"), np.array(2**16, "uint32"))
    loaded = state["a"]
    assert (loaded.dtype, loaded.shape) == (np.float32, (256, 256))
    assert_same(loaded.view("uint32") >> 16, np.arange(2**16, dtype="uint32").reshape(256, 256))
    number = ~np.isnan(loaded)
    assert (loaded[number] == values.float().numpy()[number]).all()


def test_large_members_have_64_bit_sizes(tmp_path, monkeypatch):
    """Above 2 GiB. Here the limit is lower."""
    monkeypatch.setattr("zipfile.ZIP64_LIMIT", 1000)
    state = {"a": np.arange(1000), "b": np.arange(3)}
    assert_same(again(tmp_path / "state.npz", state), state)
    assert_same(dict(np.load(tmp_path / "state.npz")), state)
