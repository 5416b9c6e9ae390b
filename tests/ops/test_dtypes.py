"""Dtypes: Python numbers are weak, no result is wider than its inputs, integers and float16 work."""

import itertools
import operator
from fractions import Fraction

import numpy as np
import pytest

import needle as ndl
from needle import ops
from needle.autograd import find_topo_sort
from needle.backend import to_host
from tests.ops.table import ROWS, check_close, each_row, inputs_of, run_needle
from tests.standin.array import counting
from tests.standin.device import STANDIN

DIFFERENTIABLE = [row for row in ROWS if not row.constant]
DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"]
ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge]
FUNCTIONS = ["maximum", "minimum", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "power"]
NUMBERS = [2, 0, 2.5, True, np.float64(2.5), np.float32(2.5), np.float16(2.5), np.int64(2), np.int8(2), np.uint8(2)]


def python_number(number):
    """The Python number of the same value."""
    return number.item() if isinstance(number, np.generic) else number


def check_like_numpy(function, reference, dtype, device):
    """Compare a function of one tensor with NumPy's function of one array, where NumPy defines it."""
    values = np.array([0, 1, 3]).astype(dtype)
    with np.errstate(all="ignore"):
        try:
            expected = np.asarray(reference(values))
        except (TypeError, ValueError):  # needle defines more than NumPy, such as a difference of bools
            return
        actual = function(ndl.Tensor(values, device=device))
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.numpy(), expected)


# ---- numbers from Python and NumPy -----------------------------------------------------------------------------------


def check_weak(function, reference, dtype, device):
    """Compare a function of two operands with NumPy's, with each of the numbers on either side."""
    for number in NUMBERS:
        weak = python_number(number)
        check_like_numpy(lambda x, n=number: function(x, n), lambda x, n=weak: reference(x, n), dtype, device)
        check_like_numpy(lambda x, n=number: function(n, x), lambda x, n=weak: reference(n, x), dtype, device)


@pytest.mark.parametrize("function", ARITHMETIC + COMPARISONS, ids=lambda f: f.__name__)
def test_numbers_are_weak_in_operators(function, device, subtests):
    for dtype in DTYPES:
        if function is operator.pow and dtype == "bool" and device != ndl.cpu():
            continue  # NumPy's ** has shortcuts for 0, 1 and 2, in which bools become int8
        with subtests.test(dtype):
            check_weak(function, function, dtype, device)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_are_weak_in_functions(name, device, subtests):
    for dtype in DTYPES:
        with subtests.test(dtype):
            check_weak(getattr(ops, name), getattr(np, name), dtype, device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_weak_in_where(dtype, device):
    mask = np.array([True, False, True])
    condition = ndl.Tensor(mask, device=device)
    check_weak(lambda a, b: ops.where(condition, a, b), lambda a, b: np.where(mask, a, b), dtype, device)


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [("int8", 127, 127), ("int8", 128, -128), ("int8", 200, -56), ("uint8", -1, 255), ("int8", -129, 127)],
)
def test_integers_that_do_not_fit_wrap_around(dtype, number, expected, device):
    x = ndl.ones(1, dtype=dtype, device=device)
    y = ops.where(ndl.Tensor([False], device=device), x, number)
    assert (y.dtype, y.numpy().tolist()) == (dtype, [expected])


@pytest.mark.parametrize(
    ("dtype", "number", "uploads"), [("int8", 0, 0), ("int8", 127, 0), ("int8", 128, 1), ("float32", -300, 0)]
)
def test_numbers_that_fit_every_dtype_are_not_sent_to_the_device(dtype, number, uploads):
    x = ndl.ones(1, dtype=dtype, device=STANDIN)
    with counting() as counts:
        ops.maximum(x, number)
    assert counts.uploads == uploads


@pytest.mark.parametrize("scalar", [3, np.float64(3), np.float32(3), np.array([3.0]), np.array(3), np.array([[3]])])
@pytest.mark.parametrize("name", ["add_scalar", "mul_scalar", "divide_scalar", "power_scalar"])
def test_scalars_may_be_host_arrays_of_one_element(name, scalar, device):
    x = ndl.Tensor([1.0, 2.0], dtype="float32", device=device)
    y = getattr(ops, name)(x, scalar)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y.numpy(), getattr(ops, name)(x, 3).numpy())


@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
def test_fractions_are_numbers(function, device):
    x = ndl.Tensor([1.0, 2.0], dtype="float32", device=device)
    half = Fraction(1, 2)
    for y, expected in ((function(x, half), function(x, 0.5)), (function(half, x), function(0.5, x))):
        assert y.dtype == "float32"
        np.testing.assert_array_equal(y.numpy(), expected.numpy())


@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
def test_tensors_promote_each_other_by_numpys_rules(function, device, subtests):
    for left, right in itertools.product(DTYPES, DTYPES):
        with subtests.test(f"{left}, {right}"):
            check_promotion(function, left, right, device)


def check_promotion(function, left, right, device):
    """Compare a function of two tensors with NumPy's of two arrays; where NumPy refuses, needle must too."""
    a, b = np.array([3, 0, 1]).astype(left), np.array([1, 1, 0]).astype(right)
    with np.errstate(all="ignore"):
        try:
            expected = function(a, b)
        except TypeError:
            with pytest.raises(TypeError):
                function(ndl.Tensor(a, device=device), ndl.Tensor(b, device=device))
            return
        actual = function(ndl.Tensor(a, device=device), ndl.Tensor(b, device=device))
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual.numpy(), expected)


# ---- nothing widens --------------------------------------------------------------------------------------------------


