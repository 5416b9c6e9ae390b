"""Common to all functions of init: options, dtypes, devices, the number of draws."""

from __future__ import annotations

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, init

pytestmark = pytest.mark.usefixtures("on_device")

# name -> (a call, the shape of its result)
CALLS = {
    "rand": (lambda **options: init.rand(2, 3, **options), (2, 3)),
    "randn": (lambda **options: init.randn(2, 3, **options), (2, 3)),
    "constant": (lambda **options: init.constant(2, 3, **options), (2, 3)),
    "ones": (lambda **options: init.ones(2, 3, **options), (2, 3)),
    "zeros": (lambda **options: init.zeros(2, 3, **options), (2, 3)),
    "arange": (lambda dtype="float32", **options: init.arange(6, dtype=dtype, **options), (6,)),
    "tril": (lambda **options: init.tril(2, 3, **options), (2, 3)),
    "one_hot": (lambda **options: init.one_hot(3, [0, 2], **options), (2, 3)),
    "xavier_uniform": (lambda **options: init.xavier_uniform(2, 3, **options), (2, 3)),
    "xavier_normal": (lambda **options: init.xavier_normal(2, 3, **options), (2, 3)),
    "kaiming_uniform": (lambda **options: init.kaiming_uniform(2, 3, **options), (2, 3)),
    "kaiming_normal": (lambda **options: init.kaiming_normal(2, 3, **options), (2, 3)),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS)


@EVERY_CALL
def test_results_are_constants_of_float32(call, device):
    function, shape = CALLS[call]
    x = function()
    assert isinstance(x, Tensor)
    assert (x.shape, x.dtype, x.device, x.requires_grad, x.is_leaf()) == (shape, "float32", device, False, True)


@EVERY_CALL
def test_options(call):
    function, shape = CALLS[call]
    x = function(device=ndl.cpu(), dtype="float64", requires_grad=True)
    assert (x.shape, x.dtype, x.device, x.requires_grad) == (shape, "float64", ndl.cpu(), True)
    assert function(dtype="float16").dtype == "float16"


@EVERY_CALL
def test_each_call_draws_one_number_per_element_or_none(call):
    function, _ = CALLS[call]
    function()
    after = np.random.rand()
    np.random.seed(0)
    name = call.replace("kaiming_", "rand_").replace("xavier_", "rand_")
    if name in ("randn", "rand_normal"):
        np.random.randn(6)
    elif name in ("rand", "rand_uniform"):
        np.random.rand(6)
    assert np.random.rand() == after


@EVERY_CALL
def test_a_result_has_memory_of_its_own(call):
    function, shape = CALLS[call]
    x = function()
    x.cached_data.fill(7)
    assert x.numpy().tolist() == np.full(shape, 7).tolist()
    assert x.cached_data.flat.shape == (6,)


@pytest.mark.parametrize("function", [init.rand, init.randn, init.randb, init.ones, init.zeros, init.constant])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1,), (2, 3, 4, 5)])
def test_shapes(function, shape, device):
    x = function(*shape)
    assert x.shape == shape
    assert type(x.array) is device.array_type()
    x.cached_data.fill(1)
    assert x.numpy().tolist() == np.ones(shape).tolist()
