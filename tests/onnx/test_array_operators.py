"""Operators on arrays (arithmetic, reductions, indices, shapes, casts …): what the official cases leave out."""

import re

import numpy as np
import onnxruntime
import pytest

import needle as ndl
from tests.onnx.array_cases import DRAWN, Draws
from tests.onnx.one_node import in_onnxruntime, operate
from tests.standin.device import STANDIN

X = np.ones((2, 3), "float32")
A = np.arange(24, dtype="float32").reshape(2, 3, 4)
NAN, INF = float("nan"), float("inf")


def array(*values, dtype="float32"):
    return np.array(values, dtype)


# fmt: off
ERRORS = [
    (lambda: operate("Cast", X, to=8), TypeError,
     r"Cast \(domain 'ai\.onnx', opset 23\): to must be a type of real numbers or bools, but got STRING"),
    (lambda: operate("Constant", value_string="a"), TypeError,
     r"Constant \(.*\): value must be a tensor of numbers, but got a sparse one or strings"),
    (lambda: operate("Squeeze", X, [0]), ValueError,
     r"Squeeze \(.*\): axes must have size 1, but got axes \[0\] of shape \(2, 3\)"),
    (lambda: operate("TopK", X, [4], outputs=2), ValueError,
     r"TopK \(.*\): k must lie in \[0, 3\], the size of axis 1, but got 4"),
    (lambda: operate("GatherElements", X, [[0, 3, 0]], axis=1), IndexError, r"take: index must lie in \[-3, 2\], .*"),
    (lambda: operate("ScatterND", X, [[0, 3]], [1.0]), IndexError, r"take: index must lie in \[-3, 2\], .*"),
    (lambda: operate("ScatterND", X, [[0]], [[1.0, 2.0]]), ValueError,
     r"ScatterND \(.*\): the places of indices and updates must agree in shape, but got \(1, 3\) and \(1, 2\)"),
    (lambda: operate("ScatterElements", X, [0], [1.0]), ValueError,
     r"ScatterElements \(.*\): data and indices must agree in rank, but got 2 and 1"),
    (lambda: operate("ScatterElements", X, [[0]], [[1.0]], reduction="mean"), ValueError,
     r"ScatterElements \(.*\): reduction must be one of 'none', 'add', 'mul', 'max', 'min', but got 'mean'"),
    (lambda: operate("GatherND", X, [[[0]]], batch_dims=1), ValueError,
     r"GatherND \(.*\): data and indices must agree in sizes of batch axes, but got \(2,\) and \(1,\)"),
    (lambda: operate("BitCast", X, opset=26, to=3), ValueError,
     r"BitCast \(.*\): input and to must agree in bytes of an element, but got 4 and 1"),
    (lambda: operate("Split", X, [1, 1], outputs=3), ValueError,
     r"Split \(.*\): the parts and the outputs must agree in number, but got 2 and 3"),
    (lambda: operate("Split", X, outputs=3, num_outputs=2), ValueError, r"Split \(.*\): the parts .* got 2 and 3"),
    (lambda: operate("EyeLike", [1.0]), ValueError, r"EyeLike \(.*\): the input and a matrix must agree in rank, .*"),
    (lambda: operate("Gemm", X, X[None]), ValueError, r"Gemm \(.*\): A and B and matrices must agree in rank, .*"),
    (lambda: operate("Gemm", X[:1], X.T, np.ones((4, 2), "float32")), ValueError, r"broadcast_to: shape must be .*"),
    (lambda: operate("BitShift", [1], [1], direction="UP"), ValueError, r"BitShift \(.*\): direction must be .*"),
    (lambda: operate("ReverseSequence", X, [1, 1], batch_axis=0), ValueError,
     r"ReverseSequence \(.*\): time_axis must be one of 1, but got 0"),
    (lambda: operate("Tile", X, [2]), ValueError, r"Tile \(.*\): repeats must .*"),
    (lambda: operate("Reshape", X, [2, 3, 0]), ValueError, r"reshape: shape must hold the 6 elements of .*"),
    (lambda: operate("Unsqueeze", X, [0, 0]), ValueError, r"Unsqueeze \(.*\): axes must differ, .*"),
    *((lambda op=op, inputs=inputs: operate(op, *inputs[:-1], **inputs[-1]), ValueError,
       rf"{op} \(.*\): axis must lie in \[.*\], but got 7")
      for op, inputs in {
          "Flatten": (X, {"axis": 7}), "Squeeze": (X, [7], {}), "Unsqueeze": (X, [7], {}), "CumSum": (X, 7, {}),
          "Slice": (X, [0], [1], [7], {}), "Split": (X, {"axis": 7}), "Gather": (X, [0], {"axis": 7}),
          "GatherElements": (X, [[0]], {"axis": 7}), "ScatterElements": (X, [[0]], [[1.0]], {"axis": 7}),
          "TopK": (X, [1], {"axis": 7}), "Unique": (X, {"axis": 7}), "OneHot": ([0], 2, [0, 1], {"axis": 7}),
          "Compress": (X, [True], {"axis": 7}),
      }.items()),
    (lambda: operate("Div", [1], [0]), ValueError, r"fmod: the divisor of integers must not be 0, but got 0"),
    (lambda: operate("Range", 0, 4, 0), ValueError, r"arange: step must not be 0, but got 0"),
]

