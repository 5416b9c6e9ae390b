"""The graph: its order, backward, released memory, grad mode, in-place writes, custom ops, tuples of tensors."""

from __future__ import annotations

import copy
import gc
import re
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

import needle as ndl
from needle import Tensor, TensorTuple, ops
from needle.autograd import TensorOp, TensorTupleOp, find_topo_sort
from needle.grad_mode import grad_mode

pytestmark = pytest.mark.usefixtures("on_device")


def same(tensor, expected):
    np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-14)


class Cube(TensorOp):
    """x ** 3, as a user would define it."""

    def compute(self, x):
        return x * x * x

    def gradient(self, out_grad, node):
        (x,) = node.inputs
        return out_grad * (x * x) * 3


class Scaled(TensorOp):
    """factor * a * b, whose `gradient` computes only required gradients."""

    def __init__(self, factor):
        self.factor = factor

    def compute(self, a, b):
        return a * b * self.factor

    def gradient(self, out_grad, node):
        a, b = node.inputs
        return (
            out_grad * b * self.factor if a.requires_grad else None,
            out_grad * a * self.factor if b.requires_grad else None,
        )


class ProductAndQuotient(TensorTupleOp):
    """(a * b, a / b)."""

    def compute(self, a, b):
        return a * b, a / b

    def gradient(self, out_grad, node):
        a, b = node.inputs
        product, quotient = out_grad
        return product * b + quotient / b, product * a - quotient * a / (b * b)


class Watched(TensorOp):
    """The identity; calls `watch(out_grad)` whenever its gradient is asked for."""

    saved_inputs = ()

    def __init__(self, watch):
        self.watch = watch

    def compute(self, x):
        return x + 0

    def gradient(self, out_grad, node):
        self.watch(out_grad)
        return out_grad + 0


# ---- order -----------------------------------------------------------------------------------------------------------


def test_order_of_a_scalar_expression():
    a, b = Tensor(2.0), Tensor(5.0)
    order = find_topo_sort([3 * a * a + 4 * b * a - a])
    # a, 3a, 3a·a, b, 4b, 4b·a, their sum, -a, the result
    assert [node.item() for node in order] == [2, 6, 12, 5, 20, 40, 52, -2, 50]
    assert order[0] is a
    assert order[3] is b


def test_order_of_a_matrix_expression():
    a, b = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([[5.0, 6.0], [7.0, 8.0]])
    order = find_topo_sort([3 * ((b @ a) + (2.3412 * b) @ a) + 1.5])
    x, y = a.numpy(), b.numpy()
    product, scaled = y @ x, 2.3412 * y @ x
    total = product + scaled
    values = [y, x, product, 2.3412 * y, scaled, total, 3 * total, 3 * total + 1.5]
    for node, expected in zip(order, values, strict=True):
        same(node, expected)
    assert order[:2] == [b, a]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda x, y: 3 * x, "MulScalar"),
        (lambda x, y: x * 3, "MulScalar"),
        (lambda x, y: x + 3, "AddScalar"),
        (lambda x, y: 3 + x, "AddScalar"),
        (lambda x, y: x - 3, "AddScalar"),
        (lambda x, y: x / 3, "DivScalar"),
        (lambda x, y: x**3, "PowerScalar"),
        (lambda x, y: x * np.float32(3), "MulScalar"),
        (lambda x, y: np.float64(3) * x, "MulScalar"),
        (lambda x, y: np.int64(3) + x, "AddScalar"),
    ],
)
def test_a_scalar_makes_one_node_with_one_input(expression, expected):
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    result = expression(x, None)
    assert find_topo_sort([result]) == [x, result]
    assert result.inputs == (x,)
    assert type(result.op).__name__ == expected


@pytest.mark.parametrize(
    ("expression", "op"),
    [
        (lambda x, y: x + y, "EWiseAdd"),
        (lambda x, y: x * y, "EWiseMul"),
        (lambda x, y: x / y, "EWiseDiv"),
        (lambda x, y: x @ y, "MatMul"),
        (lambda x, y: x**y, "EWisePow"),
    ],
)
def test_two_tensors_make_one_node(expression, op):
    x, y = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([[5.0, 6.0], [7.0, 8.0]])
    result = expression(x, y)
    assert find_topo_sort([result]) == [x, y, result]
    assert result.inputs == (x, y)
    assert type(result.op).__name__ == op


