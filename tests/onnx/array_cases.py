"""Random nodes of the operators on arrays: functions of a generator that return (name, inputs, opset, attributes).

They leave out what onnxruntime does otherwise, which `test_array_operators.py` lists: NaN where values are ordered,
reductions of nothing, and the like.
"""

import numpy as np
import onnx

FLOATS = ["float32", "float64"]
DTYPES = [*FLOATS, "int32", "int64"]


class Draws(np.random.Generator):
    """A generator with draws of shapes, arrays and choices."""

    def __init__(self, seed):
        super().__init__(np.random.PCG64(seed))

    def pick(self, *entries):
        return entries[self.integers(len(entries))]

    def number(self, low, high):
        """An integer in [low, high]."""
        return int(self.integers(low, high + 1))

    def sizes(self, low=0, high=4, least=0):
        return tuple(max(least, self.pick(0, 1, 2, 2, 3, 4)) for _ in range(self.number(low, high)))

    def array(self, shape, dtype="float32", low=-6):
        if dtype == "bool":
            return np.asarray(self.random(shape) < 0.5)
        x = self.normal(size=shape) * 3 if np.dtype(dtype).kind == "f" else self.integers(low, 7, shape)
        return np.asarray(x, dtype)

    def broadcast(self, count=2):
        """Shapes that broadcast."""
        shape = self.sizes()
        ones = lambda: tuple(n if self.random() < 0.7 else 1 for n in shape)  # noqa: E731
        return [ones()[self.number(0, len(shape)) if self.random() < 0.4 else 0 :] for _ in range(count)]

    def axes(self, rank, count):
        """Different axes, some counted from the end."""
        return [int(a) - rank * self.pick(0, 0, 1) for a in self.permutation(rank)[:count]]


def of_one(draws):
    name = draws.pick("Abs", "Atan", "Ceil", "Cos", "Exp", "Floor", "Neg", "Reciprocal", "Round", "Sign", "Sinh", "Tan")
    return name, [draws.array(draws.sizes())], 13, {}


def of_two(draws):
    name = draws.pick("Add", "Sub", "Mul", "Div", "Equal", "Less", "GreaterOrEqual", "Max", "Min", "Mod", "Pow")
    dtype = draws.pick(*DTYPES)
    a, b = (draws.array(shape, dtype) for shape in draws.broadcast())
    if name == "Pow":
        a, b = abs(a), abs(b)
    if name in ("Div", "Mod"):
        b += (b == 0).astype(dtype)
    return name, [a, b], 13, {"fmod": int(a.dtype.kind == "f" or draws.pick(0, 1))} if name == "Mod" else {}


def of_bools(draws):
    a, b, c = draws.broadcast(3)
    if draws.random() < 0.5:
        return "Where", [draws.array(a, "bool"), draws.array(b), draws.array(c)], 16, {}
    return draws.pick("And", "Or", "Xor"), [draws.array(a, "bool"), draws.array(b, "bool")], 7, {}


def of_bits(draws):
    a, b = draws.broadcast()
    if draws.random() < 0.5:
        return draws.pick("BitwiseAnd", "BitwiseOr", "BitwiseXor"), [draws.array(s, "int64") for s in (a, b)], 18, {}
    a, b = draws.array(a, "uint8", low=0), draws.array(b, "uint8", low=0)
    return "BitShift", [a, b], 11, {"direction": draws.pick("LEFT", "RIGHT")}


def clipping(draws):
    dtype = draws.pick(*DTYPES)
    bounds = [draws.pick(None, draws.array((), dtype)) for _ in range(2)]
    return "Clip", [draws.array(draws.sizes(), dtype), *bounds], 13, {}


def reduction(draws):
    name = draws.pick("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare")
    x = draws.array(draws.sizes(least=1), draws.pick(*DTYPES) if name not in ("LogSumExp", "L2", "Mean") else "float64")
    axes, keepdims = draws.axes(x.ndim, draws.number(0, x.ndim)), draws.pick(0, 1)
    if draws.random() < 0.5:
        return f"Reduce{name}", [x], 11, {"keepdims": keepdims, **({"axes": axes} if axes else {})}
    options = {"keepdims": keepdims, "noop_with_empty_axes": draws.pick(0, 1)}
    return f"Reduce{name}", [x, draws.pick(None, np.array(axes, "int64"))], 18, options


def extreme_place(draws):
    x = np.round(draws.array(draws.sizes(1, least=1), draws.pick("float32", "int32")) / 2).astype("float32")
    options = {"keepdims": draws.pick(0, 1), "select_last_index": draws.pick(0, 1)}
    return draws.pick("ArgMax", "ArgMin"), [x], 13, {"axis": draws.axes(x.ndim, 1)[0], **options}


