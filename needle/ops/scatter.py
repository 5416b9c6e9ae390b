"""Elements by an index for each place of the result (gather) or of the src (scatter), or by one list of indices."""

from __future__ import annotations

from typing import Any, Unpack

from needle import check
from needle.autograd import Tensor, TensorLike, TensorOp
from needle.backend import cpu, device_of, xp
from needle.graph import Spec
from needle.kernels import Size
from needle.ops.arithmetic import ADD, as_dtype
from needle.ops.base import Array, FixedShape, Gradients
from needle.ops.index import GetItem, getitem
from needle.ops.logic import WHERE
from needle.ops.operand import are_known, broadcast_shape, is_number, scalar_like, tensor
from needle.ops.shape import BroadcastTo, Reshape
from needle.words import AxisWords, respelled

__all__ = ["gather", "index_select", "masked_fill", "scatter", "scatter_add", "take"]


class TakeAlong(TensorOp):
    """y[…, j, …] = x[…, index[…, j, …], …] along an axis."""

    saved_inputs = (1,)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, x: Array, index: Array) -> Array:
        return x[_grid(index, self.axis)]

    def infer(self, x: Any, index: Any) -> Spec:
        return Spec(index.shape, x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, index = node.inputs
        return PutAlong(self.axis, x.shape)(out_grad, index), None


class PutAlong(FixedShape):
    """Zeros of `shape`, to which y[…, index[…, j, …], …] += x[…, j, …] along an axis."""

    saved_inputs = (1,)

    def __init__(self, axis: int, shape: Size) -> None:
        self.axis, self.shape = axis, shape

    def compute(self, x: Array, index: Array) -> Array:
        y = xp(x).zeros(self.shape, x.dtype)
        device_of(x).add_at(y, _grid(index, self.axis), x)
        return y

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        return TakeAlong(self.axis)(out_grad, node.inputs[1]), None


class Scatter(TensorOp):
    """x with y[…, index[…, j, …], …] = src[…, j, …] along an axis; `src` is of the shape of `index`."""

    saved_inputs = (1,)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def compute(self, x: Array, index: Array, src: Array) -> Array:
        y = x.copy()
        y[_grid(index, self.axis)] = src
        return y

    def infer(self, x: Any, index: Any, src: Any) -> Spec:
        return Spec(x.shape, x.dtype)

    def gradient(self, out_grad: Tensor, node: Any) -> Gradients:
        x, index, src = node.inputs
        zeros = BroadcastTo(index.shape)(scalar_like(0, out_grad))
        return (
            Scatter(self.axis)(out_grad, index, zeros) if x.requires_grad else None,
            None,
            TakeAlong(self.axis)(out_grad, index) if src.requires_grad else None,
        )


def _grid(index: Array, axis: int) -> tuple[Array, ...]:
    """The index arrays that address each place of `index`, but `index` itself along `axis`."""
    places = (xp(index).arange(n).reshape((n, *(1,) * (index.ndim - i - 1))) for i, n in enumerate(index.shape))
    return tuple(index if i == axis else place for i, place in enumerate(places))


# ---- functions -------------------------------------------------------------------------------------------------------


def gather(x: TensorLike, axis: int | None = None, index: Any = None, **words: Unpack[AxisWords]) -> Tensor:
    """x[…, index[…, j, …], …] for each place of `index`, as torch: `(*S), (*I) -> (*I)`; S and I differ along `axis`.

    Along other axes I may be smaller than S. Indices may repeat; their gradients add up.

    >>> from needle import Tensor
    >>> gather(Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=False), 1, [[1], [0]])
    Tensor([[2.]
            [3.]])

    Raises `IndexError` for an index outside [0, n) (checked on the CPU only), `TypeError` unless they are integers,
    `ValueError` for an axis that x lacks and for shapes that do not fit.
    """
    if words:
        return respelled(gather, words, x, axis=axis, index=index)
    x = tensor("gather", x)
    axis, index = _along("gather", x, axis, index)
    return TakeAlong(axis)(x, index) if x.ndim else Reshape(())(TakeAlong(axis)(_line(x), _line(index)))


def scatter(
    x: TensorLike, axis: int | None = None, index: Any = None, src: Any = None, **words: Unpack[AxisWords]
) -> Tensor:
    """x with `src` at its places […, index[…, j, …], …], as torch: `(*S), (*I), (*I) -> (*S)`; a new tensor.

    `src` is a number, or a tensor of the dtype of x and at least the sizes I, of which the first are used. If an
    index repeats, one of its values remains, and each gets that place's gradient; so let indices differ.

    Errors as in `gather`; also `TypeError` if dtypes differ.
    """
    if words:
        return respelled(scatter, words, x, axis=axis, index=index, src=src)
    x, axis, index, src = _scattered("scatter", x, axis, index, src)
    if not x.ndim:
        return Reshape(())(Scatter(axis)(_line(x), _line(index), _line(src)))
    return Scatter(axis)(x, index, src)


def scatter_add(
    x: TensorLike, axis: int | None = None, index: Any = None, src: Any = None, **words: Unpack[AxisWords]
) -> Tensor:
    """x with `src` added at its places […, index[…, j, …], …]: as `scatter`, but values at one place add up."""
    if words:
        return respelled(scatter_add, words, x, axis=axis, index=index, src=src)
    x, axis, index, src = _scattered("scatter_add", x, axis, index, src)
    if not x.ndim:
        return ADD(x, src)
    return ADD(x, PutAlong(axis, x.shape)(src, index))


def _scattered(op: str, x: TensorLike, axis: Any, index: Any, src: Any) -> tuple[Tensor, int, Tensor, Tensor]:
    """The arguments of a scattering, with `src` of the shape of `index`."""
    x = tensor(op, x)
    axis, index = _along(op, x, axis, index)
    src = BroadcastTo(index.shape)(tensor(op, src, x)) if is_number(src) else tensor(op, src)
    if src.dtype != x.dtype:
        raise TypeError(f"{op}: src must have the dtype {x.dtype} of x, but got {src.dtype}")
    check.same(op, "rank", index.ndim, src.ndim, ("index", "src"))
    if any(n > m for n, m in zip(index.shape, src.shape, strict=True)):
        raise ValueError(f"{op}: index must fit into src, but got shapes {index.shape} and {src.shape}")
    if src.shape != index.shape:
        src = GetItem(tuple(slice(0, n) for n in index.shape))(src)
    return x, axis, index, src


def index_select(
    x: TensorLike, axis: int | None = None, index: Any = None, **words: Unpack[AxisWords]
) -> Tensor:
    """The slices of x along `axis` at a list of indices: `(…, n, …), (k,) -> (…, k, …)`, `getitem` for one axis.

    A tensor () has one slice, itself: `(), (1,) -> ()`. Errors as in `gather`; also `ValueError` if `index` has more
    than 1 axis, or x none and `index` not one element.
    """
    if words:
        return respelled(index_select, words, x, axis=axis, index=index)
    x = tensor("index_select", x)
    line, axis = with_axis("index_select", x, axis)
    index = _line(_indices("index_select", line, index, line.shape[axis]))
    if index.ndim > 1:
        raise ValueError(f"index_select: index must have 1 axis, but got shape {index.shape}")
    if not x.ndim and index.size != 1:
        raise ValueError(f"index_select: index must have 1 element for x without axes, but got {index.size}")
    slices = getitem(line, (slice(None),) * axis + (index,))
    return slices if x.ndim else Reshape(())(slices)


def take(x: TensorLike, index: TensorLike) -> Tensor:
    """The elements of the flattened x at these indices: `(*S), (*I) -> (*I)`; negative ones count from the end.

    Raises `IndexError` for an index outside [-n, n) (checked on the CPU only), `TypeError` unless they are integers.
    """
    x = tensor("take", x)
    return getitem(Reshape((x.size,))(x), _indices("take", x, index, x.size, -x.size))


def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """x, but `value` where `mask` holds: `(*S), (*M), () -> (*C)`, of the dtype of x. x and mask broadcast.

    Raises `TypeError` unless the mask is of bools, and for a value of another kind than x; `ValueError` unless `value`
    has a single element and no axes, for one that the dtype of x does not hold (a tensor's: checked on the CPU only),
    and for shapes that do not broadcast.
    """
    x = tensor("masked_fill", x)
    is_tensor = not is_number(value)
    if is_number(value):
        check.filling("masked_fill", "value", value, x.dtype)
    mask, value = tensor("masked_fill", mask), tensor("masked_fill", value, x)
    if mask.dtype.kind != "b":
        raise TypeError(f"masked_fill: mask must be of bools, but got dtype {mask.dtype}")
    if value.ndim:
        raise ValueError(f"masked_fill: value must be a number or have no axes, but got shape {value.shape}")
    are_integers = value.dtype.kind in "iu" and x.dtype.kind in "iu"
    if not are_integers and not cpu().xp.can_cast(value.dtype, x.dtype, "same_kind"):
        raise TypeError(f"masked_fill: value must fit dtype {x.dtype}, but got {value.dtype}")
    if is_tensor and are_known(value):
        check.filling("masked_fill", "value", value.item(), x.dtype)
    broadcast_shape("masked_fill", x.shape, mask.shape)
    return WHERE(mask, as_dtype(value, x.dtype), x)


# ---- argument rules --------------------------------------------------------------------------------------------------


def with_axis(op: str, x: TensorLike, axis: Any) -> tuple[Tensor, int]:
    """x with at least 1 axis, and `axis` of it, which is not negative; a tensor () becomes (1,)."""
    x = _line(tensor(op, x))
    return x, check.axis(op, axis, x.ndim)


def _line(x: Tensor) -> Tensor:
    """x, but (1,) if it has no axes."""
    return x if x.ndim else Reshape((1,))(x)


def _indices(op: str, x: Tensor, index: Any, size: int, low: int = 0) -> Tensor:
    """Integers in [low, size), on the device of x if they are no tensor; the range is checked on the CPU only."""
    index = index if isinstance(index, Tensor) else Tensor(tensor(op, index), device=x.device, requires_grad=False)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{op}: index must be of integers, but got dtype {index.dtype}")
    if are_known(index) and index.size:
        least, most = index.array.min(), index.array.max()
        if least < low or most >= size:
            raise IndexError(f"{op}: index must lie in [{low}, {size - 1}], but got {least} to {most}")
    return as_dtype(index, cpu().xp.dtype("int64"))


def _along(op: str, x: Tensor, axis: Any, index: Any) -> tuple[int, Tensor]:
    """`axis`, which is not negative, and indices into x along it, of no larger sizes than x along the others."""
    line, axis = with_axis(op, x, axis)
    places = _indices(op, x, index, line.shape[axis])
    check.same(op, "rank", x.ndim, places.ndim, ("x", "index"))
    if any(n > m for i, (n, m) in enumerate(zip(places.shape, x.shape, strict=True)) if i != axis):
        raise ValueError(
            f"{op}: index may be larger than x along axis {axis} only, but got shapes {places.shape} and {x.shape}"
        )
    return axis, places