def test_a_difference_is_a_negation_and_a_sum():
    x, y = Tensor([1.0]), Tensor([2.0])
    result = x - y
    first, second, negative, last = find_topo_sort([result])
    assert (first, second, last) == (x, y, result)
    assert negative.inputs == (y,)
    assert result.inputs == (x, negative)
    assert [type(node.op).__name__ for node in (negative, result)] == ["Negate", "EWiseAdd"]


def test_order_takes_inputs_from_left_to_right_and_each_node_once():
    x, y = Tensor(1.0), Tensor(2.0)
    double = x + x
    product = y * double
    total = product + double
    assert find_topo_sort([total]) == [y, x, double, product, total]
    assert find_topo_sort([double, total, x]) == [x, double, y, product, total]
    assert find_topo_sort([x]) == [x]
    assert find_topo_sort([]) == []


def test_order_goes_through_tuples():
    x = Tensor([1.0, 2.0])
    parts = ops.split(x)
    first, second = parts
    assert find_topo_sort([second * first])[:4] == [x, parts, second, first]


# ---- backward --------------------------------------------------------------------------------------------------------


def test_backward_of_a_leaf_is_one():
    x = Tensor([1.0, 2.0])
    x.backward()
    same(x.grad, [1, 1])


def test_backward_overwrites_grad():
    x = Tensor([1.0, 2.0])
    for factor in (2.0, 3.0):
        (x * factor).sum().backward()
        same(x.grad, [factor, factor])


def test_a_shared_leaf_adds_up():
    x = Tensor([2.0, 3.0])
    (x * x + 5 * x + x).sum().backward()
    same(x.grad, 2 * x.numpy() + 6)


def test_a_shared_inner_node_adds_up_once():
    x = Tensor(3.0)
    square = x * x
    (square * square + square).backward()
    same(x.grad, 4 * 3.0**3 + 2 * 3.0)


def test_gradients_can_be_differentiated_again_and_again():
    x = Tensor([2.0, 3.0])
    (x**4).sum().backward()
    for factor, power in ((4, 3), (12, 2), (24, 1), (24, 0)):
        grad = x.grad
        same(grad, factor * x.numpy() ** power)
        grad.backward()


def test_mixed_second_derivative():
    x, y = Tensor([2.0]), Tensor([3.0])
    (x * x * y).backward()
    x.grad.backward()
    same(y.grad, [4.0])
    same(x.grad, [6.0])


def test_out_grad_weights_the_output():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    weights = [[1.0, 10.0], [100.0, 0.0]]
    (x * x).backward(Tensor(weights))
    same(x.grad, 2 * x.numpy() * weights)


def test_an_output_of_many_elements_stands_for_its_sum():
    x = Tensor([[1.0, 2.0], [3.0, 4.0]])
    (x * x).backward()
    same(x.grad, 2 * x.numpy())


def test_gradients_flow_through_out_grad_too():
    x, weight = Tensor([3.0]), Tensor([5.0])
    (x * x).backward(weight)
    x.grad.backward()
    same(weight.grad, [6.0])


def test_the_dtype_of_out_grad_does_not_matter():
    x = Tensor([1.0, 2.0], dtype="float32")
    for output in (x, x * 2):
        output.backward(Tensor([1.0, 3.0], dtype="float64"))
        assert x.grad.dtype == "float32"
    same(x.grad, [2, 6])


def test_integer_leaves_have_gradients():
    x = Tensor([6])
    (x * x + x).backward()
    same(x.grad, [13])
    (x * 0.5).backward()
    same(x.grad, [0.5])
    x.backward(Tensor([0.5]))
    same(x.grad, [0.5])


def test_constants_get_no_gradient():
    x, c = Tensor([2.0]), Tensor([3.0], requires_grad=False)
    (x * c).backward()
    same(x.grad, [3])
    assert c.grad is None
    assert not (c * 2).requires_grad
    assert (c * 2).is_leaf()


def test_requires_grad_can_be_assigned():
    x = Tensor([2.0], requires_grad=False)
    x.requires_grad = True
    (x * x).backward()
    same(x.grad, [4])


def test_leaves_that_backward_does_not_reach_keep_their_grad():
    x, y = Tensor([2.0]), Tensor([3.0])
    (x * 2).backward()
    (y * 2).backward()
    same(x.grad, [2])


def test_inner_nodes_keep_no_gradient():
    x = Tensor([2.0])
    square = x * x
    (square * 2).backward()
    assert square.grad is None


