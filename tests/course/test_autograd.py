"""The behavior of tensors, graph and counter that the course's homeworks rely on."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import needle as ndl
from needle import autograd, nn
from needle import backend_ndarray as nd
from needle.autograd import Tensor, find_topo_sort


def normal(*shape, dtype="float64"):
    return np.random.default_rng(shape).normal(size=shape).astype(dtype)


def tensor(array, device, **options):
    return Tensor(array, device=device, **options)


# ---- tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.ones((2, 3)), "float64", (2, 3)),
        (np.ones((2, 3), "float32"), "float32", (2, 3)),
        (1.5, "float64", ()),
        ([1.0, 2.0], "float64", (2,)),
        ([[1.0], [2.0]], "float64", (2, 1)),
        ([6], "int64", (1,)),
        (np.float32(2), "float32", ()),
        (np.float64(2), "float64", ()),
        (np.int64(3), "int64", ()),
        (np.array(2.0), "float64", ()),
        (np.array([1, 2.5], object), "float64", (2,)),
    ],
)
def test_a_tensor_keeps_the_dtype_that_numpy_finds(array, dtype, shape, device):
    x = tensor(array, device)
    assert (x.dtype, x.shape, x.device) == (dtype, shape, device)
    assert type(x.numpy()) is np.ndarray
    assert_array_equal(x.numpy(), np.asarray(array, dtype))


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
def test_a_dtype_may_be_spelled_in_three_ways(dtype, device):
    for x in (
        tensor([1.0], device, dtype=dtype),
        ndl.init.ones(2, device=device, dtype=dtype),
        tensor(tensor([1.0], device), device, dtype=dtype),
    ):
        assert x.dtype == "float32"


def test_a_tensor_is_made_of_tensors_and_ndarrays(device):
    values = normal(2, 3)
    for array in (tensor(values, device), nd.NDArray(values, device)):
        for x in (Tensor(array), tensor(array, device), tensor(array, device, dtype="float32")):
            assert x.is_leaf()
            assert x.inputs in ((), [])
            assert_allclose(x.numpy(), values, rtol=1e-6)
        assert Tensor(array).device == device
        assert tensor(array, ndl.cpu()).device == ndl.cpu()


def test_a_tensor_copies(device):
    array = np.zeros(3)
    x = tensor(array, device)
    other = tensor(x, device)
    array[:] = 1
    assert x.numpy().tolist() == [0, 0, 0]
    other.cached_data.fill(2)
    assert x.numpy().tolist() == [0, 0, 0]


def test_which_tensors_require_a_gradient(device):
    assert tensor([1.0], device).requires_grad is True
    assert tensor([1.0], device, requires_grad=False).requires_grad is False
    assert ndl.init.ones(2, device=device).requires_grad is False
    assert nn.Linear(2, 2, device=device).weight.requires_grad is True
    assert Tensor.make_const(nd.NDArray([1.0], device)).requires_grad is False
    x = ndl.init.ones(2, device=device)
    x.requires_grad = True
    (x * 3).backward()
    assert x.grad.numpy().tolist() == [3, 3]


def test_a_tensor_s_attributes(device):
    a, b = tensor(normal(2, 3), device), tensor(normal(2, 3), device)
    y = a * b
    assert a.is_leaf()
    assert a.op is None
    assert a.grad is None
    assert not y.is_leaf()
    assert tuple(y.inputs) == (a, b)
    assert isinstance(y.op, ndl.ops.EWiseMul)
    assert isinstance(y.cached_data, nd.NDArray)
    assert isinstance(y.realize_cached_data(), nd.NDArray)
    again = Tensor.make_from_op(y.op, [a, b])
    assert_array_equal(again.numpy(), y.numpy())
    assert tuple(again.inputs) == (a, b)
    detached = y.detach()
    assert detached.is_leaf()
    assert not detached.requires_grad
    assert_array_equal(detached.numpy(), y.numpy())


def test_every_result_is_on_the_device_of_its_inputs(device):
    x = tensor(normal(2, 3), device)
    for y in (x + 1, x @ ndl.transpose(x), x.sum(), ndl.logsumexp(x, 1), ndl.split(x, 0), ndl.stack([x, x], 0)):
        assert y.device == device
    y.backward()
    assert x.grad.device == device


def test_tensors_are_hashed_by_identity(device):
    x, y = tensor([1.0, 2.0], device), tensor([1.0, 2.0], device)
    assert (x, x) == (x, x)
    assert {x: 1, y: 2}[x] == 1
    assert len({x, y, x}) == 2


def test_methods(device):
    array = normal(2, 3)
    x = tensor(array, device)
    for actual, expected in (
        (x.sum(), array.sum()),
        (x.sum(axes=(1,)), array.sum(1)),
        (x.broadcast_to((4, 2, 3)), np.broadcast_to(array, (4, 2, 3))),
        (x.reshape((3, 2)), array.reshape(3, 2)),
        (x.transpose(), array.T),
        (x.transpose(axes=(0, 1)), array.T),
        (x.matmul(tensor(array.T, device)), array @ array.T),
        (x @ tensor(array.T, device), array @ array.T),
        (-x, -array),
        (2 + x, 2 + array),
        (x**2, array**2),
    ):
        assert actual.shape == expected.shape
        assert_allclose(actual.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("total", [ndl.summation, lambda x: x.sum()])
def test_a_full_sum_has_no_axis(total, device):
    y = total(tensor(normal(2, 3), device))
    assert y.shape == y.numpy().shape == ()
    assert np.array((y.numpy(), 0.5)).shape == (2,)
    assert float(y.numpy()) == y.numpy()


# ---- data ------------------------------------------------------------------------------------------------------------


def test_data_shares_and_is_no_part_of_the_graph(device):
    x = tensor([1.0, 2.0], device)
    y = x * 3
    assert y.data.is_leaf()
    assert not y.data.requires_grad
    x.data.cached_data.fill(5)
    assert x.numpy().tolist() == [5, 5]


def test_data_takes_another_shape_of_the_same_dtype(device):
    bias = nn.Parameter(ndl.init.zeros(1, 3, device=device))
    bias.data = tensor(np.arange(3, dtype="float32"), device)
    assert bias.shape == (3,)
    assert bias.numpy().tolist() == [0, 1, 2]
    assert isinstance(bias, nn.Parameter)
    with pytest.raises((AssertionError, TypeError), match="dtype"):
        bias.data = tensor(np.zeros(3), device)
    assert bias.numpy().tolist() == [0, 1, 2]


def test_data_takes_a_result_without_its_graph(device):
    x = tensor([1.0, 2.0], device)
    x.data = x.data - 0.5 * x.data
    assert x.is_leaf()
    assert x.numpy().tolist() == [0.5, 1]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 1)])
def test_a_step_in_flat_is_seen_by_the_next_forward_pass(shape, device):
    """Central differences as the homeworks take them: in place, element by element."""
    x = tensor(normal(*shape), device)
    ndl.exp(x).sum().backward()
    for j in range(x.realize_cached_data().size):
        x.realize_cached_data().flat[j] += 1e-4
        above = float(ndl.exp(x).sum().numpy())
        x.realize_cached_data().flat[j] -= 2e-4
        below = float(ndl.exp(x).sum().numpy())
        x.realize_cached_data().flat[j] += 1e-4
        assert abs((above - below) / 2e-4 - x.grad.numpy().ravel()[j]) < 1e-6
    assert float(x.cached_data.flat[0] + 1.0) == pytest.approx(x.numpy().ravel()[0] + 1)


def test_cached_data_acts_as_an_array_of_numpy(device):
    array = np.arange(6.0).reshape(3, 2)
    data = tensor(array, device).cached_data
    np.testing.assert_allclose(data, array)
    assert_array_equal(np.array(data), array)
    assert [part.shape for part in np.array_split(data, 2)] == [(2, 2), (1, 2)]
    assert_array_equal(np.array_split(data, [1])[1], array[1:])
    assert data.astype(np.uint8).numpy().tolist() == array.astype("uint8").tolist()
    assert (data.shape, data.size, data.ndim) == ((3, 2), 6, 2)
    assert_array_equal(tensor(data, device).numpy(), array)


# ---- the graph -------------------------------------------------------------------------------------------------------


def test_topological_order_of_a_polynomial(device):
    a, b = tensor([[0.5]], device), tensor([[0.25]], device)
    order = find_topo_sort([3 * a * a + 4 * b * a - a])
    expected = [0.5, 1.5, 0.75, 0.25, 1, 0.5, 1.25, -0.5, 0.75]
    assert [float(node.numpy().item()) for node in order] == expected
    assert [node for node in order if node.is_leaf()] == [a, b]


def test_topological_order_of_products_of_matrices(device):
    array_a, array_b = normal(2, 2), normal(1, 2, 2)[0]
    a, b = tensor(array_a, device), tensor(array_b, device)
    order = find_topo_sort([3 * ((b @ a) + (2.3412 * b) @ a) + 1.5])
    product, scaled = array_b @ array_a, 2.3412 * array_b
    total = product + scaled @ array_a
    expected = [array_b, array_a, product, scaled, scaled @ array_a, total, 3 * total, 3 * total + 1.5]
    assert len(order) == len(expected)
    for node, array in zip(order, expected, strict=True):
        assert_allclose(node.numpy(), array, rtol=1e-12)


def test_topological_order_below_several_values_has_each_once(device):
    a = tensor([1.0], device)
    y, z = a + a, a * 2
    assert list(find_topo_sort([y, z, y])) == [a, y, z]
    assert list(find_topo_sort([z, y])) == [a, z, y]


@pytest.mark.parametrize("s", [2, 0.5, np.float32(2), np.float64(0.5), np.int64(2)], ids=repr)
@pytest.mark.parametrize(
    "expression",
    [
        lambda s, x: s * x,
        lambda s, x: x * s,
        lambda s, x: x + s,
        lambda s, x: s + x,
        lambda s, x: x - s,
        lambda s, x: x / s,
        lambda s, x: x**s,
    ],
)
def test_an_expression_with_a_scalar_is_one_node(expression, s, device):
    array = np.abs(normal(2, 3)) + 0.1
    x = tensor(array, device)
    y = expression(s, x)
    assert tuple(y.inputs) == (x,)
    assert_allclose(y.numpy(), expression(float(s), array), rtol=1e-12)


@pytest.mark.parametrize(
    "expression", [lambda x, y: x + y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x @ y]
)
def test_an_expression_of_tensors_is_one_node(expression, device):
    x, y = tensor(normal(2, 2), device), tensor(normal(1, 2, 2)[0], device)
    assert tuple(expression(x, y).inputs) == (x, y)


def test_a_difference_of_tensors_is_two_nodes(device):
    x, y = tensor([3.0], device), tensor([1.0], device)
    difference = x - y
    first, second = difference.inputs
    assert first is x
    assert tuple(second.inputs) == (y,)
    assert [node.numpy().item() for node in find_topo_sort([difference])] == [3, 1, -1, 2]


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda a, b: a + b, [(2, 3), (2, 3)]),
        (lambda a, b: a / b, [(2, 3), (2, 3)]),
        (lambda a, b: a**b, [(1, 3), (3,)]),
        (lambda a, b: a @ b, [(2, 3), (3, 4)]),
        (lambda x: x * 2, [(2, 3)]),
        (lambda x: x**2, [(2, 3)]),
        (lambda x: -x, [(2, 3)]),
        (lambda x: ndl.summation(x, axes=1), [(2, 3)]),
        (lambda x: ndl.broadcast_to(x, (4, 2, 3)), [(1, 3)]),
        (lambda x: ndl.reshape(x, (6,)), [(2, 3)]),
        (lambda x: ndl.transpose(x), [(2, 3)]),
        (lambda x: ndl.logsumexp(x, axes=(0,)), [(2, 3)]),
        (lambda x: ndl.flip(x, (0,)), [(2, 3)]),
        (lambda x: ndl.dilate(x, (0,), 1), [(2, 3)]),
    ],
)
def test_gradient_as_tuple_has_one_entry_per_input(function, shapes, device):
    inputs = [tensor(np.abs(normal(*shape)) + 0.1, device) for shape in shapes]
    y = function(*inputs)
    grads = y.op.gradient_as_tuple(ndl.init.ones(*y.shape, device=device, dtype="float64"), y)
    assert isinstance(grads, tuple)
    assert len(grads) == len(inputs)
    y.backward()
    for grad, x in zip(grads, inputs, strict=True):
        assert_allclose(np.broadcast_to(grad.numpy(), x.grad.shape), x.grad.numpy(), rtol=1e-12)


def test_gradient_as_tuple_of_a_stack(device):
    inputs, weights = [tensor(normal(2, 3), device) for _ in range(3)], normal(2, 3, 3)
    y = ndl.stack(inputs, axis=1)
    grads = y.op.gradient_as_tuple(tensor(weights, device), y)
    assert isinstance(grads, tuple)
    parts = grads[0].tuple() if isinstance(grads[0], ndl.TensorTuple) else grads
    for i, part in enumerate(parts):
        assert_array_equal(part.numpy(), weights[:, i])


# ---- backward --------------------------------------------------------------------------------------------------------


def test_backward_overwrites(device):
    x = tensor([1.0, 2.0], device)
    (x * 3).backward()
    (x * 5).backward()
    assert x.grad.numpy().tolist() == [5, 5]


def test_backward_starts_from_ones_or_from_out_grad(device):
    x = tensor(np.ones((2, 3), "float32"), device)
    y = x * 2
    y.backward()
    assert (x.grad.shape, x.grad.dtype, x.grad.device) == ((2, 3), "float32", device)
    assert x.grad.numpy().tolist() == [[2] * 3] * 2
    y.backward(tensor(np.full((2, 3), 4, "float32"), device))
    assert x.grad.numpy().tolist() == [[8] * 3] * 2


def test_a_leaf_that_is_used_again_gathers_its_gradients(device):
    x = tensor([3.0], device)
    y = x * x + x
    (y * y + x).backward()  # 2 (x² + x) (2x + 1) + 1
    assert x.grad.numpy().tolist() == [2 * 12 * 7 + 1]


def test_gradients_have_a_graph_without_any_flag(device):
    array = np.abs(normal(3)) + 0.5
    x = tensor(array, device)
    ndl.log(x).sum().backward()
    assert isinstance(x.grad, Tensor)
    for derivative in (1 / array, -1 / array**2, 2 / array**3):
        assert_allclose(x.grad.numpy(), derivative, rtol=1e-12)
        x.grad.backward()


def test_leaves_of_integers_have_gradients(device):
    x, y = tensor([6], device), tensor([0], device)
    (x * x * x + x * y).backward()
    assert (x.grad.numpy().tolist(), y.grad.numpy().tolist()) == ([108], [6])
    first = x.grad
    first.backward()
    assert (x.grad.numpy().tolist(), y.grad.numpy().tolist()) == ([36], [1])


# ---- tuples ----------------------------------------------------------------------------------------------------------


def test_tensor_tuple(device):
    a, b = tensor([1.0], device), tensor([2.0, 3.0], device)
    pair = ndl.make_tuple(a, b)
    assert isinstance(pair, ndl.TensorTuple)
    assert len(pair) == 2
    assert pair[0] is a
    assert ndl.tuple_get_item(pair, 1) is b
    assert isinstance(pair.tuple(), tuple)
    for parts in (pair.tuple(), list(pair), (pair[0], pair[1]), pair.detach().tuple()):
        assert [part.numpy().tolist() for part in parts] == [[1], [2, 3]]
    assert [part.numpy().tolist() for part in pair + pair] == [[2], [4, 6]]
    assert pair.detach().is_leaf()
    assert not pair.is_leaf()


def test_a_split_brings_gradients_back(device):
    x = tensor(normal(2, 3), device)
    parts = ndl.split(x, 1)
    assert [part.shape for part in parts] == [(2,)] * 3
    (parts[0] * 2 + parts[2] * 3).backward()
    assert x.grad.numpy().tolist() == [[2, 0, 3]] * 2


# ---- TENSOR_COUNTER and LAZY_MODE ------------------------------------------------------------------------------------


def count():
    return autograd.TENSOR_COUNTER


def test_the_counter_counts_values(uncollected, device):
    before = count()
    assert type(autograd.TENSOR_COUNTER) is int
    x = tensor([1.0, 2.0], device)
    assert count() == before + 1
    y = x * 2
    assert count() == before + 2
    parts = ndl.split(y, 0)
    assert count() == before + 3
    del parts
    assert count() == before + 2
    del x
    assert count() == before + 2  # y remembers it
    del y
    assert count() == before


def train(optimizer, device, steps):
    """Train with the defaults; returns the number of values after each step and a collection."""
    layers = nn.Linear(3, 4, device=device), nn.BatchNorm1d(4, device=device), nn.ReLU(), nn.Linear(4, 2, device=device)
    model = nn.Sequential(*layers)
    opt = optimizer(model.parameters(), lr=0.1, weight_decay=0.01)
    x, y = tensor(normal(5, 3, dtype="float32"), device), tensor(np.array([0, 1, 0, 1, 1]), device)
    counts = []
    for _ in range(steps):
        opt.reset_grad()
        nn.SoftmaxLoss()(model(x), y).backward()
        opt.step()
        gc.collect()
        counts.append(count())
    return counts


@pytest.mark.parametrize("optimizer", [ndl.optim.SGD, ndl.optim.Adam])
def test_training_leaves_cyclic_garbage_that_is_counted(optimizer, uncollected, device):
    """The homeworks' memory tests have a lower bound too: parameter -> grad -> its graph -> parameter is a cycle."""
    before = count()
    counts = train(optimizer, device, 3)
    assert count() - before >= 20
    gc.collect()
    assert count() == before
    assert counts[1:] == counts[:1] * 2  # the steps before the last one leave nothing


