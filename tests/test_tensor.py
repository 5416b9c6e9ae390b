"""Tensors as values: how they are made, read, mixed with NumPy's arrays, copied and pickled."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

import needle as ndl
from needle import Tensor
from needle.version_counter import VersionCounter

pytestmark = pytest.mark.usefixtures("on_device")


def same(tensor, expected):
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-14)


@pytest.fixture
def x():
    return Tensor([[1.0, 2.0], [3.0, 4.0]])


# ---- making a tensor -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.0, 2.0], "float64"),
        (1.5, "float64"),
        ([[1.0], [2]], "float64"),
        ([1, 2], "int64"),
        (3, "int64"),
        ([True, False], "bool"),
        (True, "bool"),
        (np.float32(2), "float32"),
        (np.int8(2), "int8"),
        (np.zeros(2, "float16"), "float16"),
        (np.zeros(2, "float32"), "float32"),
        (np.zeros(2, "uint8"), "uint8"),
        (np.array([1, 2.5], dtype=object), "float64"),
        (np.array([1, 2], dtype=object), "float64"),
        ([], "float64"),
        (range(3), "int64"),
        (ndl.NDArray(np.zeros(2, "float32")), "float32"),
        (Tensor(np.zeros(2, "float32"), requires_grad=False), "float32"),
        ([Tensor(1.0, requires_grad=False), 2], "float64"),
    ],
    ids=repr,
)
def test_a_tensor_keeps_the_dtype_of_its_values(values, dtype):
    x = Tensor(values)
    assert x.dtype == dtype
    host = values.numpy() if isinstance(values, (Tensor, ndl.NDArray)) else np.asarray(values, dtype=dtype)
    assert x.shape == host.shape
    assert x.numpy().tolist() == host.tolist()
    assert x.requires_grad
    assert x.is_leaf()


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
@pytest.mark.parametrize("values", [[1, 2], np.array([1.0, 2.0]), np.array([1, 2], dtype=object)], ids=repr)
def test_dtype_names_another(values, dtype):
    x = Tensor(values, dtype=dtype)
    assert x.dtype == "float32"
    same(x, [1, 2])


def test_a_tensor_copies_its_values():
    array = np.zeros(2)
    x = Tensor(array)
    array[:] = 5
    same(x, [0, 0])
    for source in (x, x.cached_data):
        y = Tensor(source)
        x.cached_data.fill(3)
        same(y, [0, 0])
        x.cached_data.fill(0)


def test_a_tensor_of_a_tensor_is_a_leaf():
    x = Tensor([1.0]) * 2
    y = Tensor(x)
    assert y.is_leaf()
    assert y.requires_grad
    assert not Tensor(x, requires_grad=False).requires_grad


def test_data_are_row_major():
    array = np.arange(6.0).reshape(2, 3).T
    assert Tensor(array).cached_data.strides == (2, 1)
    assert Tensor(Tensor(array).transpose()).cached_data.strides == (3, 1)
    assert Tensor(array[::-1]).cached_data.strides == (2, 1)


def test_the_device_is_the_default_or_the_named_one(device):
    assert Tensor([1.0]).device == device
    assert Tensor([1.0], device=ndl.cpu()).device == ndl.cpu()
    x = Tensor(Tensor([1.0], device=ndl.cpu()))
    assert x.device == ndl.cpu()
    assert Tensor(x, device=device).device == device
    assert (Tensor([1.0], device=device) * 2).device == device


@pytest.mark.parametrize(
    ("values", "dtype", "shown"),
    [
        ("1.5", None, "<U3"),
        ("1.5", "float32", "<U3"),
        (b"1", "float32", r"\|S1"),
        (["a", 1], None, "<U"),
        (np.array(["1", 2], dtype=object), None, "object"),
        (None, None, "object"),
        (None, "float32", "object"),
        ([None, 1.0], None, "object"),
        ({1}, None, "object"),
        (1j, None, "complex128"),
        ([1j], "float32", "complex128"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "int64", r"datetime64\[D\]"),
    ],
    ids=repr,
)
def test_only_real_numbers_make_a_tensor(values, dtype, shown):
    with pytest.raises(TypeError, match=f"^Tensor: elements must be real numbers or bools, but got dtype {shown}"):
        Tensor(values, dtype=dtype)


@pytest.mark.parametrize("dtype", ["complex64", str, "no such dtype", object])
def test_only_real_dtypes_make_a_tensor(dtype):
    for make in (lambda: Tensor([1.0], dtype=dtype), lambda: ndl.ones(2, dtype=dtype)):
        with pytest.raises(TypeError, match="dtype must be one of real numbers or bools, but got"):
            make()


def test_numbers_that_a_dtype_does_not_hold_make_no_tensor():
    for value, dtype in ([300], "uint8"), (-1, "uint8"), ([2.0**63], "int64"), ([float("nan")], "int8"):
        with pytest.raises(ValueError, match=f"Tensor: elements must lie in .*, the range of {dtype}, but got"):
            Tensor(value, dtype=dtype)
    assert Tensor(np.array([300]), dtype="uint8").item() == 44  # arrays are cast


def test_ragged_lists_make_no_tensor():
    with pytest.raises(ValueError, match=r"^Tensor: elements must form an array, but NumPy says: .*inhomogeneous"):
        Tensor([[1], [1, 2]])


def test_make_const_shares_memory():
    array = ndl.default_device().xp.zeros(2, "float32")
    for data in (array, ndl.NDArray.wrap(array)):
        x = Tensor.make_const(data)
        assert not x.requires_grad
        x.cached_data.fill(3)
        assert Tensor.make_const(array, requires_grad=True).numpy().tolist() == [3, 3]
        x.cached_data.fill(0)


# ---- reading a tensor ------------------------------------------------------------------------------------------------


def test_numpy_is_a_row_major_copy(x):
    for y in (x, x.transpose()):
        array = y.numpy()
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous
        array[:] = 0
        assert (y.numpy() != 0).all()
    same(x.transpose(), [[1, 3], [2, 4]])


def test_properties(x):
    assert (x.shape, x.ndim, x.size, x.dtype) == ((2, 2), 2, 4, "float64")
    assert isinstance(x.cached_data, ndl.NDArray)
    assert Tensor(1.0).shape == ()
    assert (x * x).sum().shape == ()
    assert x.sum().cached_data.shape == ()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_element_is_a_number(shape):
    x = Tensor(np.full(shape, 2.5))
    assert x.item() == 2.5
    assert type(x.item()) is float
    assert float(x) == 2.5
    assert int(x) == 2
    assert bool(x)
    assert not Tensor(np.zeros(shape))
    assert type(Tensor(np.ones(shape, "int32")).item()) is int


@pytest.mark.parametrize("convert", [Tensor.item, float, int, bool])
@pytest.mark.parametrize("shape", [(2,), (0,), (2, 1)])
def test_tensors_of_other_sizes_do_not_convert_to_a_number(convert, shape):
    message = f"item: the tensor must have one element, but got shape {shape}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convert(Tensor(np.zeros(shape)))


def test_len_and_iteration(x):
    assert len(x) == 2
    assert [row.numpy().tolist() for row in x] == [[1, 2], [3, 4]]
    first, second = x
    (first * second).sum().backward()
    same(x.grad, [[3, 4], [1, 2]])
    for use in (len, iter):
        with pytest.raises(TypeError, match=r"^len: the tensor must have at least one dimension, but got shape \(\)$"):
            use(Tensor(1.0))


def test_repr(x):
    assert repr(x) == "Tensor([[1. 2.]\n        [3. 4.]], requires_grad=True)"
    assert repr(x.detach()) == "Tensor([[1. 2.]\n        [3. 4.]])"
    assert str(Tensor(1, requires_grad=False)) == "Tensor(1)"


# ---- tensors among NumPy's arrays ------------------------------------------------------------------------------------


def test_a_tensor_that_requires_grad_does_not_become_an_array():
    x = Tensor([1.0, 2.0], device=ndl.cpu())
    message = r"^Tensor: a tensor that requires grad is not an array; call \.detach\(\) or \.numpy\(\) first$"
    for use in (np.array, np.asarray, lambda x: np.concatenate([x, x])):
        with pytest.raises(TypeError, match=message):
            use(x)
    detached = x.detach()
    assert np.asarray(detached).tolist() == [1, 2]
    assert np.array(detached, dtype="float32").dtype == "float32"
    copied = np.array(detached)
    copied[:] = 0
    same(x, [1, 2])
    np.testing.assert_allclose(detached, [1, 2])


@pytest.mark.parametrize("use", [np.exp, np.negative, lambda x: np.add(x, 1.0), lambda x: np.add(np.ones(2), x)])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_ufuncs_refuse_tensors(use, requires_grad):
    with pytest.raises(TypeError, match="does not support ufuncs"):
        use(Tensor([1.0, 2.0], requires_grad=requires_grad))


LEFT = [np.array([3.0, 4.0]), np.array(2.0), np.float64(2), np.float32(2), np.int64(2), 2, 2.5, [3.0, 4.0]]


@pytest.mark.parametrize("left", LEFT, ids=repr)
@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "**"])
def test_arrays_and_numbers_on_the_left_make_tensors(left, symbol):
    x = Tensor([1.0, 3.0])
    y = eval(f"left {symbol} x")
    assert isinstance(y, Tensor)
    host = x.numpy()
    same(y, eval(f"np.asarray(left) {symbol} host", {"left": left, "host": host, "np": np}))
    y.backward()
    assert x.grad.shape == (2,)


def test_an_array_on_the_left_of_a_matrix_product():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    array = np.array([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    y = array @ x
    assert isinstance(y, Tensor)
    same(y, array @ x.numpy())
    y.backward()
    same(x.grad, array.T @ np.ones((3, 2)))


def test_numbers_do_not_promote():
    x = Tensor([1.0], dtype="float32")
    for y in (x * 2.5, 2.5 * x, x + 1, 1 - x, x / 3, 3 / x, x**2, np.float64(2) * x, x - np.float64(1), x**2.5, 2.5**x):
        assert y.dtype == "float32"


# ---- copies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Tensor, ndl.nn.Parameter])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_leaf_can_be_copied_and_pickled(kind, duplicate, requires_grad):
    x = kind([[1.0, 2.0]], dtype="float32", requires_grad=requires_grad)
    y = duplicate(x)
    assert type(y) is kind
    assert (y.dtype, y.device, y.requires_grad, y.is_leaf(), y.grad) == (x.dtype, x.device, requires_grad, True, None)
    y.cached_data.fill(0)
    same(x, [[1, 2]])
    same(y, [[0, 0]])


def test_a_copy_leaves_the_graph_behind():
    x = Tensor([1.0])
    y = x
    for _ in range(5000):  # deeper than Python recurses
        y = y * x
    y.backward()
    for z in (x, y):
        for duplicate in (copy.deepcopy(z), pickle.loads(pickle.dumps(z))):
            assert duplicate.is_leaf()
            same(duplicate, [1])


def test_a_pickled_tensor_does_not_remember_the_writes_of_its_process(monkeypatch):
    x = Tensor([1.0])
    for _ in range(3):
        x.cached_data.fill(2)
    pickled = pickle.dumps(x)
    monkeypatch.setattr(VersionCounter, "clock", 0)  # as in a fresh process
    x = pickle.loads(pickled)
    y = x * x
    Tensor([1.0]).cached_data.fill(2)
    y.backward()
    same(x.grad, [4])


def test_results_of_no_axes_are_arrays():
    """Where NumPy returns a scalar, which is not an array: it cannot be written to."""
    x = Tensor(2.0, device=ndl.cpu())
    for y in (-x, x + x, x.sum(), ndl.exp(x), ndl.where(x > 1, x, x)):
        assert type(y.array) is np.ndarray
        assert y.shape == ()


def test_a_leaf_of_a_numpy_scalar_is_an_array_of_no_axes():  # on the host, whatever the default device
    x = Tensor.make_const(np.float32(3))
    assert isinstance(x.array, np.ndarray)
    assert (x.shape, x.dtype) == ((), "float32")
    assert (x + Tensor([1.0, 2.0], device=ndl.cpu(), dtype="float32")).numpy().tolist() == [4, 5]


@pytest.mark.parametrize("shared", [lambda x: x.detach(), lambda x: x.cached_data], ids=["detached", "cached_data"])
def test_seen_as_a_numpy_array_it_is_read_only(shared):
    x = Tensor([1.0, 2.0], device=ndl.cpu())
    y = (x * x).sum()
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(shared(x))[0] = 9
    np.array(shared(x))[0] = 9  # a copy is the caller's own
    y.backward()
    same(x.grad, [2, 4])


def test_floats_of_another_package_are_refused():  # also the one that NumPy takes for a kind of float
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, ml_dtypes.int4:
        with pytest.raises(TypeError, match="Tensor: elements must be real numbers or bools, but got dtype"):
            Tensor(np.ones(2, dtype))
        with pytest.raises(TypeError, match="astype: dtype must be one of real numbers or bools"):
            Tensor([1.0]).astype(dtype)