def test_an_op_may_return_no_gradient():
    class Ignoring(Scaled):
        def gradient(self, out_grad, node):
            return out_grad, None

    x, y = Tensor([2.0]), Tensor([3.0])
    Ignoring(1)(x, y * y).backward()
    same(x.grad, [1])
    assert y.grad is None


@pytest.mark.parametrize("leaf", ["float16", "float32", "float64"])
@pytest.mark.parametrize("other", ["float16", "float32", "float64"])
def test_gradients_have_the_dtype_of_their_leaf(leaf, other):
    x, y = Tensor([2.0], dtype=leaf), Tensor([3.0], dtype=other)
    (x * y).backward()
    assert (x.grad.dtype, y.grad.dtype) == (leaf, other)
    x.astype(other).backward()
    assert x.grad.dtype == leaf


def test_inner_gradients_have_the_dtype_of_their_node():
    seen = []
    x = Tensor([2.0], dtype="float32")
    (Watched(lambda grad: seen.append(grad.dtype))(x) * Tensor([3.0])).backward()
    assert seen == ["float32"]


# ---- constants, and what is released ---------------------------------------------------------------------------------


def test_without_create_graph_gradients_are_constants():
    x = Tensor([2.0])
    (x * x).backward(create_graph=False)
    assert not x.grad.requires_grad
    assert x.grad.is_leaf()
    (x * x).backward()
    assert x.grad.requires_grad


def test_without_create_graph_even_out_grad_is_a_constant():
    x = Tensor([2.0])
    (x + 1).backward(Tensor([3.0]), create_graph=False)
    same(x.grad, [3])
    assert not x.grad.requires_grad


def test_create_graph_holds_under_no_grad():
    x = Tensor([2.0])
    y = x * x
    with ndl.no_grad():
        y.backward()
        assert not ndl.is_grad_enabled()
    assert x.grad.requires_grad


def test_memory_falls_while_backward_runs():
    nodes, grads, alive = [], [], []

    def watch(out_grad):
        grads.append(weakref.ref(out_grad))
        alive.append((sum(ref() is not None for ref in nodes), sum(ref() is not None for ref in grads)))

    gc.collect()
    gc.disable()  # references alone must free the nodes
    try:
        y = x = Tensor([1.0])
        for _ in range(10):
            y = Watched(watch)(y)
            nodes.append(weakref.ref(y))
        y.backward(create_graph=False)
    finally:
        gc.enable()
    # During each gradient the nodes before it, its own node and the output (held by `y`) are alive, and one gradient.
    assert alive == [(10, 1)] + [(n, 1) for n in range(10, 1, -1)]
    same(x.grad, [1])
    assert sum(ref() is not None for ref in nodes) == 1


def test_with_create_graph_the_graph_stays():
    y = x = Tensor([1.0])
    nodes = []
    for _ in range(5):
        y = y * 2.0
        nodes.append(weakref.ref(y))
    y.backward()
    assert all(ref() is not None for ref in nodes)
    y.backward()
    same(x.grad, [32])


def test_a_second_backward_through_a_released_graph_says_so():
    x = Tensor([2.0])
    y = ops.exp(x * 3)
    y.backward(create_graph=False)
    message = re.escape(
        "backward: the graph must exist, but an earlier backward released the result of Exp(); "
        "pass retain_graph=True to that one"
    )
    with pytest.raises(RuntimeError, match=f"^{message}$"):
        y.backward()
    assert not y.is_leaf()


def test_a_released_part_of_another_graph_says_so():
    x = Tensor([2.0])
    shared = x * 3
    (shared * shared).backward(create_graph=False)
    other = shared + 1
    x.grad = None
    with pytest.raises(RuntimeError, match=r"released the result of MulScalar\(scalar=3\)"):
        other.backward()
    assert x.grad is None


def test_retain_graph_allows_a_second_backward():
    x = Tensor([2.0])
    y = x * x
    for _ in range(3):
        y.backward(create_graph=False, retain_graph=True)
        same(x.grad, [4])
    assert not x.grad.requires_grad
    y.backward(create_graph=True, retain_graph=False)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


@pytest.mark.parametrize("cut", [lambda y: y.detach(), lambda y: y.data, lambda y: y.cached_data, copy.deepcopy])
def test_detached_values_do_not_keep_the_graph_alive(cut):
    x = Tensor([2.0])
    inner = x * 3
    y = inner * inner
    refs = [weakref.ref(inner), weakref.ref(y)]
    kept = cut(y)
    del inner, y
    assert [ref() for ref in refs] == [None, None]
    same(kept, [36])


