"""Dtypes: Python numbers are weak, no result is wider than its inputs, integers and float16 work."""

import functools
import itertools
import operator
from fractions import Fraction

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn, ops
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
TORCHS_NAMES = {"equal": "eq", "not_equal": "not_equal", "power": "pow"}
NUMBERS = [2, 0, 2.5, True, np.float64(2.5), np.float32(2.5), np.float16(2.5), np.int64(2), np.int8(2), np.uint8(2)]


def python_number(number):
    """The Python number of the same value."""
    return number.item() if isinstance(number, np.generic) else number


def check_like_torch(function, reference, device, *arrays):
    """Compare a function of tensors with torch's, where torch defines it: dtype and values."""
    with np.errstate(all="ignore"):
        try:
            expected = reference(*map(torch.tensor, arrays)).numpy()
        except (TypeError, RuntimeError):  # needle defines more than torch, such as a difference of bools
            return False
        actual = function(*(ndl.Tensor(array, device=device) for array in arrays))
    case = ", ".join(f"{array.dtype} {array.shape}" for array in arrays)
    assert actual.dtype == expected.dtype, case
    rtol = 1e-3 if expected.dtype == "float16" else 1e-6
    np.testing.assert_allclose(actual.numpy(), expected, rtol=rtol, err_msg=case)
    return True


# ---- numbers from Python and NumPy -----------------------------------------------------------------------------------


def check_weak(function, reference, dtype, device):
    """Compare a function of two operands with torch's, with each of the numbers on either side."""
    values = np.array([0, 1, 3]).astype(dtype)
    for number in NUMBERS:
        if function is operator.pow and dtype == "bool" and number is True:
            continue  # a bool in torch, where all other powers of bools are integers
        weak = python_number(number)
        check_like_torch(lambda x, n=number: function(x, n), lambda x, n=weak: reference(x, n), device, values)
        check_like_torch(lambda x, n=number: function(n, x), lambda x, n=weak: reference(n, x), device, values)


@pytest.mark.parametrize("function", ARITHMETIC + COMPARISONS, ids=lambda f: f.__name__)
def test_numbers_are_weak_in_operators(function, device, subtests):
    for dtype in DTYPES:
        with subtests.test(dtype):
            check_weak(function, function, dtype, device)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_are_weak_in_functions(name, device, subtests):
    reference = getattr(torch, TORCHS_NAMES.get(name, name))
    for dtype in DTYPES:
        with subtests.test(dtype):
            check_weak(getattr(ops, name), lambda a, b: reference(*map(torch.as_tensor, (a, b))), dtype, device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_weak_in_where(dtype, device):
    mask = np.array([True, False, True])
    condition = ndl.Tensor(mask, device=device)
    where = functools.partial(torch.where, torch.tensor(mask))
    check_weak(lambda a, b: ops.where(condition, a, b), where, dtype, device)


@pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [(1.0, 0.0, "float32"), (1, 0, "int64"), (1, 0.5, "float32"), ([1.0], 0, "float32"), (True, False, "bool")],
)
def test_numbers_alone_in_where_have_torchs_dtypes(a, b, dtype, device):
    mask = ndl.Tensor([True, False], device=device)
    assert ops.where(mask, a, b).dtype == dtype


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "bool"])
def test_lists_of_floats_are_weak(dtype, device):
    x = ndl.ones(2, dtype=dtype, device=device)
    expected = dtype if dtype.startswith("float") else "float32"
    for y in (ops.add(x, [0.5, 1.0]), [0.5, 1.0] * x, ops.maximum(x, (0.5, 1.0)), ops.where(x > 0, [0.5, 1.0], x)):
        assert y.dtype == expected


@pytest.mark.parametrize(("dtype", "number"), [("int8", 128), ("int8", -129), ("uint8", -1), ("int64", 2**63)])
def test_integers_that_do_not_fit_are_refused(dtype, number, device):
    x = ndl.ones(2, dtype=dtype, device=device)
    for function in (operator.add, operator.mul, ops.maximum, lambda x, n: ops.where(x > 0, x, n), ops.clip):
        with pytest.raises(ValueError, match=rf"must lie in \[.*\], the range of {dtype}, but got {number}"):
            function(x, number)


