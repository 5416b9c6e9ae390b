"""DLPack both ways: memory is shared with NumPy, torch and other array libraries, or refused with a reason."""

from __future__ import annotations

import operator

import numpy as np
import pytest
import torch

import needle as ndl
from needle import Tensor

DTYPES = ["float32", "float64", "float16", "int32", "int64", "uint8", "bool"]


def constant(values, device, dtype="float32"):
    return Tensor(values, device=device, dtype=dtype, requires_grad=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_a_tensor_without_a_copy(dtype):
    x = constant([[0, 1, 1], [1, 0, 1]], ndl.cpu(), dtype)
    shared = np.from_dlpack(x)
    assert shared.dtype == dtype
    assert np.shares_memory(shared, x.array)
    x.cached_data[0, 0] = 1
    assert shared.tolist() == [[1, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_reads_a_tensor_without_a_copy(dtype):
    x = constant([[0, 1, 1], [1, 0, 1]], ndl.cpu(), dtype)
    shared = torch.from_dlpack(x)
    assert shared.data_ptr() == x.array.ctypes.data
    x.cached_data[0, 0] = 1
    assert shared.tolist() == [[1, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_on_the_memory_of_torch(dtype):
    source = torch.zeros(2, 3, dtype=getattr(torch, dtype))
    x = ndl.from_dlpack(source)
    assert type(x) is Tensor
    assert (x.dtype, x.device, x.requires_grad) == (dtype, ndl.cpu(), False)
    assert x.array.ctypes.data == source.data_ptr()
    source[0, 1] = 1
    assert x.numpy().tolist() == [[0, 1, 0], [0, 0, 0]]


def test_a_tensor_on_the_memory_of_numpy_and_of_a_tensor(device):
    host = np.arange(6.0).reshape(2, 3)
    assert np.shares_memory(ndl.from_dlpack(host).array, host)
    x = constant([1.0, 2.0], device)
    again = ndl.from_dlpack(x)
    assert again.device == device
    again.cached_data[0] = 5
    assert x.numpy().tolist() == [5, 2]


def test_strides_survive(device):
    x = constant(np.arange(6.0).reshape(2, 3), device).transpose()
    again = ndl.from_dlpack(x)
    assert again.cached_data.strides == x.cached_data.strides == (1, 3)
    assert again.numpy().tolist() == x.numpy().tolist()


def test_negative_strides_are_made_compact_first(device):
    x = ndl.flip(constant([1.0, 2.0, 3.0], device))
    again = ndl.from_dlpack(x)
    assert again.cached_data.strides == (1,)
    assert again.numpy().tolist() == [3, 2, 1]
    if device == ndl.cpu():
        assert torch.from_dlpack(x).tolist() == [3, 2, 1]


def test_memory_of_torch_trains(device):
    x = ndl.from_dlpack(torch.tensor([1.0, 2.0])).to(device)
    w = Tensor([3.0, 4.0], device=device, dtype="float32")
    (x * w).sum().backward()
    assert torch.from_dlpack(w.grad.detach().to(ndl.cpu())).tolist() == [1, 2]


def test_tensors_that_require_grad_are_refused(device):
    message = r"^Tensor: DLPack does not export a tensor that requires grad; call \.detach\(\) first$"
    x = Tensor([1.0], device=device)
    with pytest.raises(TypeError, match=message):
        x.__dlpack__()
    with pytest.raises(TypeError, match=message):
        ndl.from_dlpack(x)
    ndl.from_dlpack(x.detach())


def test_read_only_and_repeated_memory_is_refused(device):
    x = ndl.broadcast_to(constant([1.0], device), (3,))
    with pytest.raises(BufferError, match="DLPack: memory must be writable, but got a read-only or repeated array "):
        ndl.from_dlpack(x)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "source",
    [
        np.broadcast_to(np.ones(1, "float32"), (3,)),
        np.lib.stride_tricks.as_strided(np.ones(1, "float32"), (3,), (0,)),
        np.lib.stride_tricks.as_strided(np.ones(4, "float32"), (3, 2), (4, 4)),
        read_only(np.ones(3, "float32")),
    ],
    ids=["broadcast", "stride 0", "overlapping", "read-only"],
)
def test_shared_memory_that_is_not_writable_is_read_but_not_written(source):
    """Written, a repeated element would take the last of its values, and NumPy's own error would come too late."""
    x = ndl.from_dlpack(source)
    x.requires_grad = True
    assert (x * 2).numpy().tolist() == (2 * source).tolist()
    y = (x * x).sum()
    x.grad = ndl.ones(*x.shape)
    rule = "must have writable memory, but got a read-only or repeated array"
    with ndl.no_grad():
        for write in (
            lambda: ndl.optim.SGD([x], lr=1).step(),
            lambda: ndl.optim.Adam([x]).step(),
            lambda: x.cached_data.fill(5),
            lambda: operator.setitem(x, 0, 5),
        ):
            with pytest.raises(ValueError, match=rule):
                write()
    y.backward()  # nothing has been marked as changed
    assert x.grad.numpy().tolist() == (2 * source).tolist()


@pytest.mark.parametrize("source", [[1.0], 2.0, "a", None])
def test_anything_without_dlpack_is_refused(source):
    with pytest.raises(TypeError, match=r"^from_dlpack: source must implement DLPack, but got "):
        ndl.from_dlpack(source)


def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match=r"^from_dlpack: elements must be real numbers .* but got dtype complex64$"):
        ndl.from_dlpack(np.zeros(2, "complex64"))


def test_memory_of_unknown_devices_is_refused():
    class Elsewhere:
        def __dlpack__(self, **options):
            raise AssertionError("its memory must not be requested")

        def __dlpack_device__(self):
            return 10, 0

    with pytest.raises(TypeError, match=r"^from_dlpack: source must lie on a device .* but got DLPack's type 10$"):
        ndl.from_dlpack(Elsewhere())
