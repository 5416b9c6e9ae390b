"""The everyday forms of torch and NumPy: the table of docs/from_pytorch.md, line by line, and what is not in it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import needle as ndl
from needle import nn

PAGE = Path(ndl.__file__).resolve().parent.parent / "docs/from_pytorch.md"
DRAWS = np.random.default_rng(0)
VALUES = {
    "x": DRAWS.random((2, 3, 4), "float32"),
    "y": DRAWS.random((2, 3, 4), "float32"),
    "m": DRAWS.random((4, 6), "float32"),
    "i": np.array([1, 0]),
}


def forms():
    """(a form, the course's form) of the table."""
    (table,) = re.findall(r"<!-- forms.*? -->\n(.*?)<!-- end -->", PAGE.read_text("utf-8"), re.S)
    for line in table.splitlines()[2:]:
        cells = re.split(r" \| ", line.strip("| "))
        (ours,) = re.findall(r"`([^`]+)`", cells[1])
        for form in re.findall(r"`([^`]+)`", cells[0]):
            yield form, ours


def evaluate(form, library):
    tensors = {name: library.tensor(array) for name, array in VALUES.items()}
    return plain(eval(form, {"ndl": library, **tensors}))


def plain(value):
    """A result as a list [shape, dtype, values] for each tensor; other results as they are."""
    if isinstance(value, (ndl.Tensor, torch.Tensor)):
        return [tuple(value.shape), str(value.dtype).removeprefix("torch."), value.detach().numpy().astype(float)]
    if isinstance(value, (tuple, ndl.TensorTuple)) and isinstance(next(iter(value), None), (ndl.Tensor, torch.Tensor)):
        return [plain(part) for part in value]
    return value


def assert_alike(actual, expected):
    if isinstance(expected, np.ndarray):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    elif isinstance(expected, (list, tuple)):
        assert len(actual) == len(expected)
        for part, other in zip(actual, expected, strict=True):
            assert_alike(part, other)
    else:
        assert actual == (pytest.approx(expected) if isinstance(expected, float) else expected)


def test_the_table_has_many_forms():
    assert len(list(forms())) > 120


@pytest.mark.parametrize(("form", "ours"), list(forms()), ids=lambda form: form.replace(" ", ""))
def test_a_form_means_the_course_s_and_torch_s(form, ours):
    actual = evaluate(form, ndl)
    assert_alike(actual, evaluate(ours, ndl))
    try:
        with warnings.catch_warnings(action="ignore"):
            expected = evaluate(form, torch)
    except (AttributeError, TypeError):  # NumPy's or Keras'
        return
    assert_alike(actual, expected)


@pytest.mark.parametrize(("count", "axis"), [(1, 0), (2, 0), (3, 1), (5, -1), (7, 1)])
def test_chunks_are_those_of_torch_and_differentiable(count, axis):
    for shape in ((2, 5), (0, 2), (4, 3)):
        array = DRAWS.normal(size=shape)
        expected = torch.chunk(torch.tensor(array), count, axis)
        assert_alike(plain(ndl.chunk(ndl.Tensor(array), count, axis)), plain(expected))
    assert ndl.gradcheck(lambda x: ndl.chunk(x, count, axis), ndl.Tensor(array))
    assert ndl.gradcheck(lambda x: x.split([1, 3]), ndl.Tensor(array))


# ---- gradients -------------------------------------------------------------------------------------------------------


def test_grad_is_that_of_torch():
    def gradients(library, x, w):
        y = library.tanh(x @ w)
        z = (y * y).sum()
        return library.autograd.grad(z, [w, y, x]) if library is torch else library.grad(z, [w, y, x])

    arrays = [DRAWS.normal(size=shape) for shape in ((5, 3), (3, 2))]
    ours = [ndl.Tensor(array) for array in arrays]
    theirs = [torch.tensor(array, requires_grad=True) for array in arrays]
    for actual, expected in zip(gradients(ndl, *ours), gradients(torch, *theirs), strict=True):
        np.testing.assert_allclose(actual.numpy(), expected.numpy(), rtol=1e-12)
        assert not actual.requires_grad
    assert ours[0].grad is None
    assert ours[1].grad is None


def test_grad_of_several_outputs_with_weights_and_a_graph():
    x, w = ndl.Tensor([1.0, 2.0]), ndl.Tensor([3.0, 4.0])
    weight = ndl.Tensor([10.0, 1.0])
    (both,) = ndl.grad([x * x, x * w], x, [weight, None])
    assert both.numpy().tolist() == [23, 8]
    (first,) = ndl.grad((x**3).sum(), x, create_graph=True)
    (second,) = ndl.grad(first.sum(), x)
    assert second.numpy().tolist() == [6, 12]
    assert ndl.grad((x * x).sum(), [x, w], allow_unused=True)[1] is None
    assert ndl.grad((x * x).sum(), (x, x))[1].numpy().tolist() == [2, 4]
    y = x * x
    ndl.grad(y.sum(), x, retain_graph=True)
    ndl.grad(y.sum(), x)
    with pytest.raises(RuntimeError, match="an earlier backward released"):
        ndl.grad(y.sum(), x)


def test_no_grad_decorates_with_and_without_parentheses():
    x = ndl.Tensor([1.0])

    @ndl.no_grad
    def bare(x):
        """Twice."""
        return x * 2

    @ndl.no_grad()
    def called(x):
        return x * 2

    for function in (bare, called):
        for _ in range(2):
            assert not function(x).requires_grad
    assert bare.__doc__ == "Twice."
    assert (x * 2).requires_grad
    with ndl.no_grad(), ndl.enable_grad():
        assert (x * 2).requires_grad


def test_requires_grad_is_set_on_leaves():
    x = ndl.ones(2)
    assert x.requires_grad_() is x
    assert x.requires_grad
    assert not x.requires_grad_(False).requires_grad


# ---- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["x.fill_(3)", "x.zero_()", "x.copy_(y)", "x.add_(y)", "x.sub_(2)", "x.mul_(y)", "x.div_(y)", "x.add_(y).mul_(2)"],
)
def test_methods_that_write(line):
    results = []
    for library in (ndl, torch):
        tensors = {name: library.tensor([1.0, 2.0]) * k for name, k in (("x", 1), ("y", 3))}
        assert eval(line, tensors) is tensors["x"]
        results.append(tensors["x"].tolist())
    assert results[0] == results[1]
    weight = nn.Parameter(ndl.ones(2))
    with pytest.raises(RuntimeError, match=r"^setitem: x\[index\] = value must run under no_grad"):
        eval(line, {"x": weight, "y": ndl.ones(2)})


