"""gradcheck itself: it accepts right derivatives and reports wrong ones, with the index and both values."""

from __future__ import annotations

import re

import numpy as np
import pytest

import needle as ndl
from needle import Tensor, gradcheck, ops
from needle.autograd import TensorOp, TensorTupleOp

pytestmark = pytest.mark.usefixtures("on_device")


class Product(TensorOp):
    """a * b; the gradient of a is multiplied by `factor`."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def compute(self, a, b):
        return a * b

    def gradient(self, out_grad, node):
        a, b = node.inputs
        return out_grad * b * self.factor, out_grad * a


class WrongElement(TensorOp):
    """x * x, with a gradient that is wrong at one index."""

    def __init__(self, index):
        self.index = index

    def compute(self, x):
        return x * x

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        wrong = np.ones(x.shape)
        wrong[self.index] = 1.001
        return out_grad * x * 2 * Tensor(wrong, requires_grad=False)


class WrongSlope(TensorOp):
    """x ** 3, with a right gradient and a wrong second derivative."""

    def compute(self, x):
        return x * x * x

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return out_grad * Product(1.001)(x, x) * 3


class Severed(TensorOp):
    """x * x, with a right gradient that is a constant: its graph is cut."""

    def compute(self, x):
        return x * x

    def gradient(self, out_grad, node):
        return out_grad * node.inputs[0].detach() * 2


class Parts(TensorTupleOp):
    """(x * x, x * 3); the gradient of the second part is multiplied by `factor`."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def compute(self, x):
        return x * x, x * 3.0

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return out_grad[0] * x * 2 + out_grad[1] * (3 * self.factor)


def draw(*shape):
    """A random tensor of values away from 0, of both signs."""
    return Tensor(np.random.uniform(0.5, 2, shape) * np.random.choice([-1.0, 1.0], shape))


def complaint(function, *inputs, **options):
    """The fields of the error message: (op, order, input, shape, index), and both values."""
    with pytest.raises(AssertionError) as caught:
        gradcheck(function, *inputs, **options)
    pattern = (
        r"gradcheck: (.+) has a wrong derivative of order (\d) in input (\d) of shape (\(.*\)): "
        r"at index (\(.*\)) backward gives (\S+), but differences give (\S+)"
    )
    match = re.fullmatch(pattern, str(caught.value))
    assert match, str(caught.value)
    op, order, position, shape, index, computed, expected = match.groups()
    where = (op, int(order), int(position), shape, tuple(int(i) for i in re.findall(r"\d+", index)))
    return where, float(computed), float(expected)


# ---- right derivatives pass ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda x: x * x * x, [(3,)]),
        (lambda x, y: x * y, [(2, 3), (3,)]),
        (lambda x, y: x @ y, [(2, 3), (3, 4)]),
        (lambda x: ops.tanh(x), [(2, 3)]),
        (lambda x: x.sum(), [(2, 3)]),
        (lambda x: x, [(2, 3)]),
        (lambda x: x * 1.0, [()]),
        (lambda x: x * x, [(0, 3)]),
        (lambda x: ops.relu(x), [(2, 3)]),
        (Product(), [(3,), (3,)]),
        (Parts(), [(3,)]),
        (lambda x: ops.split(x * x), [(2, 3)]),
        (lambda x: ops.make_tuple(x * x, x.sum()), [(2, 3)]),
    ],
)
def test_right_gradients_pass(function, shapes, order):
    assert gradcheck(function, *(draw(*shape) for shape in shapes), order=order) is True


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_right_gradients_pass_at_every_scale(scale):
    assert gradcheck(lambda x: x * x * scale, draw(4, 5))


def test_the_gradient_may_be_zero():
    assert gradcheck(lambda x: x * 0, draw(3))
    assert gradcheck(lambda x: ops.sign(x), draw(3))
    assert gradcheck(lambda x, y: x * x, draw(3), draw(3))


def test_gradcheck_leaves_no_trace():
    x, y = draw(3), draw(3)
    x.grad, before = y, x.numpy()
    state = np.random.get_state()
    gradcheck(lambda x, y: x * y, x, y)
    np.testing.assert_equal(np.random.get_state(), state)
    assert x.grad is y
    assert y.grad is None
    assert x.numpy().tolist() == before.tolist()


def test_inputs_may_be_results():
    x = draw(3)
    assert gradcheck(lambda x: x * x, x * 2)
    assert x.grad is None


# ---- wrong derivatives fail ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.001, 0.999, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("order", [1, 2])
def test_a_wrong_factor_is_found(factor, order):
    a, b = draw(3), draw(3)
    where, computed, difference = complaint(Product(factor), a, b, order=order)
    assert where[:4] == (f"Product(factor={factor})", 1, 0, "(3,)")
    assert computed == pytest.approx(factor * difference, rel=1e-7)
    weight = abs(difference / b.numpy()[where[4]])
    assert 0.5 <= weight <= 1.5  # of the random projection


