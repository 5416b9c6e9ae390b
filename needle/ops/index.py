"""Indexing: reading elements, and its transpose, adding elements into zeros."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import DTypeLike, cpu, device_of, real_dtype, xp
from needle.grad_mode import mode
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.base import Array, FixedShape, Gradients
from needle.ops.operand import as_indices, tensor

__all__ = ["getitem", "one_hot"]


class _ArrayInput:
    """Placeholder in an op's index for an index array, which is an input of the op."""

    def __repr__(self) -> str:
        return "array"


INDEX_ARRAY = _ArrayInput()


def with_arrays(index: tuple[Any, ...], arrays: Iterable[Array]) -> tuple[Any, ...]:
    """The index with arrays in place of the placeholders."""
    arrays = iter(arrays)
    return tuple(next(arrays) if entry is INDEX_ARRAY else entry for entry in index)


def elements(op: str, x: Array, index: tuple[Any, ...]) -> Array:
    """x[index]; an error of the array library names `op`."""
    try:
        return x[index]
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(f"{op}: index must fit shape {x.shape}, but the array says: {error}") from None


class GetItem(TensorOp):
    """x[index]: slices, integers, None and Ellipsis in `index`; index arrays are further inputs."""

    is_view = True

    def __init__(self, index: tuple[Any, ...]) -> None:
        self.index = index

    @property
    def saved_inputs(self) -> range:  # the index arrays
        return range(1, 1 + self.index.count(INDEX_ARRAY))

    def compute(self, x: Array, *arrays: Array) -> Array:
        return elements("getitem", x, with_arrays(self.index, arrays))

    def infer(self, x: Any, *arrays: Any) -> Spec | None:
        if any(array.dtype.kind == "b" for array in arrays):
            return None  # the values of a mask decide how many elements it selects
        namespace = cpu().xp
        empty = (namespace.zeros(array.shape, array.dtype) for array in arrays)
        selected = elements("getitem", namespace.broadcast_to(False, x.shape), with_arrays(self.index, empty))
        return Spec(selected.shape, x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, *arrays = node.inputs
        return (PutItem(self.index, x.shape)(out_grad, *arrays), *[None] * len(arrays))


class PutItem(FixedShape):
    """Zeros of `shape` with x added at `index`; elements addressed twice add up."""

    def __init__(self, index: tuple[Any, ...], shape: Size) -> None:
        self.index, self.shape = index, shape

    @property
    def saved_inputs(self) -> range:  # the index arrays
        return range(1, 1 + self.index.count(INDEX_ARRAY))

    def compute(self, x: Array, *arrays: Array) -> Array:
        y = xp(x).zeros(self.shape, x.dtype)
        if arrays:
            device_of(x).add_at(y, with_arrays(self.index, arrays), x)
        else:
            y[self.index] = x
        return y

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        _, *arrays = node.inputs
        return (GetItem(self.index)(out_grad, *arrays), *[None] * len(arrays))


class OneHot(TensorOp):
    """Integers in [0, n) -> rows with a one at that place; the result is a constant."""

    differentiable = False

    def __init__(self, n: int, dtype: Any) -> None:
        self.n, self.dtype = n, dtype

    def compute(self, indices: Array) -> Array:
        return device_of(indices).one_hot_array(self.n, indices, self.dtype)

    def infer(self, indices: Any) -> Spec:
        return Spec((*indices.shape, self.n), self.dtype)


# ---- functions -------------------------------------------------------------------------------------------------------


def getitem(x: TensorLike, index: Any) -> Tensor:
    """x[index] by NumPy's rules: slices, integers, None, Ellipsis, and arrays or tensors of integers or bools.

    Without arrays the result is a view; an array may select an element more than once, and their gradients add up. The
    index itself has no gradient.

    Raises `TypeError` for index arrays of another dtype, `IndexError` for an index out of range (checked on the CPU
    only) and for a mask of another shape.
    """
    x = tensor("getitem", x)
    template, arrays = parsed_index("getitem", x, index)
    return GetItem(template)(x, *arrays)


def parsed_index(op: str, x: Tensor, index: Any) -> tuple[tuple[Any, ...], list[Tensor]]:
    """An index of x as the parameter of `GetItem`, and the index arrays that are its further inputs."""
    template: list[Any] = []
    arrays = []
    for entry in index if isinstance(index, tuple) else (index,):
        if entry is None or entry is Ellipsis or isinstance(entry, slice):
            template.append(entry)
        elif isinstance(entry, Integral) and not isinstance(entry, bool):
            template.append(int(entry))
        else:
            array: Any = entry
            if not isinstance(entry, Tensor):
                dtype = "int64" if isinstance(entry, list) and not entry else None  # NumPy's would be float64
                array = Tensor(entry, device=x.device, dtype=dtype, requires_grad=False)
            if array.dtype.kind not in "iub":
                raise TypeError(f"{op}: index arrays must be of integers or bools, but got dtype {array.dtype}")
            if mode.outlining and array.dtype.kind == "b" and array.ndim:  # a mask is the list of its true places
                places = [Tensor.make_const(axis) for axis in array.array.nonzero()]
                template += [INDEX_ARRAY] * len(places)
                arrays += places
                continue
            template.append(INDEX_ARRAY)
            arrays.append(array)
    return tuple(template), arrays


def one_hot(n: int, indices: TensorLike, dtype: DTypeLike = "float32") -> Tensor:
    """(\\*I) integers in [0, n), of any dtype -> (\\*I, n): ones at the indices, zeros elsewhere; a constant.

    Raises `TypeError` if n is not an integer or `indices` are bools; `ValueError` if n is below 1 or an index is
    another number (checked on the CPU only).
    """
    n, x = check.integer("one_hot", "n", n, least=1), tensor("one_hot", indices)
    if n * x.size >= 2**60:
        raise ValueError(f"one_hot: the result must have fewer than 2 ** 60 elements, but got {x.size} x {n}")
    return OneHot(n, real_dtype("one_hot", dtype))(as_indices("one_hot", "indices", x, n))
