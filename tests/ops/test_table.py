"""Each op in each setting against torch: results, first and second derivatives, memory orders, outlines, float32."""

from functools import cache

import pytest

import needle as ndl
from needle import ops
from needle.autograd import Op, Tensor, TensorTuple, find_topo_sort
from needle.ops import forms, in_place
from needle.ops.methods import TENSOR_METHODS
from needle.outline import outline, outlined, spec_of
from tests.ops.op_classes import all_op_classes
from tests.ops.table import ORDERS, ROWS, check_close, check_row, each_row, inputs_of, run_needle

# Functions of needle.ops that have no row here.
ELSEWHERE = {
    "allclose": "a bool; see tests/test_forms.py",
    "chunk": "slices; see tests/test_forms.py",
    "conv": "convolution has its own tests in tests/ops/test_conv.py",
}

# Op classes on windows; the tests of convolution and pooling differentiate them.
WINDOWED = {"CorrelateTranspose", "CorrelateWeight", "Fold", "Unfold"}
WINDOWED |= {"GatherAtMax", "LocateMax", "MaxPool", "MaxUnpool", "ScatterToMax", "SpreadPool", "SumPool"}

# Methods that are no ops, or ops by other names; test_protocols.py, test_forms.py and nn/test_hooks.py test them.
WITHOUT_OPS = forms.METHODS.keys() | in_place.METHODS.keys()
WITHOUT_OPS |= {"__contains__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"}
WITHOUT_OPS |= {"__ifloordiv__", "__imod__", "register_hook"}

# Masks without axes, or made of the input: their values, which an outline lacks, decide the shape of the result.
MASKED = {"True", "a comparison"}

# No graph holds these ops: picking an element of a fresh tuple returns the input itself.
ABSENT = {"MakeTensorTuple", "_Gradients"}

# Op classes that needle.nn uses; tests/ops/test_compute_gradient.py and tests/nn/test_hooks.py differentiate them.
IN_LAYERS = {"CrossEntropy", "CrossEntropyWithGradient", "Drop", "PassThrough", "SquaredErrorWithGradient"}

# Op classes that exchange sums with other ranks; tests/distributed/test_whole_batch.py differentiates them.
ACROSS_RANKS = {"AllReduce", "StandardizeAcrossRanks"}

OP_CLASSES = {
    op_class.__name__: op_class
    for op_class in all_op_classes()
    if op_class.__module__.startswith("needle.ops.") and op_class.compute is not Op.compute
}


def parts_of(value):
    """The tensors of a TensorTuple, or the tensor alone."""
    return value.tuple() if isinstance(value, TensorTuple) else (value,)


@each_row(ROWS)
def test_agrees_with_torch(row, device):
    check_row(row, device)


@pytest.mark.on_cpu
@each_row(ROWS)
def test_agrees_with_torch_in_every_memory_order(row, device):
    for order in ORDERS:
        check_row(row, device, order)


@pytest.mark.on_cpu
@each_row(row for row in ROWS if row.op != "getitem" or row.setting not in MASKED)
def test_outlines_have_the_same_shapes_and_dtypes(row, device):
    """Without values of those inputs that are differentiated."""
    inputs = [ndl.Tensor.make_const(array) for array in inputs_of(row, device)]
    expected = row.apply(*inputs)
    with outline():
        drawn = zip(inputs, row.is_drawn(), strict=True)
        known = [outlined(x.shape, x.dtype, x.device, "unknown") if is_drawn else x for x, is_drawn in drawn]
        actual = row.apply(*known)
    assert [(spec_of(x), x.device) for x in parts_of(actual)] == [(spec_of(x), x.device) for x in parts_of(expected)]


@pytest.mark.on_cpu
@each_row(ROWS)
def test_float32_stays_float32(row, device):
    actual = run_needle(row, inputs_of(row, device, dtype="float32"), device, "float32")
    expected = run_needle(row, inputs_of(row, device, dtype="float64"), device, "float64")
    check_close(row, actual, expected, 2e-5)
    if not row.constant:
        assert {str(x.dtype) for x in actual["result"]} == {row.dtype or "float32"}
        count = sum(row.is_drawn())
        grads = actual["gradient"] + actual.get("second", [])[:count]
        assert [str(x.dtype) for x in grads] == ["float32"] * count * row.order