def test_detach_is_a_constant_on_the_same_memory():
    x = Tensor([2.0])
    y = (x * 3).detach()
    assert y.is_leaf()
    assert not y.requires_grad
    assert not (y * 2).requires_grad
    same_memory = x.detach()
    same_memory.cached_data.fill(7)
    same(x, [7])


# ---- depth and time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_walks_a_deep_graph(create_graph, depth):
    y = x = Tensor(1.0)
    for _ in range(depth):
        y = y + 1.0
    assert y.item() == 1 + depth
    y.backward(create_graph=create_graph)
    assert x.grad.item() == 1
    del y


def test_a_deep_graph_is_freed_without_backward(depth):
    y = Tensor(1.0)
    first = weakref.ref(y)
    for _ in range(depth):
        y = y + 1.0
    del y
    assert first() is None


def test_a_deep_graph_of_gradients(depth):
    x, zero, factors = Tensor(1.0), Tensor(0.0), depth // 10
    y = x
    for _ in range(factors):
        y = x * y + zero
    y.backward()
    assert x.grad.item() == factors + 1
    x.grad.backward()
    assert x.grad.item() == (factors + 1) * factors
    x.grad = zero.grad = None
    del y
    gc.collect()


def test_every_node_is_visited_once():
    visits = []
    y = x = Tensor(1.0)
    for _ in range(50):  # 2 ** 50 paths
        y = Watched(visits.append)(y)
        y = y + y
    y.backward()
    assert len(visits) == 50
    assert x.grad.item() == 2.0**50
    assert len(find_topo_sort([y])) == 101


def _chain(length):
    y = x = Tensor(1.0)
    for _ in range(length):
        y = y * x + y
    return y


def _parts(length):
    return ops.stack([part * part for part in ops.split(Tensor(np.ones((length, 2))))])


def _rows(length):
    return ops.stack([row * row for row in Tensor(np.ones((length, 2)))])