ML = {"domain": "ai.onnx.ml"}

# Versions of operators that the official cases no longer use, and edges: name, opset, inputs, attributes, outputs.
EXACT = [
    ("Add", 6, [A, array(1, 2, 3)], {"axis": 1, "broadcast": 1}, A + array(1, 2, 3)[:, None]),
    ("Sub", 6, [A, array(1, 2)], {"axis": -3, "broadcast": 1}, A - array(1, 2)[:, None, None]),
    ("Mul", 6, [A, array(1, 2, 3, 4)], {"broadcast": 1}, A * array(1, 2, 3, 4)),
    ("Less", 1, [A, array(5, 6)], {"axis": 0, "broadcast": 1}, array(5, 6)[:, None, None] > A),
    ("Pow", 1, [A, array(2)], {"broadcast": 1}, A**2),
    ("Clip", 1, [array(-3, 9)], {"max": 2.0}, array(-3, 2)),
    ("Clip", 6, [array(-INF, 9)], {}, array(-np.finfo("float32").max, 9)),
    ("Clip", 6, [array(-INF, 9, dtype="float16")], {"max": 2.0}, array(-INF, 2, dtype="float16")),
    ("Clip", 13, [array(-INF, NAN), None, np.float32(2)], {}, array(-np.finfo("float32").max, NAN)),
    ("Clip", 13, [array(1, 5), np.float32(4), np.float32(2)], {}, array(2, 2)),
    ("Cast", 1, [array(1.5, -1.5)], {"to": "INT32"}, array(1, -1, dtype="int32")),
    ("Cast", 13, [array(0, NAN, -0.5)], {"to": 9}, array(False, True, True, dtype=bool)),
    ("Reshape", 1, [A], {"shape": [0, -1]}, A.reshape(2, 12)),
    ("Reshape", 14, [A[:0], np.array([3, 0])], {"allowzero": 1}, np.zeros((3, 0), "float32")),
    ("Concat", 1, [X, X], {}, np.concatenate([X, X], 1)),
    ("Split", 1, [A, np.array([1, 3])], {"axis": 2}, [A[..., :1], A[..., 1:]]),
    ("Split", 2, [A], {"axis": 2, "split": [1, 3]}, [A[..., :1], A[..., 1:]]),
    ("Split", 2, [A], {"axis": 2}, [A[..., :2], A[..., 2:]]),
    ("Split", 18, [A], {"axis": 1, "num_outputs": 4}, [A[:, :1], A[:, 1:2], A[:, 2:], A[:, :0]]),
    ("Slice", 1, [A], {"starts": [1, -2], "ends": [9, -1], "axes": [1, 2]}, A[:, 1:, -2:-1]),
    ("Slice", 13, [array(1, 2, 3), [-9], [-9], [0], [-1]], {}, array(1)),  # by the standard, unlike Python
    ("Squeeze", 1, [A[:, :1]], {"axes": [1]}, A[:, 0]),
    ("Squeeze", 13, [A[:1, :1], np.array([], "int64")], {}, A[:1, :1]),
    ("Unsqueeze", 1, [X], {"axes": [0, 3]}, X[None, ..., None]),
    ("Tile", 1, [X, np.array(2), np.array(1)], {}, np.tile(X, (1, 2))),
    ("TopK", 1, [array(1, 3, 3, 2)], {"k": 2}, [array(3, 3), np.array([1, 2])]),
    ("TopK", 10, [array(1, NAN, 2), np.array([2])], {}, [array(NAN, 2), np.array([1, 2])]),
    ("Scatter", 9, [X, np.array([[1, 0, 1]]), array(4, 5, 6)[None]], {"axis": 0}, array([1, 5, 1], [4, 1, 6])),
    ("Gemm", 6, [X, X.T, array(1, 2)], {"broadcast": 1, "beta": 2.0}, array([5, 7], [5, 7])),
    ("Gemm", 13, [X, X.T, array(NAN)], {"beta": 0.0}, array([3, 3], [3, 3])),
    ("Gemm", 13, [X.astype("int64"), X.T.astype("int64")], {"alpha": 0.5}, np.full((2, 2), 1)),
    ("Gemm", 13, [np.array([[2**30 + 1]]), np.array([[1]])], {"alpha": 2.0}, np.array([[2**31 + 2]])),
    ("Sum", 1, [X, X, X], {}, 3 * X),
    ("Mean", 8, [X, array(3)], {}, 2 * X),
    ("Div", 14, [np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])], {}, np.array([3, -3, -3, 3])),
    ("Mod", 13, [np.array([7, -7]), np.array([-4, 4])], {}, np.array([-1, 1])),
    ("Mod", 13, [np.array([7, -7]), np.array([-4, 4])], {"fmod": 1}, np.array([3, -3])),
    ("Pow", 15, [np.array([9, 3]), array(0.5, 2)], {}, np.array([3, 9])),
    ("Pow", 15, [np.array([3]), np.array([39])], {}, np.array([3**39])),
    ("Erf", 13, [np.array([-3, 0, 9])], {}, np.array([0, 0, 1])),
    ("BitShift", 28, [np.array([-8, 8]), np.array([64, -1])], {"direction": "RIGHT"}, np.array([-1, 0])),
    ("IsInf", 10, [array(INF, -INF, NAN)], {"detect_negative": 0}, array(True, False, False, dtype=bool)),
    ("IsInf", 10, [array(INF, -INF, NAN)], {"detect_positive": 0}, array(False, True, False, dtype=bool)),
    ("ReduceMax", 20, [np.zeros((2, 0), bool), np.array([1])], {"keepdims": 0}, array(False, False, dtype=bool)),
    ("ReduceMin", 20, [np.zeros((2, 0), "uint8"), np.array([1])], {"keepdims": 0}, array(255, 255, dtype="uint8")),
    ("ReduceMax", 20, [np.zeros((2, 0), "int8"), np.array([0])], {"keepdims": 1}, np.zeros((1, 0), "int8")),
    ("ReduceMax", 20, [np.zeros((2, 0), "int8"), np.array([1])], {"keepdims": 0}, array(-128, -128, dtype="int8")),
    ("ReduceMax", 13, [array(1, NAN)], {"keepdims": 0}, np.float32(NAN)),
    ("ReduceSumSquare", 18, [array(-2, 3), None], {"noop_with_empty_axes": 1}, array(4, 9)),
    ("ReduceL2", 18, [array(-2, 3), None], {"noop_with_empty_axes": 1}, array(2, 3)),
    ("CumSum", 14, [np.zeros((2, 0), "int32"), np.array(1)], {"exclusive": 1}, np.zeros((2, 0), "int32")),
    ("ReduceMean", 18, [np.array([2**40 + 1, 2**40 + 3])], {"keepdims": 0}, np.int64(2**40 + 2)),
    ("ScatterND", 16, [X, np.array([[[0], [0]]]), array([4, 5, 6], [7, 8, 9])[None]], {"reduction": "add"},
     X + array([11, 13, 15], [0, 0, 0])),
    ("ArgMax", 13, [array(1, NAN, 3)], {"keepdims": 0}, np.int64(1)),
    ("ArgMin", 12, [array(2, 1, 1)], {"keepdims": 0, "select_last_index": 1}, np.int64(2)),
    ("NonZero", 13, [np.float32(2)], {}, np.zeros((0, 1), "int64")),
    ("Unique", 11, [array(NAN, 1, NAN)], {"sorted": 0},
     [array(NAN, 1), np.array([0, 1]), np.array([0, 1, 0]), np.array([2, 1])]),
    ("Range", 27, [np.float16(0), np.float16(2), np.float16(0.5)], {}, array(0, 0.5, 1, 1.5, dtype="float16")),
    ("Constant", 12, [], {"value_ints": [1, 2]}, np.array([1, 2])),
    ("Constant", 12, [], {"value_float": 0.5}, np.float32(0.5)),
    ("ConstantOfShape", 9, [np.array([2])], {}, array(0, 0)),
    ("OneHot", 9, [array(1, -1, 7), np.array([2]), array(0, 5)], {"axis": 0}, array([0, 0, 0], [5, 5, 0])),
    ("ArrayFeatureExtractor", 1, [array(4, 5, 6), np.array([2, 0])], ML, array([6, 4])),
    ("Binarizer", 1, [array(1, 2, 3)], {"threshold": 2.0, **ML}, array(0, 0, 1)),
    ("BitCast", 26, [array(1.0)], {"to": 6}, array(0x3F800000, dtype="int32")),
    ("NonMaxSuppression", 11, [np.zeros((1, 2, 4), "float32"), np.array([[[1, 2]]], "float32"), np.array(9)], {},
     np.array([[0, 0, 1], [0, 0, 0]])),
]

