"""Initialisers: the values that they draw, in which order, from which stream; bounds, deviations and fans."""

from __future__ import annotations

import math

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
    "one_hot": (lambda **options: init.one_hot(3, [0, 2], **options), (2, 3)),
    "xavier_uniform": (lambda **options: init.xavier_uniform(2, 3, **options), (2, 3)),
    "xavier_normal": (lambda **options: init.xavier_normal(2, 3, **options), (2, 3)),
    "kaiming_uniform": (lambda **options: init.kaiming_uniform(2, 3, **options), (2, 3)),
    "kaiming_normal": (lambda **options: init.kaiming_normal(2, 3, **options), (2, 3)),
}
EVERY_CALL = pytest.mark.parametrize("call", CALLS)
ROOT2 = math.sqrt(2)


def expect(tensor, draws, dtype="float32"):
    """The tensor holds these values, rounded to its dtype before or after scaling."""
    assert tensor.dtype == dtype
    np.testing.assert_allclose(tensor.numpy(), draws, rtol=2e-6, atol=2e-7)


# ---- what all share --------------------------------------------------------------------------------------------------


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
def test_draws_are_as_many_as_elements_or_none(call):
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


# ---- draws -----------------------------------------------------------------------------------------------------------


def test_rand():
    np.random.seed(5)
    draws = np.random.rand(3, 4)
    np.random.seed(5)
    expect(init.rand(3, 4), draws)
    np.random.seed(5)
    expect(init.rand(3, 4, low=-2.0, high=5.0), draws * 7 - 2)
    np.random.seed(5)
    assert init.rand(3, 4, dtype="float64").numpy().tolist() == draws.tolist()


def test_randn():
    np.random.seed(5)
    draws = np.random.randn(3, 4)
    np.random.seed(5)
    expect(init.randn(3, 4), draws)
    np.random.seed(5)
    expect(init.randn(3, 4, mean=-2.0, std=5.0), draws * 5 - 2)
    np.random.seed(5)
    assert init.randn(3, 4, dtype="float64").numpy().tolist() == draws.tolist()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_randb(p):
    np.random.seed(5)
    draws = np.random.rand(30, 40)
    np.random.seed(5)
    x = init.randb(30, 40, p=p)
    assert x.dtype == "bool"
    assert x.numpy().tolist() == (draws <= p).tolist()
    assert init.randb(2, dtype="float32").dtype == "float32"


def test_randb_includes_its_bound(monkeypatch):
    monkeypatch.setattr(np.random, "rand", lambda *shape: np.array([0.0, 0.3, np.nextafter(0.3, 1)]))
    assert init.randb(3, p=0.3).numpy().tolist() == [True, True, False]
    assert init.randb(3, p=0).numpy().tolist() == [True, False, False]


def test_randb_is_true_half_of_the_time_by_default():
    assert abs(init.randb(10_000).numpy().mean() - 0.5) < 0.02


def test_draws_follow_one_another():
    np.random.seed(5)
    draws = np.random.rand(2), np.random.randn(2), np.random.rand(2)
    np.random.seed(5)
    expect(init.rand(2), draws[0])
    expect(init.randn(2), draws[1])
    expect(init.rand(2), draws[2])


@pytest.mark.parametrize("number", [np.float64, np.float32, int, np.array])
def test_numbers_of_other_types_keep_the_dtype(number):
    for x in (
        init.rand(2, low=number(1), high=number(3)),
        init.randn(2, mean=number(1), std=number(3)),
        init.constant(2, c=number(3)),
        init.xavier_uniform(2, 3, gain=number(2)),
        init.xavier_normal(2, 3, gain=number(2)),
    ):
        assert x.dtype == "float32"


# ---- constants -------------------------------------------------------------------------------------------------------


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
def test_likes_take_shape_dtype_and_device(function, value, dtype, device):
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


# ---- fans ------------------------------------------------------------------------------------------------------------

