"""NDArray: an array with its device, its strides in elements, its views, and the writes that go through them."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle.backend_ndarray import NDArray

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.fixture
def host():
    return np.arange(24.0).reshape(2, 3, 4)


class Listener:
    """An owner that counts the writes reported to it."""

    def __init__(self):
        self.writes = 0

    def bump_version(self):
        self.writes += 1


# ---- making ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "dtype"),
    [([1.0, 2.0], "float64"), ([[1, 2]], "int64"), (np.ones((2, 1), "float32"), "float32"), (2.5, "float64")],
)
def test_an_array_holds_a_copy(other, dtype, device):
    array = NDArray(other)
    assert array.dtype == dtype
    assert array.shape == np.shape(other)
    assert array.device == device
    assert array.numpy().tolist() == np.asarray(other).tolist()
    again = NDArray(array)
    array.fill(9)
    assert again.numpy().tolist() == np.asarray(other).tolist()


def test_a_named_device_overrides_the_device_of_the_data(device):
    assert NDArray([1.0], ndl.cpu()).device == ndl.cpu()
    assert NDArray(NDArray([1.0], ndl.cpu())).device == ndl.cpu()
    assert NDArray(NDArray([1.0], ndl.cpu()), device).device == device


def test_a_copy_is_row_major(host):
    array = NDArray(host.transpose(2, 0, 1))
    assert array.strides == (6, 3, 1)
    np.testing.assert_array_equal(array.numpy(), host.transpose(2, 0, 1))


def test_wrap_shares_memory():
    raw = ndl.default_device().xp.zeros(3)
    array = NDArray.wrap(raw)
    assert array.array is raw
    array.fill(2)
    assert NDArray.wrap(raw).numpy().tolist() == [2, 2, 2]


def test_a_subclass_makes_its_own_instances():
    class Special(NDArray):
        pass

    array = Special(np.ones((2, 2)))
    assert type(array) is Special
    assert array.shape == (2, 2)


# ---- properties ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[1:],
        lambda a: a[:, ::2],
        lambda a: a[0:1, 1:3, ::-1],
        lambda a: a[0:1],
        lambda a: a[0:1, 2:3],
        lambda a: a[:0],
    ],
)
def test_strides_count_elements(host, dtype, view):
    host = host.astype(dtype)
    array, expected = view(NDArray(host)), view(host)
    assert array.strides == tuple(step // expected.itemsize for step in expected.strides)
    assert (array.shape, array.ndim, array.size, array.dtype) == (expected.shape, expected.ndim, expected.size, dtype)
    np.testing.assert_array_equal(array.numpy(), expected)


def test_strides_of_repeated_axes_are_zero():
    x = ndl.Tensor(np.ones((3, 1)), requires_grad=False)
    assert ndl.broadcast_to(x, (2, 3, 4)).cached_data.strides == (0, 1, 0)
    assert ndl.transpose(x).cached_data.strides == (1, 1)


def test_types_of_properties(host):
    array = NDArray(host)
    assert isinstance(array.shape, tuple)
    assert isinstance(array.strides, tuple)
    assert type(array.size) is int
    assert type(array.ndim) is int
    assert len(array) == 2


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_numpy_is_a_row_major_copy(host):
    array = NDArray(host)
    for view, expected in ((array, host), (array[:, ::2, 1:2], host[:, ::2, 1:2])):
        copied = view.numpy()
        assert type(copied) is np.ndarray
        assert copied.flags.c_contiguous
        np.testing.assert_array_equal(copied, expected)
        copied[...] = -1
        np.testing.assert_array_equal(view.numpy(), expected)


def test_array_of_numpy(host):
    array = NDArray(host)
    assert np.array(array).tolist() == host.tolist()
    assert np.asarray(array, "float32").dtype == "float32"
    np.testing.assert_allclose(array, host)
    np.testing.assert_allclose(array[1], host[1:2])
    parts = np.array_split(NDArray(np.arange(5)), 2)
    assert [part.tolist() for part in parts] == [[0, 1, 2], [3, 4]]
    copied = np.array(array)
    copied[...] = 0
    np.testing.assert_array_equal(array.numpy(), host)


def test_array_of_numpy_shares_memory_or_copies_as_asked():
    array = NDArray([1.0, 2.0], ndl.cpu())
    assert np.shares_memory(np.asarray(array), array.array)
    assert not np.shares_memory(np.array(array, copy=True), array.array)
    with pytest.raises(ValueError, match="copy"):
        np.array(array, dtype="float32", copy=False)


def test_one_element_is_a_float():
    assert float(NDArray(2.5)) == float(NDArray([[2.5]])) == float(NDArray([1, 2.5])[1]) == 2.5
    assert NDArray([[3]]).item() == 3
    assert NDArray([[1.0]])
    assert not NDArray(0.0)


def test_repr(device):
    assert repr(NDArray([1.0, 2.0])) == f"NDArray([1. 2.], device={device})"
    assert repr(NDArray([[1], [2]])) == f"NDArray([[1]\n         [2]], device={device})"


def test_indexing_returns_views(host):
    array = NDArray(host)
    every = slice(None)
    for index, of_numpy in (
        (0, slice(0, 1)),
        (-1, slice(1, 2)),
        ((0, 1), (slice(0, 1), slice(1, 2))),
        (slice(1, None), slice(1, None)),
        ((..., 2), (..., slice(2, 3))),
        ((..., 1, every, -4), (slice(1, 2), every, slice(0, 1))),
        ((every, slice(None, None, 2)), (every, slice(None, None, 2))),
    ):
        view = array[index]
        assert isinstance(view, NDArray)
        np.testing.assert_array_equal(view.numpy(), host[of_numpy], strict=True)
        view.fill(-7)
        host[of_numpy] = -7
        np.testing.assert_array_equal(array.numpy(), host)
    assert float(array[1, 2, 3]) == host[1, 2, 3]


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_fill():
    array = NDArray(np.zeros((2, 3), "float32"))
    before = array.array
    array.fill(2.5)
    assert array.array is before
    assert array.dtype == "float32"
    assert array.numpy().tolist() == [[2.5] * 3] * 2


def test_setitem(host):
    array = NDArray(host)
    before = array.array
    values = [
        ((0, 0, 0), 1.5),
        ((slice(None), 1), 2),
        (0, NDArray(np.full((3, 4), 5.0))),
        ((1, slice(None), 2), NDArray([1.0, 2.0, 3.0])),  # the same number of elements in another shape
        ((slice(0, 1), 0, 0), NDArray([8.0])),
        (..., NDArray(np.arange(24.0))),
    ]
    for index, value in values:
        array[index] = value
        host[index] = value.numpy().reshape(host[index].shape) if isinstance(value, NDArray) else value
        np.testing.assert_array_equal(array.numpy(), host)
    assert array.array is before
    with pytest.raises(ValueError, match="reshape"):
        array[0] = NDArray([1.0, 2.0])


def test_writes_keep_the_dtype():
    array = NDArray(np.zeros(2, "float32"))
    array[0] = 1 / 3
    array[1:] = NDArray([2 / 3])
    assert array.dtype == "float32"
    assert array.numpy().tolist() == np.array([1 / 3, 2 / 3], "float32").tolist()


def test_flat_writes_in_place(host):
    array = NDArray(host)
    assert array.flat.shape == (24,)
    for j in range(array.size):
        array.flat[j] += j
    np.testing.assert_array_equal(array.numpy(), 2 * host)
    array.flat[3] = array.flat[4]
    assert array[0, 0, 3] == 8
    array.flat[0:2] = NDArray([[5.0], [6.0]])
    assert array.numpy().ravel()[:2].tolist() == [5, 6]


def test_flat_of_one_element():
    array = NDArray(2.0)
    array.flat[0] += 1.5
    assert array.shape == ()
    assert float(array) == 3.5


def test_flat_of_other_orders_is_refused(host):
    x = ndl.Tensor(host[0], requires_grad=False)
    message = r"^flat: memory must be row-major, but got shape \(4, 3\) with strides \(1, 4\)$"
    with pytest.raises(ValueError, match=message):
        ndl.transpose(x).cached_data.flat  # noqa: B018


def test_every_write_is_reported_to_the_owner():
    owner = Listener()
    array = NDArray.wrap(ndl.default_device().xp.zeros((2, 3)), owner)
    array.numpy(), array.flat, array[0], array.astype("float64"), float(array[0, 0]), repr(array)
    assert owner.writes == 0
    writes = [
        lambda: array.fill(1),
        lambda: array.__setitem__(0, 2),
        lambda: array.flat.__setitem__(0, 2),
        lambda: array[0].fill(1),
        lambda: array[:, 1:][0].flat.fill(1),
    ]
    for count, write in enumerate(writes, 1):
        write()
        assert owner.writes == count
    array.astype("float64").fill(3)
    NDArray(array).fill(3)
    assert owner.writes == len(writes)


def test_astype_copies():
    array = NDArray([1.7, -1.7])
    for dtype in ("float32", "float64", "int64"):
        other = array.astype(dtype)
        assert other.dtype == dtype
        other.fill(0)
    assert array.numpy().tolist() == [1.7, -1.7]
    assert array.astype("int64").numpy().tolist() == [1, -1]
    assert array.astype(np.uint8).dtype == "uint8"


def test_to_its_own_device_is_itself(device):
    array = NDArray([1.0])
    assert array.to(device) is array


# ---- the memory under an array ---------------------------------------------------------------------------------------


def from_elsewhere(view):
    """The memory of a NumPy array, handed over by DLPack: its base is no array."""
    return NDArray.wrap(np.from_dlpack(view))


BASE = np.arange(12, dtype="float32")
FOREIGN = {  # an array of another library -> the memory from its lowest address to its highest
    "reversed": (BASE[::-1], BASE),
    "reversed in part": (BASE.reshape(3, 4)[:, ::-1], BASE),
    "every third": (BASE[1::3], BASE[1:11]),
    "every third, reversed": (BASE[10::-3], BASE[1:11]),
    "transposed": (BASE.reshape(3, 4).T, BASE),
    "0-d": (BASE[5:6].reshape(()), BASE[5:6]),
}


@pytest.mark.on_cpu
@pytest.mark.parametrize("name", FOREIGN)
def test_memory_spans_the_lowest_to_the_highest_address(name):
    view, memory = FOREIGN[name]
    array = from_elsewhere(view)
    handle, n = array._handle, memory.size
    assert (handle.size, handle.ptr()) == (n, memory.ctypes.data)
    np.testing.assert_array_equal(NDArray.make((n,), handle=handle).numpy(), memory)
    np.testing.assert_array_equal(array.as_strided(array.shape, array.strides).numpy(), view)
    for shape, strides, offset in [((n + 1,), (1,), 0), ((n,), (1,), 1), ((2,), (-1,), 0), ((2,), (n,), 0)]:
        with pytest.raises(ValueError, match=r"^make: elements must lie in the memory of "):
            NDArray.make(shape, strides, handle=handle, offset=offset)
    for step in (n, -n):
        with pytest.raises(ValueError, match=r"^as_strided: elements must lie in the memory of "):
            array.as_strided((2,), (step,))


@pytest.mark.on_cpu
def test_memory_of_a_repeated_array_is_what_is_repeated():
    repeated = NDArray.wrap(np.lib.stride_tricks.as_strided(BASE[:4], (16, 4), (0, 4)))
    assert NDArray.wrap(np.broadcast_to(np.float32(3), 64))._handle.size == 1
    assert repeated._handle.size in (4, 12)  # NumPy may remember the array that was repeated
    lonely = from_elsewhere(np.lib.stride_tricks.as_strided(BASE[:4].copy(), (16, 4), (0, 4)))
    assert lonely._handle.size == 4
    with pytest.raises(ValueError, match=r"^matmul_tiled: the matrix and the buffer of out must agree in size, "):
        ndl.cpu().matmul_tiled(*(NDArray(np.ones(64, "float32"))._handle for _ in "ab"), lonely._handle, 8, 8, 8)


@pytest.mark.on_cpu
def test_memory_of_a_reinterpreted_array_counts_its_own_elements():
    array = NDArray.wrap(np.arange(4.0).view("float32"))
    assert (array._handle.size, array._handle.flat.dtype) == (8, "float32")
    np.testing.assert_array_equal(array[2:].as_strided((2,), (4,)).numpy(), array.array[2::4])