@pytest.mark.parametrize("graph", [_chain, _parts, _rows])
def test_backward_takes_time_linear_in_the_graph(graph):
    def calls(length):
        """The number of Python functions that one backward calls."""
        y = graph(length)
        entered = 0

        def profile(frame, event, argument):
            nonlocal entered
            entered += event == "call"

        gc.disable()  # callbacks of the collector do not belong to backward
        sys.setprofile(profile)
        try:
            y.backward(create_graph=False)
        finally:
            sys.setprofile(None)
            gc.enable()
        return entered

    calls(1)
    short, middle, long = (calls(length) for length in (10, 100, 1000))
    assert middle - short == 90 * ((long - middle) // 900)
    assert (long - middle) % 900 == 0


# ---- grad mode -------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing():
    x = Tensor([2.0])
    with ndl.no_grad():
        y = x * x
        parts = ops.split(x)
    assert not y.requires_grad
    assert (y.op, y.inputs) == (None, ())
    assert not parts.requires_grad
    assert (x * x).requires_grad


def test_no_grad_nests():
    with ndl.no_grad():
        with ndl.no_grad():
            assert not ndl.is_grad_enabled()
        assert not ndl.is_grad_enabled()
        with grad_mode(True):
            assert ndl.is_grad_enabled()
        assert not ndl.is_grad_enabled()
    assert ndl.is_grad_enabled()


def test_no_grad_decorates():
    x = Tensor([2.0])

    @ndl.no_grad()
    def square(x, depth=2):
        """A docstring."""
        if depth:
            square(x, depth - 1)
        return x * x

    for _ in range(2):
        assert not square(x).requires_grad
        assert ndl.is_grad_enabled()
    assert (square.__name__, square.__doc__) == ("square", "A docstring.")


def test_grad_mode_is_restored_after_an_exception():
    with pytest.raises(ZeroDivisionError), ndl.no_grad():
        raise ZeroDivisionError
    assert ndl.is_grad_enabled()

    def fail(out_grad):
        raise ZeroDivisionError

    for mode in (True, False):
        y = Watched(fail)(Tensor([1.0]))
        with grad_mode(mode):
            with pytest.raises(ZeroDivisionError):
                y.backward(create_graph=not mode)
            assert ndl.is_grad_enabled() == mode


def test_grad_mode_belongs_to_its_thread():
    x = Tensor([2.0])
    recorded = {}
    entered, leave = threading.Event(), threading.Event()

    def without():
        with ndl.no_grad():
            entered.set()
            leave.wait(10)
            recorded["without"] = (x * x).requires_grad

    def plain():
        recorded["plain"] = (x * x).requires_grad

    other = threading.Thread(target=without)
    other.start()
    assert entered.wait(10)
    assert (x * x).requires_grad
    with ndl.no_grad():
        third = threading.Thread(target=plain)
        third.start()
        third.join()
    leave.set()
    other.join()
    assert recorded == {"without": False, "plain": True}


# ---- writes in place -------------------------------------------------------------------------------------------------


def _write_data(x):
    x.data = x.detach() + 1


def _write_flat(x):
    x.realize_cached_data().flat[0] += 1


def _write_item(x):
    x.cached_data[0, 1] = 9.0


def _write_slice_of_slice(x):
    x.cached_data[1:][0, 1:] = 9.0


def _step(optimizer):
    def write(x):
        x.grad = Tensor(np.ones(x.shape), requires_grad=False)
        optimizer([x], lr=0.1).step()

    return write


WRITES = {
    "fill": lambda x: x.cached_data.fill(9.0),
    "item": _write_item,
    "flat": _write_flat,
    "slice of slice": _write_slice_of_slice,
    "detach": lambda x: x.detach().cached_data.fill(9.0),
    "data": lambda x: x.data.cached_data.fill(9.0),
    "detach of detach": lambda x: x.detach().data.cached_data.fill(9.0),
    "data =": _write_data,
    "reshape": lambda x: x.reshape((4,)).cached_data.fill(9.0),
    "transpose": lambda x: x.transpose().cached_data.fill(9.0),
    "permute": lambda x: x.permute((1, 0)).cached_data.fill(9.0),
    "reversed": lambda x: x[::-1].cached_data.fill(9.0),
    "getitem": lambda x: x[0].cached_data.fill(9.0),
    "split": lambda x: ops.split(x).cached_data[1].fill(9.0),
    "element of split": lambda x: ops.split(x)[1].cached_data.fill(9.0),
    "view of view": lambda x: x.transpose()[0].detach().cached_data.fill(9.0),
    "SGD": _step(ndl.optim.SGD),
    "Adam": _step(ndl.optim.Adam),
    "AdamW": _step(ndl.optim.AdamW),
}
EVERY_WRITE = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())


@pytest.fixture
def x():
    return Tensor([[1.0, 2.0], [3.0, 4.0]])


def stale(name, shape="(2, 2)"):
    message = f"values that a gradient needs must not change in place, but {name} with shape {shape} did after the op"
    return pytest.raises(RuntimeError, match=f"^backward: {re.escape(message)} ran$")


@EVERY_WRITE
def test_a_write_is_noticed_if_a_gradient_needs_the_value(x, write):
    before = x.numpy()
    other = Tensor([[1.0, 1.0], [1.0, 1.0]])
    y = other * x
    write(x)
    assert (x.numpy() != before).any()
    with stale("input 1 of EWiseMul()"):
        y.backward()
    (other * x).backward()
    same(other.grad, x.numpy())


@EVERY_WRITE
@pytest.mark.parametrize("shaped", [ops.transpose, lambda x: x[::-1], lambda x: x.reshape((4,)).reshape((2, 2))])
def test_a_write_through_a_view_is_noticed(x, write, shaped):
    y = ops.log(shaped(x))
    write(x)
    if write is _write_data:
        y.backward()  # assigning gave x new memory
    else:
        with stale("input 0 of Log()"):
            y.backward()


@EVERY_WRITE
@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda x: x + x, 2),
        (lambda x: -x, -1),
        (lambda x: x - 1, 1),
        (lambda x: x * 3, 3),
        (lambda x: x / 4, 0.25),
        (lambda x: x.sum(), 1),
        (lambda x: x.mean(), 0.25),
        (lambda x: x.reshape((4,)), 1),
        (lambda x: x.transpose(), 1),
        (lambda x: ops.stack([x, x]), 2),
        (lambda x: ops.pad(x, ((1, 1), (0, 0))), 1),
    ],
)
def test_a_write_is_harmless_if_no_gradient_needs_the_value(x, write, function, slope):
    y = function(x)
    write(x)
    y.backward()
    same(x.grad, np.full((2, 2), slope))