UNIFORM = {
    "xavier": (lambda: init.xavier_uniform(30, 50), math.sqrt(6 / 80), (30, 50)),
    "xavier, gain": (lambda: init.xavier_uniform(30, 50, gain=2.5), 2.5 * math.sqrt(6 / 80), (30, 50)),
    "xavier, shape": (lambda: init.xavier_uniform(9, 11, shape=(5, 7)), math.sqrt(6 / 20), (5, 7)),
    "kaiming": (lambda: init.kaiming_uniform(30, 50), ROOT2 * math.sqrt(3 / 30), (30, 50)),
    "kaiming, shape": (lambda: init.kaiming_uniform(8, 6, shape=(5, 7, 2)), ROOT2 * math.sqrt(3 / 8), (5, 7, 2)),
    "kaiming, relu": (lambda: init.kaiming_uniform(9, 11, nonlinearity="relu"), ROOT2 * math.sqrt(3 / 9), (9, 11)),
    "kaiming, linear": (lambda: init.kaiming_uniform(9, 11, nonlinearity="linear"), math.sqrt(3 / 9), (9, 11)),
    "kaiming, tanh": (lambda: init.kaiming_uniform(9, 11, nonlinearity="tanh"), 5 / 3 * math.sqrt(3 / 9), (9, 11)),
    "kaiming, sigmoid": (lambda: init.kaiming_uniform(9, 11, nonlinearity="sigmoid"), math.sqrt(3 / 9), (9, 11)),
}
NORMAL = {
    "xavier": (lambda: init.xavier_normal(30, 50), math.sqrt(2 / 80), (30, 50)),
    "xavier, gain": (lambda: init.xavier_normal(30, 50, gain=2.5), 2.5 * math.sqrt(2 / 80), (30, 50)),
    "xavier, shape": (lambda: init.xavier_normal(9, 11, shape=(5, 7)), math.sqrt(2 / 20), (5, 7)),
    "kaiming": (lambda: init.kaiming_normal(30, 50), ROOT2 / math.sqrt(30), (30, 50)),
    "kaiming, shape": (lambda: init.kaiming_normal(8, 6, shape=(5, 7, 2)), ROOT2 / math.sqrt(8), (5, 7, 2)),
    "kaiming, linear": (lambda: init.kaiming_normal(9, 11, nonlinearity="linear"), 1 / 3, (9, 11)),
}


@pytest.mark.parametrize("case", UNIFORM)
def test_uniform_bounds(case):
    function, bound, shape = UNIFORM[case]
    x = function()
    np.random.seed(0)
    expect(x, (2 * np.random.rand(*shape) - 1) * bound)


@pytest.mark.parametrize("case", NORMAL)
def test_normal_deviations(case):
    function, std, shape = NORMAL[case]
    x = function()
    np.random.seed(0)
    expect(x, np.random.randn(*shape) * std)


@pytest.mark.parametrize("fan", [10, 1000])
def test_variances_are_those_of_the_papers(fan):
    """Glorot: 2 / (fan_in + fan_out) (eq. 12, 16). He: 2 / fan_in (eq. 10)."""
    size = 200_000 // fan
    for function in (init.xavier_uniform, init.xavier_normal):
        x = function(fan, size).numpy()
        assert x.var() == pytest.approx(2 / (fan + size), rel=0.03)
        assert abs(x.mean()) < 4 * x.std() / math.sqrt(x.size)
    for function in (init.kaiming_uniform, init.kaiming_normal):
        assert function(fan, size).numpy().var() == pytest.approx(2 / fan, rel=0.03)


def test_golden_value():
    np.random.seed(0)
    x = init.kaiming_uniform(144, 72, shape=(3, 3, 16, 8))
    assert x.shape == (3, 3, 16, 8)
    assert float(x.numpy().sum(dtype="float64")) == pytest.approx(-2.5719218, abs=2e-5)


@pytest.mark.parametrize(
    ("shape", "fans"),
    [((8, 3, 5, 5), (75, 200)), ((8, 3, 5), (15, 40)), ((4, 2, 1, 2, 3), (12, 24)), ([6, 1, 3, 3], (9, 54))],
)
def test_fans_of_convolution_weights(shape, fans):
    assert init.conv_fans(shape) == fans


def test_a_layer_keeps_the_variance_of_its_input():
    """The purpose of it all: what fans in with kaiming_uniform comes out of relu with the same mean square."""
    x = init.randn(500, 400, dtype="float64")
    for _ in range(5):
        x = ndl.relu(x @ init.kaiming_uniform(400, 400, dtype="float64"))
    assert float((x * x).mean()) == pytest.approx(1, rel=0.5)