def running(draws):
    name = draws.pick("CumSum", "CumProd")
    x = draws.array(draws.sizes(1), draws.pick(*DTYPES))
    axis = np.array(draws.axes(x.ndim, 1)[0], draws.pick("int32", "int64"))
    return (
        name,
        [x, axis],
        26 if name == "CumProd" else 14,
        {"exclusive": draws.pick(0, 1), "reverse": draws.pick(0, 1)},
    )


def product(draws):
    n, k, m = (draws.number(0 if draws.random() < 0.1 else 1, 4) for _ in range(3))
    if draws.random() < 0.5:
        a, b = draws.broadcast()
        a, b = draws.pick((*a, n, k), (k,)), draws.pick((*b, k, m), (k,))
        dtype = draws.pick(*DTYPES)
        return "MatMul", [draws.array(a, dtype), draws.array(b, dtype)], 13, {}
    options = {"transA": draws.pick(0, 1), "transB": draws.pick(0, 1), "alpha": 0.5, "beta": draws.pick(0.0, 1.0, 2.0)}
    a, b = (k, n) if options["transA"] else (n, k), (m, k) if options["transB"] else (k, m)
    c = draws.pick(None, draws.array(draws.pick((n, m), (m,), (1, m), (n, 1), ())))
    return "Gemm", [draws.array(a), draws.array(b), c], 13, options


def einsum(draws):
    sizes = {letter: draws.number(1, 3) for letter in "abcd"}
    terms = ["".join(draws.choice(list("abcd"), draws.number(0, 3))) for _ in range(draws.number(1, 3))]
    letters = sorted({*"".join(terms)})
    result = "".join(letter for letter in draws.permutation(letters) if draws.random() < 0.6) if letters else ""
    equation = ",".join(terms) + draws.pick("", f"->{result}")
    return "Einsum", [draws.array([sizes[letter] for letter in term], "float64") for term in terms], 12, {
        "equation": equation
    }  # fmt: skip


def slices(draws):
    x = draws.array(draws.sizes(1), draws.pick("float32", "int64", "bool"))
    axes = draws.axes(x.ndim, draws.number(1, x.ndim))
    starts, ends = (np.array([draws.pick(-9, -3, -2, -1, 0, 1, 2, 3, 9) for _ in axes]) for _ in range(2))
    steps = draws.pick(None, np.array([draws.pick(1, 2, 3, -1, -2) for _ in axes]))
    return "Slice", [x, starts, ends, np.array(axes), steps], 13, {}


def shapes(draws):
    x = draws.array(draws.sizes(1, least=1), draws.pick("float32", "int64", "bool"))
    name, rank = (
        draws.pick("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Tile", "Flatten", "Shape"),
        x.ndim,
    )
    if name == "Reshape":
        return name, [x, np.array([*x.shape[1:], draws.pick(-1, x.shape[0])])], 14, {}
    if name == "Transpose":
        return name, [x], 13, {"perm": [int(i) for i in draws.permutation(rank)]}
    if name == "Unsqueeze":
        return name, [x, np.array(draws.axes(rank + 2, 2))], 13, {}
    if name == "Squeeze":
        ones = [i - rank * draws.pick(0, 1) for i, n in enumerate(x.shape) if n == 1]
        return name, [x, np.array(ones, "int64") if ones else None], 13, {}
    if name == "Expand":
        return name, [x, np.array([2, *(draws.pick(n, 1) for n in x.shape)])], 13, {}
    if name == "Tile":
        return name, [x, draws.integers(0, 3, rank)], 13, {}
    if name == "Flatten":
        return name, [x], 13, {"axis": draws.number(-rank, rank)}
    return name, [x], 15, {"start": draws.number(-5, 5), "end": draws.number(-5, 5)}


def parts(draws):
    shape = list(draws.sizes(1))
    axis = draws.axes(len(shape), 1)[0]
    if draws.random() < 0.5:
        others = [[*shape[:axis], draws.number(0, 3), *shape[axis:][1:]] for _ in range(3)]
        return "Concat", [draws.array(other) for other in others], 13, {"axis": axis}
    sizes = draws.pick(None, [1, 0, 3])
    shape[axis] = sum(sizes) if sizes else draws.pick(5, 6, 8)
    options = {"axis": axis} if sizes else {"axis": axis, "num_outputs": 3}
    return "Split", [draws.array(shape), sizes and np.array(sizes)], 18, options