TRAININGS = """
import numpy as np
import needle as ndl
from needle import nn

def train(optimizer, norm, steps=32):
    model = nn.Sequential(nn.Linear(64, 32), *norm, nn.ReLU(), nn.Linear(32, 16))
    opt = optimizer(model.parameters(), lr=0.01)
    for _ in range(steps):
        opt.reset_grad()
        x, y = np.random.randn(4, 64).astype("float32"), np.random.randint(16, size=4)
        nn.SoftmaxLoss()(model(ndl.Tensor(x)), ndl.Tensor(y)).backward()
        opt.step()

for optimizer in (ndl.optim.SGD, ndl.optim.Adam):
    for norm in ([], [], [nn.BatchNorm1d(32)], [nn.LayerNorm1d(32)], [nn.BatchNorm1d(32), nn.Dropout(0.1)]):
        train(optimizer, norm)
    print(ndl.autograd.TENSOR_COUNTER)
"""


def test_uncollected_tensors_stay_within_the_bounds_of_the_homework(tmp_path):
    """After trainings of the homework's size, with Python's default collector, in a process without other tensors."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", TRAININGS], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    after_sgd, after_adam = map(int, done.stdout.split())
    assert 0 <= after_sgd <= 1387
    assert 132 <= after_adam <= 2132


def test_lazy_mode_is_off():
    assert autograd.LAZY_MODE is False
