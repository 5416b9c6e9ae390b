"""The graph that ops record: nodes in order, gradients only where required, ops compared by their parameters."""

import ast
import inspect
import operator
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import needle as ndl
from needle import ops
from needle.autograd import find_topo_sort
from needle.backend import to_host
from needle.ops import arithmetic, forms, hooks, in_place, tiling
from needle.ops.methods import TENSOR_METHODS, TENSOR_TUPLE_METHODS
from tests.ops.op_classes import all_op_classes
from tests.ops.table import ROWS, each_row, inputs_of, tensors


def graph_of(row, device):
    """The nodes of a row's graph that are results of ops, inputs first."""
    inputs, _ = tensors(row, inputs_of(row, device))
    return [node for node in find_topo_sort([row.apply(*inputs)]) if node.op is not None]


def ones_like(value):
    """Ones of the shape and dtype of a tensor, or of the elements of a tuple."""
    if isinstance(value, ndl.TensorTuple):
        return ops.make_tuple(*(ones_like(x) for x in value))
    return ndl.ones_like(value)


def op_names(*values):
    """The names of the ops below some tensors, inputs first, without leaves."""
    return [type(node.op).__name__ for node in find_topo_sort(values) if node.op is not None]


# ---- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.on_cpu
@each_row(row for row in ROWS if not row.constant)
def test_one_gradient_for_each_input(row, device):
    """A tensor of the input's shape if the input requires a gradient, else None."""
    for node in graph_of(row, device):
        grads = node.op.gradient_as_tuple(ones_like(node), node)
        assert isinstance(grads, tuple)
        assert len(grads) == len(node.inputs)
        for x, grad in zip(node.inputs, grads, strict=True):
            if not x.requires_grad:
                assert grad is None
            elif isinstance(x, ndl.Tensor):
                assert (type(grad), grad.shape, grad.device) == (ndl.Tensor, x.shape, x.device)
            else:  # of a tuple: position -> gradient
                assert all(grad[i].shape == x[i].shape for i in grad)


@pytest.mark.on_cpu
@each_row(ROWS)
def test_what_shares_memory_is_marked_as_a_view(row, device):
    """A write into an input must reach the version counters of every result that aliases it: only `is_view` says so."""
    for node in graph_of(row, device):
        results = node.array if isinstance(node, ndl.TensorTuple) else [node.array]
        inputs = [x for x in node.inputs if isinstance(x, ndl.Tensor)]
        for place, x in enumerate(inputs):
            shared = any(np.shares_memory(to_host(y), to_host(x.array)) for y in results)
            assert not shared or (node.op.is_view and place == 0), node.op


def test_a_single_gradient_becomes_a_tuple(device):
    x = ndl.Tensor([1.0, 2.0], device=device)
    y = ops.exp(x)
    assert isinstance(y.op.gradient(ones_like(y), y), ndl.Tensor)
    assert [grad.shape for grad in y.op.gradient_as_tuple(ones_like(y), y)] == [(2,)]


# The ops that backward runs if only the first input requires a gradient, and if only the second one does. The inputs
# have shapes (2, 3) and (3,); matmul's second input has (3, 4).
WORK = {
    "add": (["Clone"], ["SumTo"]),  # a leaf does not share the memory of out_grad
    "subtract": (["Clone"], ["SumTo", "Negate"]),
    "multiply": (["EWiseMul"], ["EWiseMul", "SumTo"]),
    "divide": (["EWiseDiv"], ["EWiseDiv", "EWiseDiv", "EWiseMul", "Negate", "SumTo"]),
    "maximum": (
        ["Compare", "MulScalar", "Where", "Compare", "Where"],
        ["Compare", "MulScalar", "Where", "Compare", "Where", "SumTo"],
    ),
    "where": (["Where"], ["Where", "SumTo"]),
    "matmul": (["Permute", "MatMul"], ["Permute", "MatMul"]),
    "stack": (["Split", "TensorTupleGetItem", "Clone"], ["Split", "TensorTupleGetItem", "SumTo"]),
    "concatenate": (["Pad"], ["Pad", "SumTo"]),
    "make_tuple": ([], []),
}

APPLY = {
    "where": lambda a, b: ops.where(a > 0, a, b),
    "matmul": ops.matmul,
    "stack": lambda a, b: ops.stack([a, ops.broadcast_to(b, a.shape)]),
    "concatenate": lambda a, b: ops.concatenate([a, ops.broadcast_to(b, a.shape)]),
    "make_tuple": lambda a, b: ops.make_tuple(a, b)[0] if a.requires_grad else ops.make_tuple(a, b)[1],
}