@pytest.mark.parametrize("index", [0, (slice(None), 1), (..., None), [0, 1], (slice(None), [1, 0])], ids=repr)
def test_a_write_behind_an_index_is_harmless(x, index):
    y = x[index]
    expected = np.zeros((2, 2))
    expected[tuple(index) if isinstance(index, tuple) else index] = 1
    x.cached_data.fill(9.0)
    y.backward()
    same(x.grad, expected)


@pytest.mark.parametrize("name", ["exp", "sqrt", "tanh", "sigmoid", "logsoftmax", "softmax"])
def test_ops_that_read_their_result_say_so(x, name):
    expected = getattr(ops, name)(x)
    expected.backward()
    grad = x.grad.numpy()
    y = getattr(ops, name)(x)
    x.cached_data.fill(9.0)  # the input may change
    y.backward()
    same(x.grad, grad)
    y.cached_data.fill(9.0)
    with stale(f"the result of {y.op!r}"):
        y.backward()


def test_a_result_may_change_if_no_gradient_reads_it(x):
    y = x * x
    y.cached_data.fill(0)
    y.backward()
    same(x.grad, 2 * x.numpy())


def test_a_write_before_the_op_is_harmless(x):
    x.cached_data.fill(5)
    y = x * x
    Tensor([1.0]).cached_data.fill(3)  # another tensor
    y.backward()
    same(x.grad, np.full((2, 2), 10))


def test_a_write_is_noticed_in_a_graph_of_gradients(x):
    (x**3).sum().backward()
    grad = x.grad
    ndl.optim.SGD([x], lr=0.1).step()
    with stale("input 0 of PowerScalar(scalar=2)"):
        grad.backward()


def test_a_stale_graph_leaves_every_grad_as_it_was(x):
    y = x * x + x
    x.cached_data.fill(0)
    with stale("input 0 of EWiseMul()"):
        y.backward(create_graph=False)
    assert x.grad is None
    assert isinstance(y.op, ops.EWiseAdd)


def test_training_steps_are_harmless():
    weight = Tensor([1.0])
    optimizer = ndl.optim.SGD([weight], lr=0.25)
    for expected in (0.5, 0.25, 0.125):
        (weight * weight).backward(create_graph=False)
        optimizer.step()
        same(weight, [expected])


def test_assigned_data_are_copied(x):
    other = Tensor(np.ones((2, 2)), requires_grad=False)
    before = x.cached_data
    x.data = other
    other.cached_data.fill(5)
    same(x, np.ones((2, 2)))
    before.fill(7)
    same(x, np.ones((2, 2)))
    for shape in ((2, 1, 2), (2, 2)):  # the course replaces a bias (1, n) by one of shape (n,)
        x.data = Tensor(np.ones(shape))
        assert x.shape == shape


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 2), (), (2, 3), (0, 2)])
def test_assigned_data_must_have_the_shape(x, shape):
    with pytest.raises(ValueError, match=r"^data: value must have shape \(2, 2\), up to axes of size 1, but got \("):
        x.data = Tensor(np.ones(shape))
    same(x, [[1, 2], [3, 4]])


def test_assigned_data_must_be_a_tensor_of_the_same_dtype(x):
    with pytest.raises(TypeError, match=r"^data: value must have dtype float64, but got float32$"):
        x.data = x.astype("float32")
    with pytest.raises(TypeError, match=r"^data: value must be a Tensor, but got ndarray$"):
        x.data = np.ones((2, 2))
    same(x, [[1, 2], [3, 4]])


def test_the_former_memory_of_assigned_data_is_forgotten(x):
    before = x.cached_data
    x.data = x * 2
    y = x * x
    before.fill(0)
    y.backward()
    same(x.grad, 2 * x.numpy())


# ---- ops of users ----------------------------------------------------------------------------------------------------


def test_an_op_of_a_user_works_to_second_order(x):
    y = Cube()(x)
    same(y, x.numpy() ** 3)
    assert ndl.gradcheck(Cube(), x)
    assert ndl.gradcheck(Scaled(2.5), x, x + 1)
    y.backward()
    x.grad.backward()
    same(x.grad, 6 * x.numpy())


def test_a_tuple_op_of_a_user_works_to_second_order(x):
    y = x + 1.0
    result = ProductAndQuotient()(x, y)
    assert isinstance(result, TensorTuple)
    same(result[0], x.numpy() * y.numpy())
    same(result[1], x.numpy() / y.numpy())
    assert ndl.gradcheck(ProductAndQuotient(), x, y)


