"""Other forms of ops, by torch's and NumPy's names: each is a reshape, a slice or a copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import cpu
from needle.backend_ndarray import cuda
from needle.kernels import Size
from needle.ops import logic, reduce, truth
from needle.ops.arithmetic import add, cast, divide, multiply, negate, subtract
from needle.ops.copies import clone
from needle.ops.elementwise import expm1, maximum, minimum
from needle.ops.index import GetItem
from needle.ops.joining import split
from needle.ops.linalg import matmul
from needle.ops.operand import tensor
from needle.ops.powers import power
from needle.ops.shape import Permute, Reshape, broadcast_to, reshape, transpose
from needle.ops.transfer import to
from needle.words import Axes, AxesWords, AxisWords, respelled

__all__ = ["chunk", "expand", "flatten", "squeeze", "unsqueeze"]


def squeeze(x: TensorLike, axes: Axes = None, **words: Unpack[AxesWords]) -> Tensor:
    """x without its axes of size 1: all, or those among `axes`; axes of other sizes stay, as in torch. A view.

    Raises `TypeError` or `ValueError` for axes as `summation` does.
    """
    if words:
        return respelled(squeeze, words, x, axes=axes)
    x = tensor("squeeze", x)
    dropped = check.axes("squeeze", axes, max(x.ndim, 1))
    return Reshape(n for i, n in enumerate(x.shape) if n != 1 or i not in dropped)(x)


def unsqueeze(x: TensorLike, axis: int | None = None, **words: Unpack[AxisWords]) -> Tensor:
    """x with a new axis of size 1 at `axis`: `(…, …) -> (…, 1, …)`; -1 is the last of the result. A view.

    Raises `TypeError` unless `axis` is an integer, `ValueError` if the result lacks it.
    """
    if words:
        return respelled(unsqueeze, words, x, axis=axis)
    x = tensor("unsqueeze", x)
    place = check.axis("unsqueeze", axis, x.ndim + 1)
    return Reshape((*x.shape[:place], 1, *x.shape[place:]))(x)


def flatten(x: TensorLike, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim`, both included, as one; by default all. A view if the memory allows.

    A tensor without axes becomes (1,). Raises `TypeError` unless they are integers, `ValueError` for axes that x lacks
    or a start after the end.
    """
    x = tensor("flatten", x)
    rank = max(x.ndim, 1)
    start, end = check.axis("flatten", start_dim, rank, "start_dim"), check.axis("flatten", end_dim, rank, "end_dim")
    if start > end:
        raise ValueError(f"flatten: start_dim must not come after end_dim, but got {start_dim} and {end_dim}")
    return Reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))(x)


def expand(x: TensorLike, shape: int | Size, *sizes: int) -> Tensor:
    """`broadcast_to` with -1 for a size that stays: x repeated up to `shape`, or to sizes one by one. A view.

    Raises what `broadcast_to` raises.
    """
    x = tensor("expand", x)
    wanted = (shape, *sizes) if isinstance(shape, int) else tuple(shape)
    lead = len(wanted) - x.ndim
    return broadcast_to(x, [x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(wanted)])