# ---- making tensors --------------------------------------------------------------------------------------------------


def test_tensor_is_torch_s():
    for data in ([1.0, 2.0], 3.5, [[1, 2]], True, [[True], [False]], np.ones(2), np.ones(2, "float32"), np.int8(3)):
        actual, expected = ndl.tensor(data), torch.tensor(data)
        assert_alike(plain(actual), plain(expected))
        assert not actual.requires_grad
    assert ndl.tensor([1.0], requires_grad=True).requires_grad
    assert ndl.tensor([1.0], dtype=ndl.float64).dtype == "float64"
    assert ndl.tensor(ndl.ones(2, dtype="float64")).dtype == "float64"


@pytest.mark.parametrize("make", [ndl.zeros, ndl.ones, ndl.rand, ndl.randn, ndl.init.randb, ndl.init.constant])
def test_a_shape_may_be_a_tuple(make):
    for shape in ((2, 3), [2, 3], (), (0, 2)):
        assert make(shape).shape == make(*shape).shape == tuple(shape)
    with pytest.raises(TypeError, match="shape must be an integer"):
        make((2, 3), 4)


def test_random_integers():
    ndl.manual_seed(0)
    draws = ndl.randint(3, 7, (1000,))
    assert (sorted({*draws.tolist()}), draws.dtype) == ([3, 4, 5, 6], "int64")
    assert {*ndl.randint(2, (50,)).tolist()} == {0, 1}
    assert ndl.randint(5).shape == ()
    assert sorted(ndl.randperm(6).tolist()) == [0, 1, 2, 3, 4, 5]


def test_allclose():
    x = ndl.tensor([1.0, np.nan, np.inf])
    assert not ndl.allclose(x, x)
    assert ndl.allclose(x, x, equal_nan=True)
    assert ndl.allclose([1.0, 2.0], ndl.tensor([1.0, 2.00001]))
    assert not ndl.allclose([1.0, 2.0], ndl.tensor([1.0, 2.1]))
    assert ndl.allclose(x[:1], 1)
    assert ndl.allclose([0.0], [0.5], atol=0.5)


def test_numpy_arrays_may_be_shared():
    array = np.zeros(2, "float32")
    x = ndl.from_numpy(array)
    array[0] = 5
    assert x.tolist() == [5, 0]