@pytest.fixture
def computed(monkeypatch):
    """The names of the ops that run from here on."""
    names = []

    def recorder(op_class, compute):
        def record(self, *arrays):
            names.append(op_class.__name__)
            return compute(self, *arrays)

        return record

    for op_class in set(all_op_classes()):
        if "compute" in vars(op_class):
            monkeypatch.setattr(op_class, "compute", recorder(op_class, op_class.compute))
    return names


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", WORK)
def test_nothing_is_computed_for_inputs_that_require_no_grad(name, which, computed, device):
    right = (3,) if name != "matmul" else (3, 4)
    arrays = [np.arange(6.0).reshape(2, 3) + 1, np.arange(np.prod(right)).reshape(right) + 2.5]
    a, b = (ndl.Tensor(x, device=device, requires_grad=i == which) for i, x in enumerate(arrays))
    y = APPLY.get(name, getattr(ops, name))(a, b)
    if y is a or y is b:
        return
    out_grad = ones_like(y)
    computed.clear()
    y.backward(out_grad)
    expected = WORK[name][which]
    assert sorted(computed) == sorted(expected)
    assert (a.grad is None, b.grad is None) == (which == 1, which == 0)


def test_inputs_that_require_no_grad_get_none_in_every_order(device):
    x = ndl.Tensor([1.0, 2.0], device=device)
    constant = ndl.Tensor([3.0, 4.0], device=device, requires_grad=False)
    (x * constant * x).sum().backward()
    first = x.grad
    first.sum().backward()
    assert constant.grad is None
    np.testing.assert_array_equal(first.numpy(), [6, 16])
    np.testing.assert_array_equal(x.grad.numpy(), [6, 8])


# ---- an op is its parameters -----------------------------------------------------------------------------------------


@pytest.mark.on_cpu
@each_row(ROWS)
def test_ops_compare_print_and_can_be_reused(row, device):
    """Two runs create equal ops, and an op applied again returns the same values: it has no state."""
    first, second = graph_of(row, device), graph_of(row, device)
    assert [node.op for node in first] == [node.op for node in second]
    for node, twin in zip(first, second, strict=True):
        before = dict(vars(node.op))
        again = node.op(*node.inputs)
        node.op.gradient_as_tuple(ones_like(node), node)
        assert vars(node.op) == before
        assert hash(node.op) == hash(twin.op)
        assert repr(node.op) == repr(twin.op)
        assert repr(node.op).startswith(type(node.op).__name__ + "(")
        pairs = zip(again, node, strict=True) if isinstance(node, ndl.TensorTuple) else [(again, node)]
        for a, b in pairs:
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_ops_print_their_parameters():
    assert repr(ops.AddScalar(2)) == "AddScalar(scalar=2)"
    assert repr(ops.Summation((0, 1), True)) == "Summation(axes=(0, 1), keepdims=True)"
    assert repr(ops.Exp()) == "Exp()"


@pytest.mark.parametrize("op_class", [ops.Summation, ops.LogSumExp])
def test_the_axes_of_a_reduction_may_be_a_list(op_class):
    x = ndl.Tensor(np.arange(6.0).reshape(1, 2, 3))
    assert op_class([0, 1]) == op_class((0, 1))
    assert op_class([0, 1])(x).numpy().tolist() == op_class((0, 1))(x).numpy().tolist()


def test_ops_with_other_parameters_differ():
    assert ops.AddScalar(2) != ops.AddScalar(3)
    assert ops.AddScalar(2) != ops.MulScalar(2)
    assert ops.Summation((0,)) != ops.Summation((0,), True)
    assert ops.Exp() != "Exp()"
    x = ndl.Tensor([1.0, 2.0])
    assert x[True].op != x[1].op
    assert len({ops.Exp(), ops.Exp(), ops.Log(), ops.AddScalar(1), ops.AddScalar(1)}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ops.AddScalar(1), ops.AddScalar(1.0)),
        (ops.AddScalar(1), ops.AddScalar(True)),
        (ops.Summation((0,), False), ops.Summation((0,), 0)),
        (arithmetic.Cast("float32"), arithmetic.Cast(np.dtype("float32"))),
    ],
    ids=str,
)
def test_equal_ops_have_equal_hashes(one, other):
    assert one != other or hash(one) == hash(other)


# ---- nodes that expressions make -------------------------------------------------------------------------------------