def test_the_wrong_input_is_named():
    where, _, _ = complaint(lambda x, y, z: Product(1.001)(y, z) + x, draw(3), draw(3), draw(3), order=1)
    assert where[1:3] == (1, 1)


@pytest.mark.parametrize("index", [(0, 0), (1, 2), (2, 3)])
def test_one_wrong_element_is_found_and_named(index):
    where, computed, difference = complaint(WrongElement(index), draw(3, 4))
    assert where == (f"WrongElement(index={index})", 1, 0, "(3, 4)", index)
    assert computed == pytest.approx(1.001 * difference, rel=1e-7)


def test_one_wrong_element_of_many_is_found():
    where, _, _ = complaint(WrongElement((17, 5)), draw(20, 30))
    assert where[4] == (17, 5)


def test_a_wrong_second_derivative_is_found():
    x = draw(3)
    assert gradcheck(WrongSlope(), x, order=1)
    where, computed, difference = complaint(WrongSlope(), x)
    assert where[:4] == ("WrongSlope()", 2, 0, "(3,)")
    assert computed == pytest.approx(1.0005 * difference, rel=1e-7)  # one of the two equal terms is too large


def test_a_gradient_without_a_graph_is_found():
    assert gradcheck(Severed(), draw(3), order=1)
    where, computed, difference = complaint(Severed(), draw(3))
    assert where[:4] == ("Severed()", 2, 0, "(3,)")
    assert computed == 0
    assert abs(difference) > 0.1


def test_a_missing_gradient_is_found():
    where, computed, _ = complaint(lambda x: x * x.detach(), draw(3))
    assert where[:3] == ("EWiseMul()", 1, 0)
    assert computed != 0
    where, computed, _ = complaint(lambda x: x.detach() * 2, draw(3))
    assert computed == 0


def test_a_wrong_part_of_a_tuple_is_found():
    where, _, _ = complaint(Parts(1.001), draw(2))
    assert where[:3] == ("Parts(factor=1.001)", 1, 0)


def test_a_gradient_that_is_not_a_number_is_found():
    class Lost(WrongElement):
        def gradient(self, out_grad, node):
            wrong = np.zeros(node.shape)
            wrong[self.index] = np.nan
            return super().gradient(out_grad, node) + Tensor(wrong, requires_grad=False)

    where, computed, difference = complaint(Lost((1, 2)), draw(3, 4))
    assert where[4] == (1, 2)
    assert np.isnan(computed)
    assert np.isfinite(difference)


def test_the_last_op_is_named():
    where, _, _ = complaint(lambda x: Product(1.01)(x, x).sum(), draw(3))
    assert where[0] == "Summation(axes=(0,), keepdims=False)"


def test_the_tolerance_can_be_chosen():
    a, b = draw(3), draw(3)
    assert gradcheck(Product(1.001), a, b, rtol=1e-2)
    assert gradcheck(Product(1.001), a, b, atol=1.0)
    complaint(Product(1.00001), a, b, rtol=1e-7)


# ---- constants and bad input -----------------------------------------------------------------------------------------


def test_constants_are_left_alone():
    constant = Tensor([1, 2, 3], requires_grad=False)
    seen = []

    def function(x, y):
        seen.append((y.numpy().tolist(), y.requires_grad, y.dtype))
        return x * x * y

    assert gradcheck(function, draw(3), constant)
    assert seen == [([1, 2, 3], False, "int64")] * len(seen)
    assert constant.grad is None
    # Gradients of constants are not checked.
    assert gradcheck(Product(7.0), Tensor(np.ones(3), requires_grad=False), draw(3))
    assert gradcheck(lambda x, y: ops.where(y, x * x, x), draw(3), Tensor([True, False, True], requires_grad=False))
    assert gradcheck(lambda x, y: x * y, draw(3), Tensor(np.ones(3, "float32"), requires_grad=False))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_other_dtypes_are_refused(dtype):
    x = Tensor([1, 2], dtype=dtype)
    with pytest.raises(TypeError, match=f"^gradcheck: inputs must be of float64, but input 1 is of {dtype}$"):
        gradcheck(lambda x, y: x * y, draw(2), x)


@pytest.mark.parametrize("value", [1.0, np.ones(2), None])
def test_inputs_must_be_tensors(value):
    message = f"^gradcheck: inputs must be tensors, but input 1 is {type(value).__name__}$"
    with pytest.raises(TypeError, match=message):
        gradcheck(lambda x, y: x * y, draw(2), value)


def test_at_least_one_input_must_require_grad():
    for inputs in ((), (draw(2).detach(),)):
        with pytest.raises(ValueError, match=r"^gradcheck: at least one input must require grad, but none does$"):
            gradcheck(lambda *inputs: inputs[0], *inputs)


def test_gradcheck_works_on_networks():
    image, weight = draw(2, 3, 5, 5), draw(4, 3, 3, 3)
    assert gradcheck(lambda x, w: ndl.tanh(ndl.conv2d(x, w, padding=1)), image, weight)