def test_a_difference_needs_its_own_range(device):
    x = ndl.Tensor(np.array([1, -2], "int8"), device=device)
    assert (x - 128).numpy().tolist() == [-127, 126]  # x + -128
    assert (x - -128).numpy().tolist() == [-127, 126]
    with pytest.raises(ValueError, match=r"subtract: scalar must lie in \[-128, 127\], the range of int8, but got 300"):
        x - 300


@pytest.mark.parametrize(("number", "greater"), [(300, [False, False]), (-1, [True, True]), (2**70, [False, False])])
def test_integers_that_do_not_fit_are_compared_exactly(number, greater, device):
    x = ndl.Tensor(np.array([44, 255], "uint8"), device=device)
    assert (x > number).numpy().tolist() == (number < x).numpy().tolist() == greater
    assert not ops.equal(x, number).numpy().any()
    assert not (x == number).numpy().any()
    assert (x != number).numpy().all()


def test_numbers_are_not_sent_to_the_device():
    for dtype, number in (("int8", 0), ("int8", -128), ("float32", -300)):
        x = ndl.ones(1, dtype=dtype, device=STANDIN)
        with counting() as counts:
            ops.maximum(x, number)
        assert counts.uploads == 0


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


PAIRS = list(itertools.product(DTYPES, DTYPES))
SHAPES = [((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())]
BINARY = {
    **{function.__name__: (function, function) for function in [*ARITHMETIC, *COMPARISONS]},
    **{name: (getattr(ops, name), getattr(torch, name)) for name in ("maximum", "minimum")},
    "equal": (ops.equal, torch.eq),
    "where": (
        lambda a, b: ops.where(ndl.Tensor(True, device=a.device), a, b),
        lambda a, b: torch.where(torch.tensor(True), a, b),
    ),
    "concatenate": (
        lambda a, b: ops.concatenate([a.reshape(-1), b.reshape(-1)]),
        lambda a, b: torch.cat([a.reshape(-1), b.reshape(-1)]),
    ),
    "stack": (
        lambda a, b: ops.stack([a, b], 0) if a.shape == b.shape else a,
        lambda a, b: torch.stack([a, b]) if a.shape == b.shape else a,
    ),
    "matmul": (
        lambda a, b: a.reshape((-1, 1)) @ b.reshape((1, -1)),
        lambda a, b: a.reshape(-1, 1) * b.reshape(1, -1),  # torch multiplies matrices of one dtype only
    ),
}


@pytest.mark.parametrize("name", BINARY)
def test_tensors_promote_each_other_by_torchs_rules(name, device):
    """Every pair of dtypes, with and without axes. Integers () differ: they widen, where torch cuts off their bits."""
    function, reference = BINARY[name]
    defined = 0
    for (left, right), (a_shape, b_shape) in itertools.product(PAIRS, SHAPES):
        if a_shape != b_shape and "f" not in (np.dtype(left).kind, np.dtype(right).kind):
            continue
        a = np.resize(np.array([3, 0, 1]).astype(left), a_shape)
        b = np.resize(np.array([1, 1, 0]).astype(right), b_shape)
        defined += check_like_torch(function, reference, device, a, b)
    assert defined > 100


def test_integers_without_axes_widen(device):
    x = ndl.Tensor(np.array([1, 2], "uint8"), device=device)
    y = x + ndl.Tensor(300, device=device)
    assert (y.dtype, y.numpy().tolist()) == ("int64", [301, 302])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
def test_integers_without_a_common_dtype_are_refused(dtype, device):
    signed, unsigned = (ndl.ones(2, dtype=name, device=device) for name in (dtype, "uint64"))
    for function in (ops.add, ops.maximum, lambda a, b: ops.concatenate([a, b]), ops.less):
        with pytest.raises(TypeError, match=r"dtypes must have a common integer dtype, but got u?int\d+ and u?int\d+"):
            function(signed, unsigned)
    assert (unsigned + ndl.ones(2, dtype="float16", device=device)).dtype == "float16"


UNARY = {
    **{name: getattr(torch, name) for name in ("exp", "expm1", "log", "sqrt", "tanh", "sigmoid", "abs", "sign")},
    "relu": torch.relu,
    "negate": torch.neg,
    "logsumexp": lambda x: torch.logsumexp(x, 0),
    "softmax": lambda x: torch.softmax(x.to(wide(x)), 0),
    "logsoftmax": lambda x: torch.log_softmax(x.to(wide(x)), 0),
    "softplus": lambda x: torch.nn.functional.softplus(x.to(wide(x))),
    "mean": lambda x: x.to(wide(x)).mean(),
    "summation": torch.sum,
    "max": torch.max,
    "min": torch.min,
    "argmax": torch.argmax,
}


def wide(x):
    """The dtype of floats computed from x: torch's, also in the functions that torch refuses for integers."""
    return x.dtype if x.is_floating_point() else torch.float32


@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor_have_torchs_dtypes(name, device, subtests):
    for dtype in DTYPES:
        values = np.array([100, 3, 0]).astype(dtype)
        with subtests.test(dtype):
            check_like_torch(getattr(ops, name), UNARY[name], device, values)


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "huber_loss"])
def test_losses_keep_the_dtype_of_x_beside_integers(name, device):
    x, y = (ndl.ones(2, 3, device=device, dtype="float16") for _ in range(2))
    integers = ndl.ones(2, 3, device=device, dtype="int64")
    loss = getattr(nn.functional, name)
    for other in (integers, [[0.5] * 3] * 2):
        assert loss(x, other).dtype == loss(x, y, weight=other).dtype == "float16"