def test_no_gradient_is_requested_where_none_is_required(x):
    constant = Tensor(np.ones((2, 2)), requires_grad=False)
    y = Scaled(2)(x, constant)
    assert y.op.gradient_as_tuple(Tensor(np.ones((2, 2))), y)[1] is None
    y.backward()
    same(x.grad, np.full((2, 2), 2.0))
    assert constant.grad is None
    assert Scaled(2)(constant, constant).op is None


@pytest.mark.parametrize("leaf", [True, False], ids=["a leaf", "an inner node"])
@pytest.mark.parametrize("shape", [(1,), (3, 2), ()])
def test_a_gradient_of_a_wrong_shape_is_an_error(leaf, shape):
    class Wrong(Cube):
        def gradient(self, out_grad, node):
            return Tensor(np.ones(shape))

    x = Tensor([1.0, 2.0])
    y = Wrong()(x if leaf else x + x)
    message = f"backward: gradients must have the shape of their tensor, (2,), but Wrong() returned {shape}"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        y.backward()


def test_a_gradient_of_another_dtype_is_cast_to_the_dtype_of_the_input():
    class Wide(Cube):
        def gradient(self, out_grad, node):
            return super().gradient(out_grad, node).astype("float64")

    x = Tensor([1.0, 2.0], dtype="float32")
    Wide()(Wide()(x)).backward()
    assert x.grad.dtype == "float32"
    same(x.grad, 9 * x.numpy() ** 8)


def test_undefined_methods_of_an_op_raise():
    class Half(TensorOp):
        def compute(self, x):
            return x / 2

    with pytest.raises(NotImplementedError, match=r"^TensorOp: compute is not defined$"):
        TensorOp()(Tensor([1.0]))
    with pytest.raises(NotImplementedError, match=r"^Half: gradient is not defined$"):
        Half()(Tensor([1.0])).backward()


def test_ops_are_their_parameters():
    assert Scaled(2) == Scaled(2)
    assert hash(Scaled(2)) == hash(Scaled(2))
    assert Scaled(2) != Scaled(3)
    assert Scaled(2) != Cube()
    assert Cube() != "Cube()"
    assert repr(Scaled(2)) == "Scaled(factor=2)"
    op = Scaled(2)
    a, b = Tensor([1.0]), Tensor([3.0])
    same(op(a, b), [6])
    same(op(b, b), [18])
    assert vars(op) == {"factor": 2}


@pytest.mark.parametrize("function", [ops.exp, lambda x: x * 2, lambda x: x @ x, lambda x: ops.stack([x, x])])
def test_gradient_as_tuple_has_one_entry_per_input(x, function):
    y = function(x)
    grads = y.op.gradient_as_tuple(Tensor(np.ones(y.shape)), y)
    assert isinstance(grads, tuple)
    assert [grad.shape for grad in grads] == [(2, 2)] * len(y.inputs)


# ---- tuples of tensors -----------------------------------------------------------------------------------------------


def test_tuples_of_tensors(x):
    parts = ops.split(x)
    assert len(parts) == 2
    same(parts[0], [1, 2])
    same(parts[-1], [3, 4])
    assert [part.numpy().tolist() for part in parts] == [[1, 2], [3, 4]]
    assert isinstance(parts.tuple(), tuple)
    assert [array.numpy().tolist() for array in parts.cached_data] == [[1, 2], [3, 4]]
    assert repr(parts) == "TensorTuple(Tensor([1. 2.], requires_grad=True), Tensor([3. 4.], requires_grad=True))"
    for index in (2, -3):
        with pytest.raises(IndexError, match=rf"^tuple_get_item: index must lie in \[-2, 1\], but got {index}$"):
            parts[index]


def test_the_sum_of_two_tuples(x):
    total = ops.split(x) + ops.split(x * 10)
    assert isinstance(total, TensorTuple)
    assert [part.numpy().tolist() for part in total] == [[11, 22], [33, 44]]
    total[1].backward()
    same(x.grad, [[0, 0], [11, 11]])


def test_detach_cuts_a_tuple(x):
    parts = ops.split(x).detach()
    assert isinstance(parts, TensorTuple)
    assert not parts.requires_grad
    assert not parts[0].requires_grad
    same(parts[1], [3, 4])