# What onnxruntime does otherwise than the standard: name, inputs, attributes, and its first output.
DEPARTURES = [
    ("ArgMax", [array(1, NAN, 3)], {"keepdims": 0}, 2),
    ("ReduceMax", [array(1, NAN, 3)], {"keepdims": 0}, 3),
    ("ReduceMean", [np.zeros((0, 2), "float32"), np.array([0])], {"keepdims": 0}, [0, 0]),
    ("Unique", [array(NAN, 1, NAN, 2)], {}, [NAN]),
    ("NonZero", [np.float32(2)], {}, [[0]]),
    ("Slice", [array(1, 2, 3), np.array([1]), np.array([2**31 - 1]), np.array([0]), np.array([-1])], {}, [2, 1]),
    ("Squeeze", [X[:1], np.array([], "int64")], {}, [1, 1, 1]),
]

# Operators that are differentiable, in their first input and others that are of floats.
DIFFERENTIABLE = [
    ("Max", [[1.0, 2.0], [2.0, 1.0], [0.0, 3.0]], {}), ("Mean", [[1.0, 2.0], [3.0]], {}),
    ("Pow", [[1.0, 2.0], 3.0], {}), ("Pow", [[-1.0, 2.0], 2], {}),
    ("Clip", [[-3.0, 0.5, 3.0], -1.0, 1.0], {}), ("Clip", [[-3.0, 0.5, 3.0], -1.0], {}),
    ("Erf", [[-1.0, 0.5]], {}), ("Mod", [[7.0], [2.5]], {"fmod": 1}),
    ("Gemm", [[[1.0, 2.0]], [[3.0, 4.0]], [5.0]], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Einsum", [[[1.0, 2.0]], [[3.0], [4.0]]], {"equation": "ij,jk->ik"}), ("Det", [[[1.0, 2.0], [3.0, 5.0]]], {}),
    ("ReduceL2", [[1.0, 2.0]], {}), ("ReduceLogSumExp", [[1.0, 2.0]], {}), ("ReduceProd", [[0.0, 2.0, 3.0]], {}),
    ("ReduceMax", [[1.0, 2.0]], {}), ("CumSum", [[1.0, 2.0], np.array(0)], {"exclusive": 1, "reverse": 1}),
    ("Slice", [[1.0, 2.0, 3.0], [2], [0], [0], [-1]], {}), ("Trilu", [[[1.0, 2.0], [3.0, 4.0]]], {"upper": 0}),
    ("Gather", [[1.0, 2.0], [1, 1]], {}), ("GatherElements", [[1.0, 2.0], [1, -1]], {}),
    ("GatherND", [[[1.0, 2.0], [3.0, 4.0]], [[1, 0], [1, 0]]], {}),
    *(("ScatterElements", [[1.0, 2.0, 3.0], [1, 2, 1], [4.0, 1.0, 5.0]], {"reduction": reduction})
      for reduction in ("add", "mul", "max")),
    ("ScatterND", [[1.0, 2.0, 3.0], [[2], [0]], [4.0, 5.0]], {"reduction": "none"}),
    ("TensorScatter", [[[[1.0], [2.0]]], [[[3.0]]], [1]], {}),
    ("Unique", [[2.0, 1.0, 3.0]], {}), ("Compress", [[2.0, 1.0], [True, False]], {}),
    ("ReverseSequence", [[[1.0, 2.0], [3.0, 4.0]], [2, 1]], {}), ("OneHot", [[1, 0], 2, [0.5, 3.0]], {}),
    ("Where", [[True, False], [1.0, 2.0], [3.0]], {}), ("Range", [0.5, 2.0, 1.0], {}),
]
# fmt: on


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_message(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert re.fullmatch(text, str(caught.value), re.DOTALL)


def outputs_of(name, inputs, opset, attributes, device, outputs=4):
    """The outputs of a node on a device, as arrays."""
    tensors = (x if x is None else ndl.Tensor(x, device=device, requires_grad=False) for x in inputs)
    results = operate(name, *tensors, opset=opset, outputs=outputs, **attributes)
    results = results if isinstance(results, tuple) else (results,)
    assert not inputs or all(y.device == device for y in results)
    return [y.numpy() for y in results]


@pytest.mark.parametrize(("name", "opset", "inputs", "attributes", "expected"), EXACT)
def test_old_versions_and_edges(name, opset, inputs, attributes, expected, device):
    expected = expected if isinstance(expected, list) else [expected]
    results = outputs_of(name, inputs, opset, attributes, device, len(expected))
    assert len(results) == len(expected)
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, right)
        assert result.dtype == right.dtype


def compared(draw, seed):
    """Whether onnxruntime computes a random node; then needle's results are the same, on the stand-in, too."""
    name, inputs, opset, attributes = draw(Draws(seed))
    outputs = {"Split": 3, "TopK": 2, "Unique": 4}.get(name, 1)
    try:
        expected = in_onnxruntime(name, *inputs, opset=opset, outputs=outputs, **attributes)
    except Exception:  # it lacks the dtype
        return False
    kinds = [None if x is None else (x.shape, str(x.dtype)) for x in inputs]
    case = f"{draw.__name__} {seed}: {name} {opset} {attributes} {kinds}"
    for device in (ndl.cpu(), STANDIN) if seed % 3 == 0 else (ndl.cpu(),):
        for result, right in zip(outputs_of(name, inputs, opset, attributes, device, outputs), expected, strict=True):
            assert (result.dtype, result.shape) == (right.dtype, right.shape), case
            np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-5, err_msg=case)
    return True