NODES = {
    "x + 2": ["AddScalar"],
    "2 + x": ["AddScalar"],
    "x - 2": ["AddScalar"],
    "2 - x": ["Negate", "AddScalar"],
    "x * 2": ["MulScalar"],
    "2 * x": ["MulScalar"],
    "x / 2": ["DivScalar"],
    "2 / x": ["EWiseDiv"],
    "x ** 2": ["PowerScalar"],
    "2 ** x": ["EWisePow"],
    "-x": ["Negate"],
    "abs(x)": ["Abs"],
    "x + y": ["EWiseAdd"],
    "x - y": ["Negate", "EWiseAdd"],
    "x * y": ["EWiseMul"],
    "x / y": ["EWiseDiv"],
    "x ** y": ["EWisePow"],
    "x @ y": ["MatMul"],
    "x[0]": ["GetItem"],
    "x.sum()": ["Summation"],
    "x.mean()": ["Mean"],
    "x.max()": ["Max"],
    "x.transpose()": ["Permute"],
    "x.astype('float32')": ["Cast"],
    "x.astype('float64')": [],
    "x.broadcast_to((3, 2, 2))": ["BroadcastTo"],
    "x.broadcast_to((2, 2))": [],
    "x > y": [],
    "x.argmax()": [],
    "3 * x * x + 4 * y * x - x": [
        "MulScalar", "EWiseMul", "MulScalar", "EWiseMul", "EWiseAdd", "Negate", "EWiseAdd",
    ],
}  # fmt: skip


@pytest.mark.parametrize("expression", NODES)
def test_nodes_of_expressions(expression, device):
    x, y = (ndl.Tensor([[1.0, 2.0], [3.0, 4.0]], device=device) for _ in range(2))
    assert op_names(eval(expression, {"x": x, "y": y})) == NODES[expression]


def test_the_inputs_of_a_difference(device):
    x, y = (ndl.Tensor([1.0], device=device) for _ in range(2))
    difference = x - y
    negative = difference.inputs[1]
    assert difference.inputs == (x, negative)
    assert negative.inputs == (y,)


@pytest.mark.parametrize("function", [operator.add, operator.mul, operator.truediv, operator.pow, operator.matmul])
def test_a_node_keeps_its_inputs_in_order(function, device):
    x, y = (ndl.Tensor([[1.0]], device=device) for _ in range(2))
    assert function(x, y).inputs == (x, y)
    array = np.array([[2.0]])
    left, right = function(array, x).inputs
    assert (left.is_leaf(), left.requires_grad, right) == (True, False, x)


def test_stack_and_concatenate_make_one_node(device):
    x, y = (ndl.Tensor([1.0], device=device) for _ in range(2))
    assert ops.stack([x, y, x]).inputs == (x, y, x)
    assert ops.concatenate((x, y)).inputs == (x, y)


def test_in_place_operators_make_new_tensors(device):
    x = ndl.Tensor([1.0], device=device)
    y = x
    y += 1
    assert y is not x
    assert (x.item(), y.item()) == (1, 2)


# ---- tuples ----------------------------------------------------------------------------------------------------------


def test_picking_from_a_new_tuple_returns_the_input(device):
    x, y = ndl.Tensor([1.0], device=device), ndl.Tensor([2.0, 3.0], device=device)
    pair = ops.make_tuple(x, y)
    assert pair[0] is x
    assert pair[-1] is y
    assert (len(pair), pair.tuple(), list(pair)) == (2, (x, y), [x, y])
    assert [part.shape for part in pair.cached_data] == [(1,), (2,)]


def test_the_gradient_of_make_tuple(device):
    x, y = ndl.Tensor([1.0], device=device), ndl.Tensor([2.0, 3.0], device=device, requires_grad=False)
    pair = ops.make_tuple(x, y)
    grads = ops.make_tuple(*(ndl.Tensor(part.numpy() * 2, device=device) for part in pair))
    first, second = pair.op.gradient_as_tuple(grads, pair)
    assert first is grads.inputs[0]
    assert second is None


def test_the_gradient_of_an_element_is_zero_elsewhere(device):
    x = ndl.Tensor([[1.0, 2.0], [3.0, 4.0]], device=device)
    ops.split(x)[1].backward()
    assert x.grad.numpy().tolist() == [[0, 0], [1, 1]]


def test_a_detached_tuple_is_a_constant(device):
    x = ndl.Tensor([[1.0], [2.0]], device=device)
    parts = ops.split(x).detach()
    assert not parts.requires_grad
    assert [part.requires_grad for part in parts] == [False, False]


# ---- methods ---------------------------------------------------------------------------------------------------------


# Declarations that others share, and one of Python's own.
TEMPLATES = {
    "_binary", "_deviation", "_function", "_unary", "_reduction", "_along", "_ordered", "_cast", "__hash__",
    *forms.PROPERTIES,
}  # fmt: skip


