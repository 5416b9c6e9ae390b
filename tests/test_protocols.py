"""Tensors in Python's own protocols: comparison, containers, formatting, indexing, assignment; torch is the oracle."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest
import torch

import needle as ndl
from needle import Tensor, gradcheck, nn

pytestmark = pytest.mark.usefixtures("on_device")


def values(tensor):
    return tensor.numpy().tolist()


# ---- comparison and hashing ------------------------------------------------------------------------------------------


def test_equality_is_by_element_with_tensors_arrays_lists_and_numbers():
    x = Tensor([1.0, 2.0, np.nan], device=ndl.cpu())
    host = np.array([1.0, 3.0, np.nan])
    for other in (host, Tensor(host, device=ndl.cpu()), host.tolist(), ndl.NDArray(host, device=ndl.cpu())):
        for equal, different in ((x == other, x != other), (other == x, other != x)):
            assert values(equal) == [True, False, False]
            assert values(different) == [False, True, True]
            assert not equal.requires_grad
    for two in (2, 2.0, np.float32(2), np.int64(2), np.array(2.0)):
        assert values(x == two) == values(two == x) == [False, True, False]


def test_an_accuracy_is_right_for_tensors_and_for_arrays():
    scores, labels = Tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]), np.array([1, 1, 1])
    hits = scores.argmax(1) == Tensor(labels)
    assert hits.mean().item() == pytest.approx(2 / 3)
    if ndl.default_device() == ndl.cpu():
        assert (labels != scores.argmax(1)).mean().item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("other", [None, "a", b"1", object(), [1, [2, 3]], 1j])
def test_what_is_no_array_equals_no_tensor(other):
    x = Tensor([1.0, 2.0])
    assert (x == other) is False
    assert (other == x) is False
    assert (x != other) is True


def test_shapes_that_do_not_broadcast_are_refused_and_devices_are_not_mixed():
    for compare in (operator.eq, operator.ne):
        with pytest.raises(ValueError, match="shapes must broadcast"):
            compare(Tensor([1.0, 2.0]), Tensor([1.0, 2.0, 3.0]))
        with pytest.raises(ValueError, match="must have one element"):
            bool(compare(Tensor([1.0, 2.0]), Tensor([1.0, 2.0])))


def test_hash_and_keys_are_by_identity():
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    assert {x: 1, y: 2}[y] == 2
    assert len({x, y, x}) == 2
    assert x in {x}
    assert y not in {x}
    weight = nn.Parameter(ndl.ones(2))
    assert len({weight, nn.Parameter(weight), weight}) == 2


def test_tuples_of_tensors_compare_as_python_s_tuples():
    x, y = Tensor([1.0, 2.0]), Tensor([1.0, 2.0])
    pair = ndl.make_tuple(x, y)
    assert pair == ndl.make_tuple(x, y)
    assert pair == (x, y)
    assert pair != (x, y, x)
    assert pair != [x, y]
    assert hash(pair) != hash(ndl.make_tuple(x, y))
    assert ndl.split(Tensor([1.0, 2.0])) == ndl.split(Tensor([1.0, 2.0]))
    assert ndl.split(Tensor([1.0, 2.0])) != ndl.split(Tensor([1.0, 3.0]))
    with pytest.raises(ValueError, match="must have one element"):
        _ = pair == (y, x)


# ---- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("element", [2, 5, 2.0, [1, 2], [9, 4]])
def test_in_asks_whether_an_element_is_equal(element):
    array = np.array([[1, 2], [3, 4]])
    expected = torch.tensor(element) in torch.tensor(array)
    assert (element in Tensor(array)) is expected
    assert (Tensor(element) in Tensor(array)) is expected
    assert element not in Tensor(np.zeros((0, 2), "int64"))


def test_in_refuses_what_is_no_array():
    with pytest.raises(TypeError, match=r"^equal: operands must be"):
        "a" in Tensor([1.0])  # noqa: B015


def test_a_tensor_of_one_integer_is_an_index():
    three = Tensor(3)
    assert list(range(three)) == [0, 1, 2]
    assert "abcde"[three] == "d"
    assert values(Tensor(np.arange(5))[:three]) == [0, 1, 2]
    assert hex(three) == "0x3"
    assert np.arange(5)[Tensor([3], device=ndl.cpu(), requires_grad=False)].tolist() == [3]  # an array of one index


@pytest.mark.parametrize("number", [2.5, -3, True])
def test_one_element_converts_and_prints_as_a_number(number):
    x, twin = Tensor(number), torch.tensor(number)
    assert complex(x) == complex(twin)
    assert (float(x), int(x), bool(x)) == (float(twin), int(twin), bool(twin))
    for spec in (".4f", "8.2f", "+.1e", "g"):
        assert format(x, spec) == format(twin, spec)
        assert format(Tensor([[number]]), spec) == format(twin, spec)
    assert f"{x}" == str(x)


def test_only_one_element_takes_a_format():
    with pytest.raises(ValueError, match=r"^item: the tensor must have one element, but got shape \(2,\)$"):
        f"{Tensor([1.0, 2.0]):.4f}"
    assert f"{ndl.ones(2)}" == "Tensor([1. 1.])"


def test_python_s_functions_over_tensors():
    x = Tensor([3.0, 1.0, 2.0])
    assert float(sum(x)) == 6
    assert float(max(x)) == 3
    assert [float(row) for row in sorted(x)] == [1, 2, 3]
    assert [float(row) for row in reversed(x)] == [2, 1, 3]
    assert +x is x
    assert abs(-x) is not x


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_containers_keep_what_is_shared(duplicate):
    x = Tensor([1.0])
    first, second = duplicate((x, x))
    assert first is second


# ---- assignment ------------------------------------------------------------------------------------------------------

INDICES = {
    "integer": 1,
    "slice": slice(1, None),
    "ellipsis": (..., 0),
    "None": (None, 0),
    "list": [0, 2, 0],
    "mask": np.array([True, False, True]),
    "pair": (np.array([0, 2]), np.array([1, 0])),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
@pytest.mark.parametrize("value", [7, 2.5, np.float64(3)])
def test_items_are_assigned_as_in_numpy(index, value):
    array = np.arange(6.0).reshape(3, 2)
    x = ndl.Tensor(array, requires_grad=False)
    x[index] = value
    array[index] = value
    assert values(x) == array.tolist()
    x[index] = Tensor(np.full(array[index].shape, 9), requires_grad=False)
    array[index] = 9
    assert values(x) == array.tolist()
    assert x.dtype == "float64"


def test_leading_axes_of_size_1_do_not_count():
    x = ndl.zeros(2, 3)
    x[0] = np.ones((1, 1, 3))
    assert values(x) == [[1, 1, 1], [0, 0, 0]]


def test_a_parameter_is_assigned_under_no_grad_and_views_follow():
    weight = nn.Parameter(ndl.zeros(2, 3))
    row = weight[0]
    with ndl.no_grad():
        weight[:, 1] = 5
        row[0] = 7
    assert values(weight) == [[7, 5, 0], [0, 5, 0]]
    assert weight.is_leaf()
    assert weight.requires_grad


def test_backward_refuses_values_that_an_assignment_changed():
    x = Tensor([1.0, 2.0])
    y = (x * x).sum()
    with ndl.no_grad():
        x[0] = 3
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.backward()


def test_a_refused_assignment_changes_nothing():
    x = Tensor([1.0, 2.0])
    y = (x * x).sum()
    for index, value in ((0, [1.0, 2.0, 3.0]), (9, 1.0), (0, "a"), (1.5, 0.0)):
        with ndl.no_grad(), pytest.raises((ValueError, IndexError, TypeError)):
            x[index] = value
    y.backward()
    assert values(x.grad) == [2, 4]


@pytest.mark.parametrize("symbol", ["+", "-", "*", "/", "//", "%", "**"])
def test_augmented_assignment_under_no_grad_updates_a_parameter(symbol):
    weight, twin = nn.Parameter(ndl.ones(2) * 3), torch.nn.Parameter(torch.ones(2) * 3)
    step, torch_step = ndl.ones(2) * 2, torch.ones(2) * 2
    for scope, names in (
        (ndl.no_grad(), {"w": weight, "step": step}),
        (torch.no_grad(), {"w": twin, "step": torch_step}),
    ):
        with scope:
            exec(f"w {symbol}= step", names)
    assert weight.requires_grad
    assert values(weight) == twin.tolist()


def test_augmented_assignment_elsewhere_names_a_new_tensor():
    x = start = Tensor([1.0, 2.0])
    x += 1
    assert values(start) == [1, 2]
    x.sum().backward()
    assert values(start.grad) == [1, 1]


# ---- gradcheck -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collect", [tuple, list, lambda parts: ndl.make_tuple(*parts)])
def test_gradcheck_takes_functions_of_several_results(collect):
    x = Tensor([0.5, 2.0])
    assert gradcheck(lambda x: collect([x * x, ndl.exp(x)]), x)
    assert gradcheck(lambda x: collect([x * x, x.argmax(0)]), x)
    with pytest.raises(AssertionError, match="wrong derivative of order 1"):
        gradcheck(lambda x: collect([x * x, x.detach() * x]), x)


@pytest.mark.parametrize("result", [1.0, (1.0,), None, np.ones(2)])
def test_gradcheck_names_a_result_that_is_no_tensor(result):
    with pytest.raises(TypeError, match=r"^gradcheck: each result of f must be a Tensor, but got "):
        gradcheck(lambda x: result, Tensor([1.0]))


# ---- operators with NumPy on either side -----------------------------------------------------------------------------

FLOATS, INTEGERS, BOOLS = np.array([1.5, 2.5]), np.array([1, 2]), np.array([True, False])
OPERATORS = {
    **dict.fromkeys(("add", "mul", "eq", "ne", "lt", "le", "gt", "ge"), (FLOATS, INTEGERS, BOOLS)),
    **dict.fromkeys(("sub", "truediv", "floordiv", "mod", "pow"), (FLOATS, INTEGERS)),
    **dict.fromkeys(("and_", "or_", "xor"), (INTEGERS, BOOLS)),
    "matmul": (FLOATS, INTEGERS),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_arrays_scalars_lists_and_numbers_stand_on_either_side_of_an_operator(name):
    function = getattr(operator, name)
    for array in OPERATORS[name]:
        x = ndl.tensor(array, device=ndl.cpu())
        others = [array, array.tolist(), ndl.NDArray(array, device=ndl.cpu())]
        if name != "matmul":
            others += [array[1], array[1].item(), np.array(array[1])]
        for other in others:
            host = np.asarray(other.numpy() if isinstance(other, ndl.NDArray) else other)
            for result, expected in (
                (function(x, other), function(array, host)),
                (function(other, x), function(host, array)),
            ):
                assert isinstance(result, Tensor)
                np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)