def chunk(x: TensorLike, chunks: int, axis: int = 0, **words: Unpack[AxisWords]) -> tuple[Tensor, ...]:
    """x cut along `axis` into parts of equal size, of which the last may be smaller: at most `chunks` views.

    Raises `ValueError` if `chunks` is less than 1 or x lacks the axis; `TypeError` unless both are integers.
    """
    if words:
        return respelled(chunk, words, x, chunks=chunks, axis=axis)
    x, chunks = tensor("chunk", x), check.integer("chunk", "chunks", chunks, least=1)
    axis = check.axis("chunk", axis, x.ndim)
    n = x.shape[axis]
    return split_sizes(x, -(-n // chunks) if n else [0] * chunks, axis)


def split_sizes(x: Tensor, sizes: int | Sequence[int], axis: int = 0, **words: Unpack[AxisWords]) -> tuple[Tensor, ...]:
    """x cut along `axis` into parts of one size, of which the last may be smaller, or of these sizes: views.

    Raises `ValueError` unless sizes are at least 1, or several fill the axis.
    """
    if words:
        return respelled(split_sizes, words, x, sizes=sizes, axis=axis)
    axis = check.axis("split", axis, x.ndim)
    n, lead = x.shape[axis], (slice(None),) * axis
    if isinstance(sizes, (tuple, list)):
        parts = [check.integer("split", "sizes", size, least=0) for size in sizes]
        check.same("split", "size", sum(parts), n, ("the sum of sizes", f"axis {axis}"))
    else:
        size = check.integer("split", "sizes", sizes, least=1)
        parts = [min(size, n - start) for start in range(0, max(n, 1), size)]
    ends = list(accumulate(parts))
    return tuple(GetItem((*lead, slice(end - size, end)))(x) for size, end in zip(parts, ends, strict=True))


# ---- methods and properties ------------------------------------------------------------------------------------------


def _cast_to(dtype: str) -> Callable[[Tensor], Tensor]:
    return lambda x: cast(x, dtype)


def _t(x: Tensor) -> Tensor:
    """x with its axes in reverse order; at most two."""
    if x.ndim > 2:
        raise ValueError(f"t: x must have at most 2 axes, but got shape {x.shape}; x.mT exchanges the last two")
    return _reversed(x)


def _reversed(x: Tensor) -> Tensor:
    return Permute(tuple(reversed(range(x.ndim))))(x)


def _requires_grad(x: Tensor, requires_grad: bool = True) -> Tensor:
    """Set `requires_grad` and return x, which must be a leaf."""
    if not x.is_leaf():
        raise RuntimeError(f"requires_grad_: x must be a leaf, but got the result of {x.op!r}; detach it first")
    x.requires_grad = check.instance("requires_grad_", "requires_grad", requires_grad, bool)
    return x


METHODS: dict[str, Callable[..., Any]] = {  # what `needle.ops` has under another name, or not at all
    "add": add,
    "all": truth.all,
    "amax": reduce.max,
    "amin": reduce.min,
    "any": truth.any,
    "bmm": matmul,
    "chunk": chunk,
    "clone": clone,
    "contiguous": lambda x: x,  # needle keeps the memory order to itself
    "copy": clone,
    "cpu": lambda x: to(x, cpu()),
    "cuda": lambda x: to(x, cuda()),
    "dim": lambda x: x.ndim,
    "div": divide,
    "dot": matmul,
    "eq": logic.equal,
    "expand": expand,
    "expand_as": lambda x, other: broadcast_to(x, other.shape),
    "expand_dims": unsqueeze,
    "expm1": expm1,
    "flatten": flatten,
    "ge": logic.greater_equal,
    "gt": logic.greater,
    "le": logic.less_equal,
    "lt": logic.less,
    "maximum": maximum,
    "minimum": minimum,
    "mm": matmul,
    "mul": multiply,
    "ne": logic.not_equal,
    "neg": negate,
    "numel": lambda x: x.size,
    "pow": power,
    "ravel": flatten,
    "requires_grad_": _requires_grad,
    "reshape_as": lambda x, other: reshape(x, other.shape),
    "split": split_sizes,
    "squeeze": squeeze,
    "sub": subtract,
    "swapaxes": transpose,
    "t": _t,
    "tolist": lambda x: x.numpy().tolist(),
    "type_as": lambda x, other: cast(x, other.dtype),
    "unbind": split,
    "unsqueeze": unsqueeze,
    "view": reshape,
    "where": lambda x, condition, other: logic.where(condition, x, other),
    "view_as": lambda x, other: reshape(x, other.shape),
    "half": _cast_to("float16"),
    "float": _cast_to("float32"),
    "double": _cast_to("float64"),
    "short": _cast_to("int16"),
    "int": _cast_to("int32"),
    "long": _cast_to("int64"),
    "bool": _cast_to("bool"),
}

PROPERTIES: dict[str, Callable[[Tensor], Tensor]] = {"T": _reversed, "mT": transpose}
