"""Tensors of known values: constants, ranges, triangles, one-hot rows."""

from __future__ import annotations

import re

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, init, nn, ops

pytestmark = pytest.mark.usefixtures("on_device")


def test_constants():
    assert init.constant(2, 1, c=2.5).numpy().tolist() == [[2.5], [2.5]]
    assert init.constant(2).numpy().tolist() == [1, 1]
    assert init.ones(2).numpy().tolist() == [1, 1]
    assert init.zeros(2, dtype="int64").numpy().tolist() == [0, 0]
    assert init.zeros(2, dtype="int64").dtype == "int64"
    assert ndl.ones(2).numpy().tolist() == [1, 1]
    assert ndl.zeros(2).numpy().tolist() == [0, 0]


@pytest.mark.parametrize(("function", "value"), [(init.ones_like, 1), (init.zeros_like, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_ones_like_and_zeros_like_take_shape_dtype_and_device(function, value, dtype, device):
    x = function(Tensor(np.full((2, 3), 5, dtype)))
    assert (x.shape, x.dtype, x.device, x.requires_grad) == ((2, 3), dtype, device, False)
    assert x.numpy().tolist() == np.full((2, 3), value).tolist()
    assert function(x, requires_grad=True).requires_grad
    elsewhere = Tensor([1.0], device=ndl.cpu())
    assert function(elsewhere).device == ndl.cpu()
    assert function(elsewhere, device=device).device == device


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_one_hot(dtype):
    indices = np.array([[0, 2], [1, 1]], dtype)
    x = init.one_hot(3, Tensor(indices))
    assert x.numpy().tolist() == np.eye(3)[indices.astype(int)].tolist()
    assert init.one_hot(3, indices).numpy().tolist() == x.numpy().tolist()
    assert init.one_hot(3, Tensor(indices), dtype="int8").dtype == "int8"
    assert init.one_hot(4, Tensor(2)).numpy().tolist() == [0, 0, 1, 0]


ONE_HOTS = {
    "init": lambda i: init.one_hot(3, Tensor(i, device=ndl.cpu())),
    "ops": lambda i: ops.one_hot(3, Tensor(i, device=ndl.cpu())),
    "device": lambda i: ndl.cpu().one_hot(3, i),
    "functional": lambda i: nn.functional.one_hot(Tensor(i, device=ndl.cpu()), 3),
}


@pytest.mark.parametrize("name", ONE_HOTS)
@pytest.mark.parametrize(
    ("label", "dtype", "rule"),
    [
        (3, "int64", "in [0, 2], but got 3 to 3"),
        (-1, "int8", "in [0, 2], but got -1 to -1"),
        (255, "uint8", "in [0, 2], but got 255 to 255"),
        (2**64 - 1, "uint64", "integers, but got 18446744073709551615"),
        (1.5, "float32", "integers, but got 1.5"),
        (np.inf, "float16", "integers, but got inf"),
        (1e30, "float64", "integers, but got 1e+30"),
    ],
)
def test_labels_out_of_range_are_refused(name, label, dtype, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        ONE_HOTS[name](np.array([label], dtype))


@pytest.mark.parametrize(
    ("numbers", "dtype"),
    [
        ((5,), "int64"), ((0,), "int64"), ((-3,), "int64"), ((2, 7), "int64"), ((2, 7, 2), "int64"),
        ((7, 2, -2), "int64"), ((3.0,), "float32"), ((0.5, 2), "float32"), ((1, 2, 0.25), "float32"),
        ((1, -1, -0.5), "float32"), ((0, 1, np.float32(0.5)), "float32"), ((np.float16(2),), "float32"),
        ((np.int8(2),), "int64"),
    ],
)  # fmt: skip
def test_arange_matches_numpy(numbers, dtype, device):
    x = init.arange(*numbers)
    assert (x.dtype, x.device, x.requires_grad) == (dtype, device, False)
    np.testing.assert_array_equal(x.numpy(), np.arange(*numbers, dtype=dtype), strict=True)


def test_arange_takes_options():
    x = init.arange(3, dtype="float64", device=ndl.cpu(), requires_grad=True)
    assert (x.dtype, x.device, x.requires_grad) == ("float64", ndl.cpu(), True)
    assert x.numpy().tolist() == [0, 1, 2]


@pytest.mark.parametrize("diagonal", [-4, -1, 0, 1, 2, 5])
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (0, 3), (3, 0), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["bool", "float32", "int64"])
def test_tril_matches_numpy(shape, diagonal, dtype, device):
    x = init.tril(*shape, diagonal, dtype=dtype)
    assert (x.device, x.requires_grad) == (device, False)
    np.testing.assert_array_equal(x.numpy(), np.tril(np.ones(shape, dtype), diagonal), strict=True)