def test_backward_through_split(x):
    first, second = ops.split(x)
    (first * first * second).sum().backward()
    a, b = x.numpy()
    same(x.grad, [2 * a * b, a * a])
    x.grad.sum().backward()
    same(x.grad, [2 * b + 2 * a, 2 * a])


def test_backward_through_one_element_of_a_split(x):
    ops.split(x, axis=1)[1].backward()
    same(x.grad, [[0, 1], [0, 1]])


def test_an_element_taken_twice_adds_up(x):
    parts = ops.split(x)
    (parts[0] * parts[0] + parts[-2]).backward()
    same(x.grad, [[3, 5], [0, 0]])


def test_one_element_of_a_made_tuple_is_the_tensor_itself(x):
    y = x * 2
    pair = ops.make_tuple(x, y)
    assert pair[0] is x
    assert pair[-1] is y
    assert ops.tuple_get_item(pair, 1) is y


def test_a_constant_on_the_memory_of_a_tensor_shares_its_record_of_changes(device):
    x, w = ndl.Tensor([1.0, 2.0], device=device), ndl.Tensor([1.0, 1.0], device=device)
    y = (w * ndl.Tensor.make_const(x.cached_data)).sum()
    x.cached_data[0] = 7
    with pytest.raises(RuntimeError, match="must not change in place"):
        y.backward()


# ---- gradients of several passes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("create_graph", [True, False])
def test_backward_overwrites_gradients_or_adds_to_them(x, create_graph):
    def backward(**options):
        (x * x).sum().backward(create_graph=create_graph, **options)

    backward()
    backward()
    same(x.grad, [[2, 4], [6, 8]])
    backward(accumulate=True)
    first = x.grad
    backward(accumulate=True)
    same(x.grad, [[6, 12], [18, 24]])
    same(first, [[4, 8], [12, 16]])  # a new tensor each time
    assert x.grad.requires_grad is create_graph
    x.grad = None
    backward(accumulate=True)
    same(x.grad, [[2, 4], [6, 8]])


def test_gradients_of_small_batches_add_up_as_in_torch():
    draws = np.random.default_rng(0)
    weight, batches = draws.normal(size=(3, 2)), draws.normal(size=(4, 5, 3))
    w, twin = Tensor(weight), torch.tensor(weight, requires_grad=True)
    for batch in batches:
        (Tensor(batch, requires_grad=False) @ w).tanh().mean().backward(create_graph=False, accumulate=True)
        (torch.tensor(batch) @ twin).tanh().mean().backward()
    np.testing.assert_allclose(w.grad.numpy(), twin.grad.numpy(), rtol=1e-12)


# ---- the memory of gradients -----------------------------------------------------------------------------------------

FANS = {  # functions that pass one gradient on to both inputs
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: b - (-a),
    "sum": lambda a, b: (a + b).sum() * 1,
    "views": lambda a, b: (a.reshape(3, 1) + b.reshape(3, 1)).reshape(3),
    "broadcast": lambda a, b: a.reshape(1, 3).broadcast_to((2, 3)) + b,
    "tuple": lambda a, b: sum(ops.make_tuple(a, b), b),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("fan", FANS.values(), ids=FANS)
def test_each_grad_has_writable_memory_of_its_own(fan, create_graph):
    a, b = (ndl.ones(3, dtype="float64", requires_grad=True) for _ in range(2))
    result = fan(a, b)
    weight = ndl.ones(*result.shape, dtype="float64")
    result.backward(weight, create_graph=create_graph)
    expected = b.grad.numpy()
    with ndl.no_grad():
        a.grad.mul_(7)
        same(b.grad, expected)
        same(weight, np.ones(weight.shape))
        weight.mul_(5)
        b.grad[0] = 9
    same(a.grad, np.full(3, 14 if fan is FANS["broadcast"] else 7))
    same(b.grad, [9, *expected[1:]])


def test_a_leaf_does_not_keep_the_out_grad_that_it_was_given(x):
    weight = Tensor(np.ones((2, 2)))
    for create_graph in (False, True):
        x.backward(weight, create_graph=create_graph)
        weight.data[0, 0] = 5
        same(x.grad, np.ones((2, 2)))
        weight.data[0, 0] = 1


def test_a_copied_gradient_can_be_differentiated():
    a, b = Tensor([2.0]), Tensor([3.0])
    (a * a * a + 0 * b).backward()
    first = a.grad
    ((a + b) * first).sum().backward()
    same(b.grad, [12])
    same(a.grad, [12 + 5 * 12])