@pytest.mark.on_cpu
@pytest.mark.parametrize("draw", DRAWN)
def test_random_nodes_are_those_of_onnxruntime(draw):
    onnxruntime.set_default_logger_severity(4)
    with np.errstate(all="ignore"):
        assert sum(compared(draw, seed) for seed in range(24)) >= 12


@pytest.mark.parametrize(("name", "inputs", "attributes", "theirs"), DEPARTURES)
def test_onnxruntime_departs_from_the_standard(name, inputs, attributes, theirs):
    """In version 1.32. Needle's results are those of the standard; see the exact ones above."""
    result = in_onnxruntime(name, *inputs, opset=18, **attributes)[0]
    np.testing.assert_array_equal(result, theirs)
    with np.errstate(invalid="ignore"):
        ours = outputs_of(name, inputs, 18, attributes, ndl.cpu(), 1)[0]
    assert ours.shape != result.shape or not np.array_equal(ours, result)


@pytest.mark.parametrize(("name", "inputs", "attributes"), DIFFERENTIABLE)
def test_derivatives(name, inputs, attributes):
    inputs = [np.asarray(x) for x in inputs]
    places = [i for i, x in enumerate(inputs) if x.dtype.kind == "f"]
    leaves = [ndl.Tensor(inputs[i]) for i in places]

    def first(*tensors):
        given = {i: ndl.Tensor(x, requires_grad=False) for i, x in enumerate(inputs)}
        given |= dict(zip(places, tensors, strict=True))
        result = operate(name, *given.values(), opset=24, **attributes)
        return result[0] if isinstance(result, tuple) else result

    assert ndl.gradcheck(first, *leaves)
    assert any(grad is not None for grad in ndl.grad(first(*leaves).sum(), leaves, allow_unused=True))