# ---- nothing widens --------------------------------------------------------------------------------------------------


IN_FLOAT32 = {"cumprod", "logsoftmax", "logsumexp", "norm", "prod", "softmax", "standardize", "std", "var"}


@pytest.mark.on_cpu
@each_row(row for row in DIFFERENTIABLE if row.dtype is None and row.op != "standardize")
def test_no_op_computes_in_a_wider_dtype(row, device):
    """No value of the forward or backward graph is wider than the inputs, so nothing must be cast back.

    Except where squares of float16 would overflow or differences of it cancel, computed in float32, and in statistics,
    which are float64.
    """
    for dtype in ("float32",) if row.op in IN_FLOAT32 else ("float16", "float32"):
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
    refused = row.op in {"astype", "Correlate", "RectifiedCorrelate", "RectifiedLinear", "hypot", "norm", "std", "var"}
    refused |= row.op == "power_scalar" and row.setting.startswith("-")
    return not refused and not (row.op == "pad" and "1.5" in row.setting)


@pytest.mark.on_cpu
@each_row(row for row in DIFFERENTIABLE if takes_integers(row))
def test_integer_leaves_are_differentiable(row, device):
    """Integer inputs give the same results as floats, and gradients that are not rounded to integers."""
    values = [
        np.ceil(np.abs(to_host(array))) + 1 if drawn else to_host(array)
        for array, drawn in zip(inputs_of(row, device), row.is_drawn(), strict=True)
    ]
    integers = [device.array(value, "int64" if value.dtype.kind == "f" else None) for value in values]
    actual = run_needle(row, integers, device, "float64")
    expected = run_needle(row, [device.array(value) for value in values], device, "float64")
    for part, references in expected.items():
        for a, b in zip(actual[part], references, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5, err_msg=f"{row}: {part}")


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
def test_reductions_over_an_axis_have_torchs_dtypes(name, dtype, device):
    def reference(x):
        y = getattr(x.to(wide(x)) if name == "mean" else x, name)(0)
        return y.values if name in ("max", "min") else y

    check_like_torch(lambda x: getattr(x, name)(0), reference, device, np.array([[1, 0, 3], [2, 5, 4]]).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["equal", "not_equal", "less", "less_equal", "greater", "greater_equal"])
def test_comparisons_return_bools(name, dtype, device):
    x = ndl.Tensor(np.array([0, 1]).astype(dtype), device=device)
    assert getattr(ops, name)(x, x).dtype == "bool"