def gathering(draws):
    x, name = draws.array(draws.sizes(1, least=1)), draws.pick("Gather", "GatherElements", "GatherND")
    axis, kind = draws.axes(x.ndim, 1)[0], draws.pick("int32", "int64")
    n = x.shape[axis]
    if name == "Gather":
        return name, [x, np.asarray(draws.integers(-n, n, draws.sizes(0, 3)), kind)], 13, {"axis": axis}
    if name == "GatherElements":
        shape = [draws.number(1, m) for m in x.shape]
        shape[axis] = draws.number(0, 5)
        return name, [x, draws.integers(-n, n, shape).astype(kind)], 13, {"axis": axis}
    batch = draws.number(0, x.ndim - 1)
    shape = (*x.shape[:batch], *draws.sizes(0, 2))
    columns = [draws.integers(-m, m, shape) for m in x.shape[batch : draws.number(batch + 1, x.ndim)]]
    return name, [x, np.stack(columns, -1)], 13, {"batch_dims": batch}


def scattering(draws):
    x, reduction = draws.array(draws.sizes(1, least=1)), draws.pick("none", "add", "mul", "max", "min")
    if draws.random() < 0.5:
        axis, shape = draws.axes(x.ndim, 1)[0], [draws.number(1, n) for n in x.shape]
        places = np.argsort(draws.random(x.shape), axis)[tuple(slice(n) for n in shape)]
        if reduction != "none":
            shape[axis] = draws.number(0, 5)
            places = draws.integers(-x.shape[axis], x.shape[axis], shape)
        return "ScatterElements", [x, places, draws.array(shape)], 18, {"axis": axis, "reduction": reduction}
    head = x.shape[: draws.number(1, x.ndim)]
    total = int(np.prod(head))
    flat = draws.permutation(total)[:3] if reduction == "none" else draws.integers(0, total, 5)
    places = np.stack(np.unravel_index(flat, head), -1)
    return "ScatterND", [x, places, draws.array((len(flat), *x.shape[len(head) :]))], 18, {"reduction": reduction}


def ordering(draws):
    x = np.round(draws.array(draws.sizes(1, least=1)) / 2)
    axis = draws.axes(x.ndim, 1)[0]
    if draws.random() < 0.5:
        k = draws.number(0, x.shape[axis])
        return "TopK", [x, np.array([k])], 11, {"axis": axis, "largest": draws.pick(0, 1)}
    return "Unique", [x], 11, {"sorted": draws.pick(0, 1), **draws.pick({}, {"axis": axis})}


def choosing(draws):
    x = draws.array(draws.sizes(2, least=1))
    name = draws.pick("Compress", "ReverseSequence", "OneHot", "NonZero", "Trilu", "EyeLike")
    if name == "Compress":
        axis = draws.pick(None, draws.axes(x.ndim, 1)[0])
        condition = draws.array((draws.number(0, x.size if axis is None else x.shape[axis]),), "bool")
        return name, [x, condition], 11, {} if axis is None else {"axis": axis}
    if name == "ReverseSequence":
        batch = draws.pick(0, 1)
        lengths = draws.integers(1, x.shape[1 - batch] + 1, x.shape[batch])
        return name, [x, lengths], 10, {"batch_axis": batch, "time_axis": 1 - batch}
    if name == "OneHot":
        return name, [draws.integers(-6, 6, x.shape), np.array(4), draws.array(2)], 11, {"axis": draws.number(-2, 2)}
    if name == "NonZero":
        return name, [np.round(x / 3)], 13, {}
    if name == "Trilu":
        return name, [x, draws.pick(None, np.array(draws.number(-5, 5)))], 14, {"upper": draws.pick(0, 1)}
    return name, [draws.array(draws.sizes(2, 2))], 9, {"k": draws.number(-4, 4), "dtype": onnx.TensorProto.INT64}


def boxes(draws):
    count, classes, n = draws.number(1, 2), draws.number(1, 2), draws.number(1, 8)
    limits = [np.array([draws.number(0, 5)]), draws.random(1, "float32"), draws.pick(None, draws.random(1, "float32"))]
    inputs = [draws.random((count, n, 4), "float32"), draws.random((count, classes, n), "float32"), *limits]
    return "NonMaxSuppression", inputs, 11, {"center_point_box": draws.pick(0, 1)}


DRAWN = [
    of_one, of_two, of_bools, of_bits, clipping, reduction, extreme_place, running, product, einsum, slices, shapes,
    parts, gathering, scattering, ordering, choosing, boxes,
]  # fmt: skip
