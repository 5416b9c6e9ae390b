"""Arrays of foreign byte order: converted where they enter, so that no kernel meets one."""

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, init, nn, ops
from needle import backend_ndarray as nd
from needle.data import DataLoader, NDArrayDataset

FOREIGN = [np.dtype(name).newbyteorder("S") for name in ("f2", "f4", "f8", "i2", "i4", "i8", "u4")]
DOORS = {
    "Tensor": lambda x, device: Tensor(x, device=device),
    "a list of arrays": lambda x, device: Tensor([x[0], x[1]], device=device),
    "a dtype": lambda x, device: Tensor(x.tolist(), device=device, dtype=x.dtype),
    "NDArray": lambda x, device: nd.NDArray(x, device),
    "nd.array": lambda x, device: nd.array(x.tolist(), x.dtype, device),
    "nd.empty": lambda x, device: nd.empty(x.shape, x.dtype, device),
    "NDArray.astype": lambda x, device: nd.NDArray(x.tolist(), device).astype(x.dtype),
    "device.zeros": lambda x, device: device.zeros(2, dtype=x.dtype),
    "device.full": lambda x, device: device.full((2,), 1, x.dtype),
    "init.ones": lambda x, device: init.ones(2, device=device, dtype=x.dtype),
    "init.arange": lambda x, device: init.arange(2, device=device, dtype=x.dtype),
    "init.tril": lambda x, device: init.tril(2, 2, device=device, dtype=x.dtype),
    "init.eye": lambda x, device: init.eye(2, device=device, dtype=x.dtype),
    "init.linspace": lambda x, device: init.linspace(0, 2, 3, device=device, dtype=x.dtype),
    "init.randint": lambda x, device: init.randint(0, 9, (2,), device=device, dtype=x.dtype),
    "init.randperm": lambda x, device: init.randperm(3, device=device, dtype=x.dtype),
    "init.full": lambda x, device: init.full((2,), 1, device=device, dtype=x.dtype),
    "init.tensor": lambda x, device: init.tensor(x, device=device),
    "init.randb": lambda x, device: init.randb(2, device=device, dtype=x.dtype),
    "astype": lambda x, device: Tensor(x.tolist(), device=device).astype(x.dtype),
    "one_hot": lambda x, device: ops.one_hot(4, Tensor([0, 1], device=device), x.dtype),
    "an operand": lambda x, device: ops.maximum(Tensor(x, device=device), 2),
    "a number": lambda x, device: Tensor([1.0, 2.0], device=device) + x[0],
}


@pytest.mark.parametrize("name", DOORS)
def test_arrays_are_converted_where_they_enter(name, device):
    for dtype in FOREIGN:
        array = np.array([[1, 2], [3, 300]], dtype)
        result = DOORS[name](array, device)
        assert result.dtype.isnative
        if name in ("Tensor", "a list of arrays", "NDArray", "a dtype", "nd.array", "astype"):
            assert result.dtype == dtype.newbyteorder("=")
            np.testing.assert_array_equal(result.numpy(), array)


@pytest.mark.parametrize("dtype", FOREIGN)
def test_batches_and_operands_are_converted(dtype, device):
    images, labels = np.ones((4, 1, 2, 2), dtype), np.arange(4).astype(dtype)
    for batch in DataLoader(NDArrayDataset(images, labels), 2, device=device):
        assert all(field.dtype.isnative for field in batch)
    x = init.ones(2, 2, device=device)
    for y in (x + images[0, 0], images[0, 0] * x, x @ Tensor(images[0, 0], device=device)):
        assert y.dtype.isnative
    x.cached_data[...] = nd.NDArray(images[0, 0], device)
    assert x.dtype == "float32"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_parameters_and_draws_are_of_this_machine(dtype, device):
    foreign = np.dtype(dtype).newbyteorder("S")
    layer = nn.Linear(2, 3, device=device, dtype=foreign)
    assert all(parameter.dtype.isnative for parameter in layer.parameters())
    layer.load_state_dict({name: value.astype(foreign) for name, value in layer.state_dict().items()})
    assert layer.weight.dtype == dtype
    assert layer(init.ones(1, 2, device=device, dtype=foreign)).dtype == dtype
    for draw in (init.rand, init.randn):
        assert draw(2, device=device, dtype=foreign).dtype == dtype


def test_foreign_memory_is_not_shared():
    with pytest.raises(BufferError, match=r"from_dlpack: source must export its memory, but it says: .*byte order"):
        ndl.from_dlpack(np.ones(2, FOREIGN[1]))
