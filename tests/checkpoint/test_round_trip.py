"""States come back as they were, in files that NumPy and torch read, and files of NumPy and torch are read."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

import needle as ndl

KINDS = [".npz", ".safetensors"]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64"]
DTYPES += ["float64", "complex64"]


@pytest.fixture(params=KINDS)
def path(request, tmp_path):
    return tmp_path / f"state{request.param}"


def again(path, state):
    ndl.save(path, state)
    return ndl.load(path)


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
        assert ours.tobytes() == expected.astype(ours.dtype).tobytes()
    elif isinstance(expected, float):
        assert type(ours) is float
        assert repr(ours) == repr(expected)
    else:
        assert (type(ours), ours) == (type(expected), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dict_of_arrays_is_read_by_others(tmp_path, kind):
    path = tmp_path / f"state{kind}"
    state = {f"layers.{name}.weight": np.arange(6).reshape(2, 3).astype(name) for name in DTYPES}
    ndl.save(path, state)
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as file:
            assert file.files == [*state]
            assert_same({name: file[name] for name in file}, state)
    else:
        tensors = safetensors.torch.load_file(path)
        assert_same({name: tensors[name].numpy() for name in state}, state)
        assert tensors.keys() == state.keys()
    assert_same(ndl.load(path), state)