@pytest.mark.on_cpu
@each_row(row for row in DIFFERENTIABLE if row.dtype is None)
def test_no_op_computes_in_a_wider_dtype(row, device):
    """No value of the forward or backward graph is wider than the inputs, so nothing must be cast back."""
    for dtype in ("float16", "float32"):
        results = run_needle(row, inputs_of(row, device, dtype=dtype), device, dtype)
        for value in find_topo_sort([*results["result"], *results["gradient"]]):
            arrays = value.array if isinstance(value, ndl.TensorTuple) else (value.array,)
            for array in arrays:
                assert array.dtype == dtype or array.dtype.kind in "iub", f"{value.op!r} gives {array.dtype}"


@pytest.mark.on_cpu
@each_row(DIFFERENTIABLE)
def test_gradients_have_the_dtype_of_the_inputs(row, device):
    """Even if the incoming gradient is wider: backward converts it, ops need not."""
    results = run_needle(row, inputs_of(row, device, dtype="float32"), device, "float64")
    assert {str(x.dtype) for x in results["gradient"]} == {"float32"}


@pytest.mark.parametrize("function", ARITHMETIC, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("left", "right"), [("float32", "float64"), ("float64", "float16"), ("float16", "float32")])
def test_gradients_of_mixed_dtypes(function, left, right, device):
    a = ndl.Tensor([[1.0, 2.0], [0.5, 1.5]], dtype=left, device=device)
    b = ndl.Tensor([1.0, 3.0], dtype=right, device=device)
    function(a, b).sum().backward()
    wide_a, wide_b = (ndl.Tensor(x, dtype="float64") for x in (a, b))
    function(wide_a, wide_b).sum().backward()
    for x, wide in ((a, wide_a), (b, wide_b)):
        assert x.grad.dtype == x.dtype
        np.testing.assert_allclose(x.grad.numpy(), wide.grad.numpy(), rtol=2e-3)


# ---- float16 ---------------------------------------------------------------------------------------------------------


@pytest.mark.on_cpu
@each_row(ROWS)
def test_float16_agrees_with_float64(row, device):
    actual = run_needle(row, inputs_of(row, device, dtype="float16"), device, "float16")
    expected = run_needle(row, inputs_of(row, device), device, "float64")
    for results in (actual, expected):
        results.pop("second", None)
    check_close(row, actual, expected, 1e-2)
    assert {str(x.dtype) for x in actual.get("gradient", ())} <= {"float16"}
    if not row.constant:
        assert {str(x.dtype) for x in actual["result"]} == {row.dtype or "float16"}


# ---- integers --------------------------------------------------------------------------------------------------------


def takes_integers(row):
    """Whether integers give the same values: not in windows, negative powers (NumPy refuses them) or padding by 1.5."""
    refused = row.op == "Correlate" or (row.op == "power_scalar" and row.setting.startswith("-"))
    return not refused and row.op != "astype" and not (row.op == "pad" and "1.5" in row.setting)


@pytest.mark.on_cpu
@each_row(row for row in DIFFERENTIABLE if takes_integers(row))
def test_integer_leaves_are_differentiable(row, device):
    """Integer inputs give the same results as floats, and gradients that are not rounded."""
    values = [
        np.ceil(np.abs(to_host(array))) + 1 if drawn else to_host(array)
        for array, drawn in zip(inputs_of(row, device), row.is_drawn(), strict=True)
    ]
    integers = [device.array(value, "int64" if value.dtype.kind == "f" else None) for value in values]
    actual = run_needle(row, integers, device, "float64")
    expected = run_needle(row, [device.array(value) for value in values], device, "float64")
    for part, references in expected.items():
        for a, b in zip(actual[part], references, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-11, atol=1e-11, err_msg=f"{row}: {part}")


def test_an_integer_chain_keeps_its_dtype(device):
    x = ndl.Tensor([1, 2, 3], device=device)
    y = (x * x - 2 * x + 1).sum()
    y.backward()
    assert (y.dtype, y.item()) == ("int64", 5)
    np.testing.assert_array_equal(x.grad.numpy(), [0, 2, 4])


def test_small_integers_are_not_rounded_on_the_way(device):
    """NumPy's logarithm of int8 is float16; a gradient must not lose that much."""
    a = ndl.Tensor([2, 3], dtype="int8", device=device)
    b = ndl.Tensor([1.5, 2.0], device=device)
    (a**b).sum().backward()
    np.testing.assert_allclose(b.grad.numpy(), np.array([2, 3]) ** b.numpy() * np.log([2.0, 3.0]), rtol=1e-14)
    np.testing.assert_allclose(a.grad.numpy(), b.numpy() * np.array([2, 3]) ** (b.numpy() - 1), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8", "bool"])
def test_a_cast_from_floats_to_integers_is_a_constant(dtype, device):
    x = ndl.Tensor([0.5, 1.5], device=device)
    y = x.astype(dtype)
    assert (y.dtype, y.requires_grad) == (dtype, False)
    (y * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_a_cast_to_the_same_dtype_returns_the_tensor(device):
    x = ndl.Tensor([1.0], dtype="float32", device=device)
    assert x.astype("float32") is x
    assert x.astype(np.float32) is x


# ---- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "argmax"])
def test_reductions_have_numpys_dtypes(name, dtype, device):
    values = np.array([[1, 0, 3], [2, 5, 4]]).astype(dtype)
    for axis in (None, 0):
        actual = getattr(ndl.Tensor(values, device=device), name)(axis)
        expected = np.asarray(getattr(values, name)(axis))
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual.numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparisons_return_bools(name, dtype, device):
    x = ndl.Tensor(np.array([0, 1]).astype(dtype), device=device)
    assert getattr(ops, name)(x, x).dtype == "bool"
