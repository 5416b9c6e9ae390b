"""The course's module of arrays, `from needle import backend_ndarray as nd`: strides, views, operators, devices."""

from __future__ import annotations

import operator
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import backend_ndarray as nd

pytestmark = pytest.mark.usefixtures("on_device")


def normal(*shape, dtype="float32"):
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def check(actual, expected, rtol=0):
    """An NDArray of the values, the shape and the dtype of `expected`."""
    expected = np.asarray(expected)
    assert isinstance(actual, nd.NDArray)
    assert (actual.shape, actual.dtype, actual.device) == (expected.shape, expected.dtype, nd.default_device())
    assert_allclose(actual.numpy(), expected, rtol=rtol)


# ---- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [np.ones((2, 3), "float32"), normal(2, 3, dtype="float64"), [[1.0], [2.0]], 3, np.float32(2), np.array(1.5)],
    ids=lambda other: type(other).__name__,
)
def test_an_ndarray_from_anything_that_numpy_converts(other):
    check(nd.NDArray(other), other)
    check(nd.NDArray(nd.NDArray(other)), other)


def test_an_ndarray_is_a_compact_copy(device):
    array = normal(3, 2)
    x = nd.NDArray(array.T, device=device)
    y = nd.NDArray(x, device)
    array[:] = 0
    x.fill(1)
    assert_array_equal(y.numpy(), normal(3, 2).T)
    assert y.is_compact()
    assert y.device == device


def test_a_subclass_may_have_its_own_getitem():
    """As a homework does it to look at how indices are processed."""

    class Indices(nd.NDArray):
        def __getitem__(self, index):
            assert len(index) == len(self.shape)
            return tuple(self.process_slice(s, dim) for dim, s in enumerate(index))

    actual = Indices(np.ones((4, 5, 6)))[1:3, :, -2:]
    assert actual == (slice(1, 3, 1), slice(0, 5, 1), slice(4, 6, 1))


