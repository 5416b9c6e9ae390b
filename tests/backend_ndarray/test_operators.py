"""The dtypes of NDArray's operators: torch's, as in `needle.ops`, and numbers that a dtype does not hold."""

import itertools
import operator

import numpy as np
import pytest
import torch

from needle import backend_ndarray as nd

DTYPES = ["float16", "float32", "float64", "uint8", "int32", "int64"]
ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]


@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
def test_floats_keep_their_dtype_beside_integers(function, device):
    for left, right in itertools.product(DTYPES, DTYPES):
        a, b = np.array([3, 1]).astype(left), np.array([1, 2]).astype(right)
        result = function(nd.NDArray(a, device), nd.NDArray(b, device))
        expected = function(torch.tensor(a), torch.tensor(b)).numpy()
        assert result.dtype == expected.dtype, (left, right)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
def test_numbers_do_not_widen(function, device):
    for dtype, number in itertools.product(DTYPES, [2, 2.5]):
        array = np.array([3, 1]).astype(dtype)
        for operands in ((array, number), (number, array)):
            ours = [nd.NDArray(x, device) if x is array else x for x in operands]
            theirs = [torch.tensor(x) if x is array else x for x in operands]
            assert function(*ours).dtype == function(*theirs).numpy().dtype, (dtype, number)


@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_functions_of_integers_are_float32(name, device):
    array = np.array([1, 80], "uint8")
    result = getattr(nd.NDArray(array, device), name)()
    assert result.dtype == "float32"
    np.testing.assert_allclose(result.numpy(), getattr(np, name)(array.astype("float32")), rtol=1e-6)


def test_numbers_that_a_dtype_does_not_hold_are_refused(device):
    array = nd.NDArray(np.array([1, 2], "uint8"), device)
    for use in (lambda: array + 300, lambda: 300 * array, lambda: array.maximum(-1)):
        with pytest.raises(ValueError, match=r"NDArray: a number must lie in \[0, 255\], the range of uint8, but got "):
            use()
    for write in (lambda: array.fill(300), lambda: array.fill(float("nan")), lambda: array.flat.fill(-1)):
        with pytest.raises(ValueError, match=r"NDArray: a value must lie in \[0, 255\], the range of uint8, but got "):
            write()
    assert array.numpy().tolist() == [1, 2]
    assert (array < 300).numpy().tolist() == [1, 1]


def test_functions_of_numpy_and_of_python(device):
    array, element = nd.NDArray(np.array([[1.5, -2.0]]), device), nd.NDArray(np.array([2.5]), device)
    assert np.sum(array).item() == -0.5
    assert np.max(array, axis=1).numpy().tolist() == [1.5]
    assert np.sum(array, axis=0, keepdims=True).shape == (1, 2)
    assert (int(element), f"{element:.2f}", f"{array}") == (2, "2.50", repr(array))


def test_arrays_are_written_as_their_dtype_holds_them(device):
    array = nd.NDArray(np.array([1, 2], "uint8"), device)
    array[0] = np.int64(7)
    assert array.numpy().tolist() == [7, 2]
    for value in (nd.NDArray([300], device), np.array([1.5])):
        with pytest.raises(TypeError, match=r"NDArray: a value must fit dtype uint8, but got (int|float)64"):
            array[0] = value
    half = nd.NDArray(np.zeros(2, "float16"), device)
    with pytest.raises(ValueError, match=r"NDArray: a value must lie in \[-65504.0, 65504.0\], the range of float16"):
        half[0] = 1e6
