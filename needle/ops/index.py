"""Indexing: reading elements, and its transpose, adding elements into zeros."""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorOp
from needle.backend import cpu, device_of, xp
from needle.lazy import Spec
from needle.ops.base import Reshaping
from needle.ops.operand import tensor


class _FromInput:
    """Stands in an op's index for an index array, which is an input of the op."""

    def __repr__(self):
        return "array"


_INPUT = _FromInput()


def _filled(index, arrays):
    """The index with the arrays put back in."""
    arrays = iter(arrays)
    return tuple(next(arrays) if entry is _INPUT else entry for entry in index)


class GetItem(TensorOp):
    """x[index]: slices, integers, None and Ellipsis in `index`, index arrays as further inputs."""

    reads_inputs, is_view = slice(1, None), True

    def __init__(self, index):
        self.index = index

    def compute(self, x, *arrays):
        return x[_filled(self.index, arrays)]

    def infer(self, x, *arrays):
        if any(array.dtype.kind == "b" for array in arrays):
            return None  # the values of a mask tell how many elements it picks
        namespace = cpu().xp
        picked = namespace.broadcast_to(False, x.shape)[
            _filled(self.index, (namespace.zeros(array.shape, array.dtype) for array in arrays))
        ]
        return Spec(picked.shape, x.dtype)

    def gradient(self, out_grad, node):
        x, *arrays = node.inputs
        return (PutItem(self.index, x.shape)(out_grad, *arrays), *[None] * len(arrays))


class PutItem(Reshaping):
    """Zeros of `shape` with x added at `index`; what is addressed twice adds up."""

    reads_inputs = slice(1, None)

    def __init__(self, index, shape):
        self.index, self.shape = index, shape

    def compute(self, x, *arrays):
        out = xp(x).zeros(self.shape, x.dtype)
        if arrays:
            device_of(x).add_at(out, _filled(self.index, arrays), x)
        else:
            out[self.index] = x
        return out

    def gradient(self, out_grad, node):
        _, *arrays = node.inputs
        return (GetItem(self.index)(out_grad, *arrays), *[None] * len(arrays))


class OneHot(TensorOp):
    """Integers in [0, n) -> rows with a one there; a constant for the graph."""

    differentiable = False

    def __init__(self, n, dtype):
        self.n, self.dtype = n, dtype

    def compute(self, indices):
        return device_of(indices).one_hot(self.n, indices, self.dtype).array

    def infer(self, indices):
        return Spec((*indices.shape, self.n), cpu().xp.dtype(self.dtype))


def getitem(x, index):
    """x[index] by NumPy's rules: slices, integers, None, Ellipsis, and arrays or tensors of integers or bools."""
    x = tensor("getitem", x)
    index = index if isinstance(index, tuple) else (index,)
    template, arrays = [], []
    for entry in index:
        if entry is None or entry is Ellipsis or (isinstance(entry, (slice, int)) and not isinstance(entry, bool)):
            template.append(entry)
        else:
            array = entry if isinstance(entry, Tensor) else Tensor(entry, device=x.device, requires_grad=False)
            if array.dtype.kind not in "iub":
                raise TypeError(f"getitem: index arrays must be of integers or bools, but got dtype {array.dtype}")
            template.append(_INPUT)
            arrays.append(array)
    return GetItem(tuple(template))(x, *arrays)


def one_hot(n, indices, dtype="float32"):
    """(*I) integers in [0, n), of any dtype -> (*I, n): ones at the indices, zeros elsewhere."""
    return OneHot(check.integer("one_hot", "n", n, least=1), dtype)(tensor("one_hot", indices))