def declared_methods(class_name):
    """Method -> its parameters and defaults, as the class declares them for type checkers."""
    file = {"TensorMethods": "tensor_methods.py", "TensorTuple": "autograd.py"}[class_name]
    tree = ast.parse(Path(inspect.getfile(ndl), "..", file).resolve().read_text("utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    names = ["TensorCasts", class_name] if class_name == "TensorMethods" else [class_name]
    blocks = [[node for node in classes[name].body if isinstance(node, ast.If)][-1] for name in names]
    methods, nodes = {}, [node for block in blocks for node in ast.walk(block)]
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            form = node.args
            defaults = [ast.literal_eval(default) for default in (*form.defaults, *form.kw_defaults)]
            names = [part.arg for part in (*form.args, form.vararg, *form.kwonlyargs, form.kwarg) if part][1:]
            methods[node.name] = (names, defaults)
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):  # names that share a declaration
            methods |= {target.id: methods[node.value.id] for target in node.targets}
    return {name: form for name, form in methods.items() if name not in TEMPLATES}


def attached_methods(table):
    """Method -> the parameters and defaults of the attached function."""
    methods = {}
    for name, function in table.items():
        parameters = list(inspect.signature(function).parameters.values())[1:]
        defaults = [parameter.default for parameter in parameters if parameter.default is not parameter.empty]
        methods[name] = ([parameter.name for parameter in parameters], defaults)
    return methods


@pytest.mark.parametrize(
    ("class_name", "table"), [("TensorMethods", TENSOR_METHODS), ("TensorTuple", TENSOR_TUPLE_METHODS)]
)
def test_declarations_name_the_methods_that_are_attached(class_name, table):
    declared, attached = declared_methods(class_name), attached_methods(table)
    assert declared.keys() == attached.keys()
    for name, (parameters, defaults) in declared.items():
        if name.startswith("__"):  # operators pass their operands by position
            parameters, actual = len(parameters), len(attached[name][0])
        else:
            actual = attached[name][0]
        assert (name, parameters, defaults) == (name, actual, attached[name][1])


@pytest.mark.parametrize(
    ("tensor_class", "table"), [(ndl.Tensor, TENSOR_METHODS), (ndl.TensorTuple, TENSOR_TUPLE_METHODS)]
)
def test_methods_are_attached(tensor_class, table):
    for name, function in table.items():
        assert getattr(tensor_class, name) is function


def test_methods_are_the_functions_of_their_names():
    other_names = {"astype": arithmetic.cast, "clamp": ops.clip, "log_softmax": ops.logsoftmax, "sum": ops.summation}
    other_names |= {"repeat": tiling.repeat, "register_hook": hooks.register_hook}
    for name, function in TENSOR_METHODS.items() - (forms.METHODS | in_place.METHODS).items():
        if not name.startswith("__"):
            assert function is other_names.get(name, getattr(ops, name, None)), name


# ---- functions check, ops trust --------------------------------------------------------------------------------------

SOURCES = str(Path(ndl.__file__).resolve().parent)
CHECKS = {"check.py": None, "operand.py": {"tensor", "pair", "number", "broadcast_shape", "is_number"}}


@contextmanager
def checks_within_gradients():
    """The names of checks that run while a gradient runs."""
    names, depth = [], [0]

    def profile(frame, event, argument):
        code = frame.f_code
        if code.co_filename.startswith(SOURCES):
            if code.co_name in ("gradient", "compute_gradient", "accumulate_grad"):
                depth[0] += {"call": 1, "return": -1}.get(event, 0)
            elif event == "call" and depth[0]:
                checks = CHECKS.get(Path(code.co_filename).name, ())
                if checks is None or code.co_name in checks:
                    names.append(code.co_name)

    sys.setprofile(profile)
    try:
        yield names
    finally:
        sys.setprofile(None)


def one_row_per_op():
    """The last row of each differentiable op: the most general setting in most cases."""
    return {row.op: row for row in ROWS if not row.constant}.values()


@each_row(one_row_per_op())
def test_a_gradient_calls_ops_which_check_nothing(row):
    for create_graph in (True, False):
        for _ in range(2):  # the first run fills caches, as of axes
            inputs, _ = tensors(row, inputs_of(row, ndl.cpu()))
            result = row.apply(*inputs)
            parts = result if isinstance(result, (tuple, list, ndl.TensorTuple)) else [result]
            total = sum((part * part).sum() for part in parts if part.requires_grad)
            if not isinstance(total, ndl.Tensor):
                return
            with checks_within_gradients() as names:
                total.backward(create_graph=create_graph)
        assert not names


def test_a_check_within_a_gradient_is_seen(monkeypatch):
    x = ndl.Tensor([1.0])
    with checks_within_gradients() as names:
        arithmetic.MULTIPLY.gradient(x, ops.multiply(x, x))
    assert not names
    monkeypatch.setattr(arithmetic, "sum_like", lambda grad, y: ops.reshape(grad, y.shape))
    with checks_within_gradients() as names:
        arithmetic.MULTIPLY.gradient(x, ops.multiply(x, x))
    assert "tensor" in names