@pytest.mark.on_cpu
@each_row(ROWS)
def test_constants_require_no_grad(row, device):
    """Results of differentiable ops require a gradient if an input does, others never; under no_grad none does."""
    inputs = [ndl.Tensor.make_const(array, requires_grad=True) for array in inputs_of(row, device)]
    result = row.apply(*inputs)
    assert result.requires_grad is not row.constant or any(result is x for x in inputs)
    with ndl.no_grad():
        result = row.apply(*inputs)
    assert not result.requires_grad or any(result is x for x in inputs)


def test_row_names_are_unique():
    names = [str(row) for row in ROWS]
    assert sorted(set(names)) == sorted(names)


def test_every_function_has_a_row():
    tested = {row.op for row in ROWS} | ELSEWHERE.keys()
    functions = {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}
    assert not functions - tested, "these functions of needle.ops have no row"
    assert not ELSEWHERE.keys() - functions, "these exceptions are not functions of needle.ops"
    assert not ELSEWHERE.keys() & {row.op for row in ROWS}, "these exceptions have a row"


def test_every_method_has_a_row():
    """Methods that are functions of needle.ops are tested under the function's name."""
    tested = {row.op for row in ROWS}
    functions = {getattr(ops, name) for name in ops.__all__}
    assert not {name for name, method in TENSOR_METHODS.items() if method not in functions} - tested - WITHOUT_OPS


def test_every_row_is_of_a_function_or_method():
    assert {row.op for row in ROWS} <= {*ops.__all__, *TENSOR_METHODS, *OP_CLASSES}


# ---- teeth: the checker must notice small errors ---------------------------------------------------------------------


@cache
def rows_of_op_classes():
    """Op class -> the rows whose graph, or whose gradients' graph, contains it."""
    rows = {}
    for row in ROWS:
        results = run_needle(row, inputs_of(row, ndl.cpu()), ndl.cpu(), "float64")
        nodes = find_topo_sort([*results["result"], *results.get("gradient", ())])
        for op_class in {type(node.op) for node in nodes}:
            rows.setdefault(op_class, []).append(row)
    return rows


def scaled(value, factor):
    if isinstance(value, TensorTuple):
        return ops.make_tuple(*(scaled(x, factor) for x in value))
    if isinstance(value, dict):
        return {position: scaled(x, factor) for position, x in value.items()}
    return value * factor if isinstance(value, Tensor) else value


def fails(row):
    try:
        check_row(row, ndl.cpu())
    except (AssertionError, RuntimeWarning):
        return True
    return False


TESTED = sorted(OP_CLASSES.keys() - WINDOWED - ABSENT - IN_LAYERS - ACROSS_RANKS)


@pytest.mark.parametrize("name", [name for name in TESTED if OP_CLASSES[name].differentiable])
def test_a_gradient_off_by_a_thousandth_fails(name, monkeypatch):
    op_class = OP_CLASSES[name]
    rows = rows_of_op_classes()[op_class]
    assert not fails(rows[0])
    right = op_class.gradient

    def wrong(self, out_grad, node):
        grads = right(self, out_grad, node)
        return tuple(scaled(x, 1.001) for x in grads) if isinstance(grads, tuple) else scaled(grads, 1.001)

    monkeypatch.setattr(op_class, "gradient", wrong)
    assert any(fails(row) for row in rows)


@pytest.mark.parametrize("name", ["EWiseMul", "EWiseDiv", "Exp", "Log", "Sqrt", "Tanh", "Sigmoid", "MatMul"])
def test_a_gradient_without_a_graph_fails(name, monkeypatch):
    """The first derivatives stay right; only the second ones show it."""
    op_class = OP_CLASSES[name]
    rows = rows_of_op_classes()[op_class]
    right = op_class.gradient

    def wrong(self, out_grad, node):
        grads = right(self, out_grad, node)
        return tuple(x if x is None else x.detach() for x in (grads if isinstance(grads, tuple) else (grads,)))

    monkeypatch.setattr(op_class, "gradient", wrong)
    assert any(fails(row) for row in rows)


@pytest.mark.parametrize("name", TESTED)
def test_a_wrong_result_fails(name, monkeypatch):
    op_class = OP_CLASSES[name]
    right = op_class.compute

    def wrong(self, *arrays):
        result = right(self, *arrays)
        return tuple(array + 1 for array in result) if isinstance(result, tuple) else result + 1

    rows = rows_of_op_classes().get(op_class) or [row for row in ROWS if row.constant]
    monkeypatch.setattr(op_class, "compute", wrong)
    assert any(fails(row) for row in rows)