def test_array_is_float32_whatever_it_is_made_of(device):
    for a in (normal(2, 3, dtype="float64"), [1, 2], nd.NDArray([1.5, 2.5]), 1.5, np.arange(3)):
        values = a.numpy() if isinstance(a, nd.NDArray) else a
        check(nd.array(a), np.asarray(values, "float32"))
        check(nd.array(a, dtype="float64", device=device), np.asarray(values, "float64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty_and_full(dtype, device):
    for actual in (nd.empty((2, 3), dtype, device), device.empty((2, 3), dtype)):
        assert (actual.shape, actual.dtype, actual.device) == ((2, 3), dtype, device)
    for actual in (nd.full((2, 3), 1.5, dtype, device), device.full((2, 3), 1.5, dtype)):
        check(actual, np.full((2, 3), 1.5, dtype))
    check(device.zeros(2, 3, dtype=dtype), np.zeros((2, 3), dtype))
    check(device.ones(2, 3, dtype=dtype), np.ones((2, 3), dtype))


def test_new_arrays_are_float32(device):
    for actual in (nd.empty((2,)), nd.full((2,), 1), device.empty((2,)), device.full((2,), 1), device.rand(2),
                  device.randn(2), device.one_hot(3, np.array([1])), nd.NDArray.make((2,))):  # fmt: skip
        assert actual.dtype == "float32"


@pytest.mark.parametrize("name", ["rand", "randn"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_come_from_the_global_stream_of_numpy(name, dtype, device):
    np.random.seed(5)
    expected, following = getattr(np.random, name)(2, 3).astype(dtype), np.random.rand()
    np.random.seed(5)
    check(getattr(device, name)(2, 3, dtype=dtype), expected)
    assert np.random.rand() == following


@pytest.mark.parametrize("i", [np.array([2, 0, 1]), np.array([[1], [2]]), np.array(1)], ids=str)
def test_one_hot(i, device):
    check(device.one_hot(3, i), np.eye(3, dtype="float32")[i])
    check(device.one_hot(3, i, dtype="float64"), np.eye(3)[i])
    check(device.one_hot(n=3, i=i.astype("uint8")), np.eye(3, dtype="float32")[i])


def test_one_hot_makes_no_identity(device):
    tracemalloc.start()
    try:
        actual = device.one_hot(10_000, np.array([7, 9_999]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # an identity takes 400 million bytes, the result 80 thousand
    assert np.argwhere(actual.numpy()).tolist() == [[0, 7], [1, 9_999]]


def test_make():
    new = nd.NDArray.make((2, 3))
    assert (new.shape, new.strides, new._offset, new.dtype) == ((2, 3), (3, 1), 0, "float32")
    assert new.is_compact()
    assert new._handle.size == 6
    base = nd.array(np.arange(12).reshape(3, 4))
    view = nd.NDArray.make((2, 2), strides=(4, 2), device=base.device, handle=base._handle, offset=5)
    check(view, np.array([[5, 7], [9, 11]], "float32"))
    assert (view.strides, view._offset) == ((4, 2), 5)
    assert view._handle.ptr() == base._handle.ptr()
    check(nd.NDArray.make((2, 3), handle=base._handle, offset=6), np.arange(6, 12, dtype="float32").reshape(2, 3))
    view[0, 0] = -1
    assert float(base[1, 1]) == -1


# ---- views -----------------------------------------------------------------------------------------------------------

WHOLE = np.arange(24, dtype="float32").reshape(2, 3, 4)


VIEWS = {
    "itself": (lambda a: a, lambda a: a),
    "permute": (lambda a: a.permute((2, 0, 1)), lambda a: a.transpose(2, 0, 1)),
    "permute twice": (
        lambda a: a.permute((1, 2, 0)).permute((2, 1, 0)),
        lambda a: a.transpose(1, 2, 0).transpose(2, 1, 0),
    ),
    "reshape": (lambda a: a.reshape((6, 4)), lambda a: a.reshape(6, 4)),
    "reshape with ones": (lambda a: a.reshape((1, 2, 1, 12, 1)), lambda a: a.reshape(1, 2, 1, 12, 1)),
    "slices": (lambda a: a[0:1, 1:3, 0:4:2], lambda a: a[0:1, 1:3, 0:4:2]),
    "open slices": (lambda a: a[1:, :2, ::3], lambda a: a[1:, :2, ::3]),
    "negative bounds": (lambda a: a[-1:, :-1, -3:-1], lambda a: a[-1:, :-1, -3:-1]),
    "an integer": (lambda a: a[1, :, 2], lambda a: a[1:2, :, 2:3]),
    "integers": (lambda a: a[1, 2, 3], lambda a: a[1:2, 2:3, 3:4]),
    "slices of slices": (lambda a: a[:, 1:, ::2][1:, ::2, 1:], lambda a: a[:, 1:, ::2][1:, ::2, 1:]),
    "slices of a permutation": (
        lambda a: a.permute((2, 1, 0))[1:4:2, :, 1:],
        lambda a: a.transpose(2, 1, 0)[1:4:2, :, 1:],
    ),
    "broadcast": (lambda a: a[:, :, 1:2].broadcast_to((2, 3, 5)), lambda a: np.broadcast_to(a[:, :, 1:2], (2, 3, 5))),
    "broadcast of a permutation": (
        lambda a: a[1:, :, :].permute((1, 0, 2)).broadcast_to((3, 6, 4)),
        lambda a: np.broadcast_to(a[1:].transpose(1, 0, 2), (3, 6, 4)),
    ),
    "new leading axes": (lambda a: a.broadcast_to((5, 2, 3, 4)), lambda a: np.broadcast_to(a, (5, 2, 3, 4))),
    "broadcast and slices": (
        lambda a: a[:1, :, :].broadcast_to((4, 3, 4))[1:3, :, ::2].permute((0, 2, 1)),
        lambda a: np.broadcast_to(a[:1], (4, 3, 4))[1:3, :, ::2].transpose(0, 2, 1),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("view", "of_numpy"), VIEWS.values(), ids=VIEWS)
def test_views(view, of_numpy, dtype):
    """The strides of NumPy, in elements, and one memory."""
    array = WHOLE.astype(dtype)
    base = nd.NDArray(array)
    actual, expected = view(base), of_numpy(array)
    check(actual, expected)
    assert isinstance(actual.strides, tuple)
    assert actual.strides == tuple(step // array.itemsize for step in expected.strides)
    assert (actual.ndim, actual.size) == (expected.ndim, expected.size)
    assert actual._handle.ptr() == base._handle.ptr()
    assert actual._handle.size == 24
    assert actual._offset == (expected.ctypes.data - array.ctypes.data) // array.itemsize
    compact = actual.compact()
    assert compact.is_compact()
    check(compact, expected)
    assert compact.strides == tuple(int(np.prod(expected.shape[i + 1 :])) for i in range(expected.ndim))
    if view(base).is_compact():
        assert compact is actual
    else:
        assert compact._handle.ptr() != base._handle.ptr()


def test_ptr_is_the_address_of_the_buffer():
    base = nd.array(WHOLE)
    assert base._handle.ptr() == base.device.address(base.array)


def test_which_arrays_are_compact():
    base = nd.array(WHOLE)
    assert base.is_compact()
    assert base.reshape((4, 6)).is_compact()
    assert not base.permute((1, 0, 2)).is_compact()
    assert not base[:1].is_compact()  # row-major, but not alone in its memory
    assert not base[1:].is_compact()
    assert not base[:, :, ::2].is_compact()
    assert not base[:1].broadcast_to((2, 3, 4)).is_compact()
    assert base[1:].compact()._handle.size == 12


def test_as_strided():
    base = nd.array(np.arange(6))
    view = base.as_strided((3, 2, 2), (1, 2, 0))
    check(view, np.array([[[i, i], [i + 2, i + 2]] for i in range(3)], "float32"))
    assert view.strides == (1, 2, 0)
    assert view._handle.ptr() == base._handle.ptr()


def test_reshape_of_an_array_that_is_not_compact_may_copy():
    base = nd.array(WHOLE)
    check(base.permute((2, 0, 1)).reshape((8, 3)), WHOLE.transpose(2, 0, 1).reshape(8, 3))
    with pytest.raises(ValueError, match="reshape"):
        base.reshape((5, 5))


@pytest.mark.parametrize(
    "selection",
    [slice(None), slice(1, 3), slice(-2, None), slice(None, -1), slice(0, 4, 2), slice(None, None, 3), slice(-9, 9)],
    ids=str,
)
@pytest.mark.parametrize("dim", [0, 1])
def test_process_slice(selection, dim):
    base = nd.array(np.zeros((4, 5)))
    actual = base.process_slice(selection, dim)
    assert all(type(entry) is int for entry in (actual.start, actual.stop, actual.step))
    size = base.shape[dim]
    assert 0 <= actual.start <= size
    assert 0 <= actual.stop <= size
    assert list(range(actual.start, actual.stop, actual.step)) == list(range(size))[selection]


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_flat(shape):
    array = normal(*shape)
    base = nd.array(array)
    assert base.flat.shape == (base.size,)
    assert base.flat._handle.ptr() == base._handle.ptr()
    for j in range(base.size):
        base.flat[j] += 0.5
        assert float(base.flat[j] + 1) == pytest.approx(array.ravel()[j] + 1.5, rel=1e-6)
        base.flat[j] = base.flat[j]
    check(base, array + np.float32(0.5), rtol=1e-6)


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), slice(None), slice(None)),
        (slice(0, 1), slice(1, 3), slice(0, 4, 2)),
        (slice(1, None), slice(None, 2), slice(None, None, 3)),
        (1, slice(None), slice(None)),
        (1, 2, 3),
        (slice(0, 2), 1, slice(-2, None)),
    ],
    ids=str,
)
def test_setitem(index):
    array, base = WHOLE.copy(), nd.array(WHOLE)
    place = tuple(slice(i, i + 1) if isinstance(i, int) else i for i in index)
    address, values = base._handle.ptr(), -np.arange(WHOLE[place].size, dtype="float32")
    array[place] = values.reshape(WHOLE[place].shape)
    for value in (nd.array(array[place]), nd.array(values), nd.array(array[place].T).permute((2, 1, 0))):
        base[index] = 0
        check(base[index], np.zeros_like(array[place]))
        base[index] = value  # as many elements, whatever their shape
        check(base, array)
    base[index] = 1.5
    array[place] = 1.5
    check(base, array)
    assert base._handle.ptr() == address


def test_writes_into_views():
    base, array = nd.array(WHOLE), WHOLE.copy()
    base.permute((2, 0, 1))[1:3, 0, :] = 9
    array.transpose(2, 0, 1)[1:3, 0, :] = 9
    check(base, array)
    base[:, 1:2].fill(-1)
    array[:, 1:2] = -1
    check(base, array)
    base.fill(7)
    check(base, np.full_like(array, 7))


# ---- operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_arithmetic(function, dtype):
    a, b = np.abs(normal(2, 3, dtype=dtype)) + 0.5, normal(3, 2, dtype=dtype).T
    x, y = nd.NDArray(a), nd.NDArray(b)
    check(function(x, y), function(a, b))
    check(function(x, nd.NDArray(np.abs(b.T)).permute((1, 0))), function(a, np.abs(b)))
    for s in (2, 0.3, np.float32(0.3), np.float64(0.3), np.int64(2)):
        check(function(x, s), function(a, np.dtype(dtype).type(s)), rtol=1e-6)  # a number never promotes the array
        check(function(s, x), function(np.dtype(dtype).type(s), a), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_and_signs(dtype):
    a = np.abs(normal(2, 3, dtype=dtype)) + 0.5
    for s in (0, 2, 0.5, -1):
        check(nd.NDArray(a) ** s, a**s, rtol=1e-6)
    check(-nd.NDArray(a), -a)


@pytest.mark.parametrize(("a", "b"), [((2, 3), (3, 4)), ((1, 1), (1, 1)), ((9, 8), (8, 17)), ((5, 2, 3), (5, 3, 4))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_matmul(a, b, dtype):
    a, b = normal(*a, dtype=dtype), normal(*b, dtype=dtype) + 1
    product = nd.NDArray(a) @ nd.NDArray(b)
    assert product.dtype == dtype
    assert_allclose(product.numpy(), a @ b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", [operator.eq, operator.ne, operator.ge, operator.gt, operator.le, operator.lt])
def test_comparisons(function, dtype):
    a, b = np.array([[1, 2, 3], [0.1, 0.2, 0.3]], dtype), np.array([[1, 3, 2], [0.1, 0.1, 0.4]], dtype)
    check(function(nd.NDArray(a), nd.NDArray(b)), function(a, b).astype(dtype))
    for s in (2, 0.1, np.float32(0.1), np.float64(0.2)):  # a number is first rounded to the array's dtype
        check(function(nd.NDArray(a), s), function(a, np.dtype(dtype).type(s)).astype(dtype))


def test_maximum():
    a, b = normal(2, 3), normal(3, 2).T
    for actual, expected in (
        (nd.NDArray(a).maximum(nd.NDArray(b)), np.maximum(a, b)),
        (nd.NDArray(a).maximum(0.25), np.maximum(a, np.float32(0.25))),
        (nd.maximum(nd.NDArray(a), 0), np.maximum(a, 0)),
    ):
        check(actual, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["log", "exp", "tanh"])
def test_functions_of_elements(name, dtype):
    a = (np.abs(normal(3, 2, dtype=dtype)) + 0.5).T
    expected = getattr(np, name)(a)
    check(getattr(nd.NDArray(a), name)(), expected, rtol=1e-6)
    check(getattr(nd, name)(nd.NDArray(a.T).permute((1, 0))), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, (0,), (0, 2), (2, 1), (0, 1, 2)])
def test_reductions(axis, keepdims, dtype):
    a = normal(2, 3, 4, dtype=dtype)
    x = nd.NDArray(a)
    check(x.sum(axis=axis, keepdims=keepdims), a.sum(axis=axis, keepdims=keepdims), rtol=1e-4)
    check(x.max(axis=axis, keepdims=keepdims), a.max(axis=axis, keepdims=keepdims))
    check(nd.sum(x, axis, keepdims), a.sum(axis=axis, keepdims=keepdims), rtol=1e-4)
    if axis is None and not keepdims:
        check(x.sum(), a.sum(), rtol=1e-4)  # the default, of shape ()


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (2, 1), (0, 1, 2)])
def test_flip(axes):
    for actual in (nd.array(WHOLE).flip(axes), nd.flip(nd.array(WHOLE), axes)):
        check(actual, np.flip(WHOLE, axes))
        assert actual.is_compact()


@pytest.mark.parametrize("pairs", [((0, 0),) * 3, ((1, 2), (0, 0), (3, 0)), ((0, 1), (2, 2), (0, 0))])
def test_pad(pairs):
    check(nd.array(WHOLE).pad(pairs), np.pad(WHOLE, pairs))
    check(nd.array(WHOLE).permute((2, 1, 0)).pad(pairs), np.pad(WHOLE.T, pairs))


def test_functions_of_the_module():
    a = nd.array(WHOLE)
    check(nd.broadcast_to(a, (2, 2, 3, 4)), np.broadcast_to(WHOLE, (2, 2, 3, 4)))
    check(nd.reshape(a, (4, 6)), WHOLE.reshape(4, 6))


def test_idioms_of_the_homeworks():
    """A comparison times an array; an entry by integers; reductions over each axis."""
    array = WHOLE[0]
    a = nd.array(array)
    check((a > 5) * a, array * (array > 5))
    check(a == 10, (array == 10).astype("float32"))
    check(a[1, 0], array[1:2, 0:1])
    for axis in (0, 1):
        check(a.sum(axis=axis), array.sum(axis))
        check(a.max(axis=axis), array.max(axis))


# ---- as something else -----------------------------------------------------------------------------------------------


def test_conversions(device):
    a = nd.array(WHOLE)
    assert type(a.numpy()) is np.ndarray
    assert_array_equal(a.permute((2, 0, 1)).numpy(), WHOLE.transpose(2, 0, 1), strict=True)
    assert_array_equal(np.array(a), WHOLE, strict=True)
    assert_array_equal(np.asarray(a[1, :, ::2], dtype="float64"), WHOLE[1:2, :, ::2])
    assert [part.shape for part in np.array_split(nd.array(WHOLE[0]), 2)] == [(2, 4), (1, 4)]
    check(a.astype("float64"), WHOLE.astype("float64"))
    check(a.astype(np.uint8), WHOLE.astype("uint8"))
    assert a.to(device).device == device
    assert a.to(ndl.cpu()).device == ndl.cpu()
    assert_array_equal(a.to(ndl.cpu()).numpy(), WHOLE)
    assert "[[[7.]]]" in repr(a[0, 1, 3])
    assert str(device) in repr(a)


# ---- the product of tiled matrices, on the CPU alone -----------------------------------------------------------------


def tiled(array, t):
    rows, columns = array.shape
    return array.reshape(rows // t, t, columns // t, t).swapaxes(1, 2)


@pytest.mark.parametrize("tiles", [(1, 1, 1), (2, 3, 4), (4, 1, 2)])
def test_matmul_tiled_overwrites_out(tiles):
    device = nd.cpu()
    assert hasattr(device, "matmul_tiled")
    t = device.__tile_size__
    assert type(t) is int
    m, n, p = (count * t for count in tiles)
    a, b = normal(m, n), normal(n, p) + 1
    x, y = (nd.array(np.ascontiguousarray(tiled(array, t)), device=device) for array in (a, b))
    out = nd.array(np.full((m // t, p // t, t, t), np.nan), device=device)
    address = out._handle.ptr()
    device.matmul_tiled(x._handle, y._handle, out._handle, m, n, p)
    assert out._handle.ptr() == address
    assert_allclose(out.numpy(), tiled(a @ b, t), rtol=1e-5, atol=1e-4)
    assert_array_equal(x.numpy(), tiled(a, t))
