"""Operands: convert the arguments that users pass to tensors, and check that their shapes fit.

Functions check, ops trust. Each function coerces its arguments here once; the ops that it calls check nothing.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeGuard

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import check_array_range, cpu, index_array
from needle.grad_mode import mode
from needle.kernels import Size, Window, same_padding, shared_window
from needle.ops.dtypes import DEFAULT_FLOAT, promoted

PLAIN = (float, int)  # tested first: asking the abstract class takes a third of a microsecond


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a real number of Python or NumPy."""
    return type(value) in PLAIN or isinstance(value, numbers.Real)


def number(op: str, value: Any) -> Any:
    """A number, or a host array with one element, as a Python number, which never promotes an array's dtype."""
    scalar: Any = value
    if type(value) in PLAIN:
        return scalar
    if not is_number(scalar):
        is_host_array = type(scalar) is cpu().xp.ndarray
        if not is_host_array or scalar.size != 1 or scalar.dtype.kind not in "fiub":
            raise TypeError(f"{op}: scalar must be a number, but got {type(value).__name__}")
        scalar = scalar.item()
    scalar = scalar.item() if hasattr(scalar, "item") else scalar
    return scalar if isinstance(scalar, (int, float)) else float(scalar)


def tensor(op: str, value: Any, like: Tensor | None = None, *, fits: bool = True) -> Tensor:
    """`value` itself if it is a tensor, else a constant on the device of `like`.

    A number takes the dtype of `like` if that holds its kind, and a list of floats does if `like` is floating; other
    floats become float32. Without `fits`, an integer outside the range of the dtype is not refused, but int64.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (str, bytes)) or value is None:
        raise _not_an_operand(op, value)
    if like is not None and is_number(value):
        return _number_like(op, number(op, value), like, fits)
    try:
        result = Tensor(value, device=None if like is None else like.device, requires_grad=False)
    except (TypeError, ValueError) as error:
        raise _not_an_operand(op, value) from error
    if like is not None and isinstance(value, (list, tuple)) and result.dtype.kind == "f":
        result = Tensor._cast(result, like.dtype if like.dtype.kind == "f" else DEFAULT_FLOAT)
    return result


def _number_like(op: str, value: float, like: Tensor, fits: bool) -> Tensor:
    """A number as a 0-d constant beside `like`; ValueError if it is an integer that does not fit, and `fits`."""
    device, dtype = like.device, like.dtype
    if dtype.kind == "b" and not isinstance(value, bool):
        dtype = cpu().xp.dtype("int64")
    if dtype.kind != "f" and isinstance(value, float):
        dtype = DEFAULT_FLOAT
    if fits:
        check.fits(op, "scalar", value, dtype)
    elif not check.holds(dtype, value):
        return Tensor(value, device=device, requires_grad=False)
    return Tensor.make_const(device.filled((), value, dtype))


def cast_like(op: str, x: TensorLike, like: Tensor | None) -> Tensor:
    """x as a tensor of the dtype of `like`: another floating dtype is cast, any other dtype refused."""
    x = tensor(op, x)
    if like is None:  # a layer's weight was set to None
        raise _not_an_operand(op, like)
    if x.spec.dtype == like.spec.dtype:
        return x
    check.floats(op, x=x)
    return x.astype(like.dtype)


def _not_an_operand(op: str, value: Any) -> TypeError:
    rule = "operands must be tensors, arrays, rectangular lists or numbers"
    return TypeError(f"{op}: {rule}, but got {type(value).__name__}")


def floating(op: str, x: Any) -> Tensor:
    """An operand as a tensor of floats: integers and bools become float32."""
    operand = x if isinstance(x, Tensor) else tensor(op, x)
    if operand.spec.dtype.kind != "f":
        operand = Tensor._cast(operand, DEFAULT_FLOAT)
    return operand


def beside(op: str, x: Tensor, scalar: float) -> Tensor:
    """x in the dtype of its arithmetic with a number: integers and bools beside a float become float32.

    Raises `ValueError` for an integer outside the range of the integers x.
    """
    if type(scalar) is float and x.dtype.kind != "f":
        x = Tensor._cast(x, DEFAULT_FLOAT)
    check.fits(op, "scalar", scalar, x.dtype)
    return x


def pair(op: str, a: Any, b: Any, *, broadcast: bool = True, fits: bool = True) -> tuple[Tensor, Tensor]:
    """Two operands as tensors of dtypes that NumPy promotes rightly; see `promoted` and, for `fits`, `tensor`.

    Their shapes must broadcast unless the op has its own rule.
    """
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        a = tensor(op, a, b if isinstance(b, Tensor) else None, fits=fits)
        b = tensor(op, b, a, fits=fits)
    if broadcast and a.spec.shape != b.spec.shape:
        broadcast_shape(op, a.shape, b.shape)
    if a.spec.dtype != b.spec.dtype:
        a, b = promoted(op, a, b)
    return a, b


def scalar_like(value: float, x: Tensor) -> Tensor:
    """A number as a 0-d constant on the device of x, of its dtype if that can hold it; for gradients."""
    dtype = DEFAULT_FLOAT if isinstance(value, float) and x.dtype.kind != "f" else x.dtype
    return Tensor.make_const(x.device.filled((), value, dtype))


def constant(x: Tensor) -> Tensor:
    """x as a constant, so that no gradient flows back into it; x itself if no graph is recorded."""
    return x.detach() if mode.recording else x


@lru_cache
def broadcast_shape(op: str, *shapes: Size) -> Size:
    """The shape to which `shapes` broadcast by NumPy's rules; ValueError if they do not."""
    rank = max(map(len, shapes))
    result = []
    for sizes in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        size = max(sizes) if 0 not in sizes else 0
        if any(n not in (1, size) for n in sizes):
            raise ValueError(f"{op}: shapes must broadcast, but got {' and '.join(map(str, shapes))}")
        result.append(size)
    return tuple(result)


# ---- the batch axis --------------------------------------------------------------------------------------------------


def has_batch(op: str, x: Tensor, rank: int, *, nonempty: bool = False, axes: str = "C, *S") -> bool:
    """Whether x is (N, C, *S), not (C, *S); with `nonempty`, only N may be 0. ValueError for any other shape.

    `axes` names the axes after N in the error.
    """
    ndim = x.ndim
    if ndim not in (rank + 1, rank + 2) or (nonempty and 0 in x.shape[-rank - 1 :]):
        rule = ", of which only N may be 0" if nonempty else ""
        raise ValueError(
            f"{op}: x must have {rank + 2} axes, (N, {axes}), or {rank + 1}, ({axes}){rule}, but got shape {x.shape}"
        )
    return ndim == rank + 2


def batched(
    op: str, x: TensorLike, rank: int, *, nonempty: bool = False, axes: str = "C, *S"
) -> tuple[Tensor, bool]:
    """x as (N, C, *S), and whether it had the axis N; (C, *S) becomes a batch of one. See `has_batch`, `unbatched`."""
    x = tensor(op, x)
    had_batch = has_batch(op, x, rank, nonempty=nonempty, axes=axes)
    return (x, True) if had_batch else (x.reshape((1, *x.shape)), False)


def unbatched(y: Tensor, had_batch: bool) -> Tensor:
    """A result without its batch axis of size 1, if the operand had none."""
    return y if had_batch else y.reshape(y.shape[1:])


# ---- windows of convolution and pooling ------------------------------------------------------------------------------


def spatial_sizes(op: str, name: str, value: Any) -> Size:
    """Sizes of at least 1, one per spatial axis, of which there may be any number; one integer means two axes."""
    rank = max(1, len(value)) if isinstance(value, Sequence) and not isinstance(value, str) else 2
    return check.sizes(op, name, value, rank, least=1)


def make_window(op: str, rank: int, stride: Any, padding: Any, dilation: Any = 1, groups: Any = 1) -> Window:
    """A window from user options: each is one integer, or one integer per axis; groups is one integer.

    `padding` may also hold a pair (before, after) for each axis. Raises ValueError and TypeError for `op`.
    """
    is_plain = are_plain((stride, padding, dilation, groups))
    return (_make_window_cached if is_plain else _make_window)(op, rank, stride, padding, dilation, groups)


def are_plain(options: tuple[Any, ...]) -> bool:
    """Whether options are of type int, or tuples of such: a cache may hold these only, since True == 1."""
    for option in options:
        kind = type(option)
        if kind is not int and not (kind is tuple and are_plain(option)):
            return False
    return True


def _make_window(op: str, rank: int, stride: Any, padding: Any, dilation: Any, groups: Any) -> Window:
    return shared_window(
        window_sizes(op, "stride", stride, rank, least=1),
        _padding_pairs(op, padding, rank),
        window_sizes(op, "dilation", dilation, rank, least=1),
        check.integer(op, "groups", groups, least=1),
    )


_make_window_cached = lru_cache(maxsize=4096)(_make_window)


def _padding_pairs(op: str, padding: Any, rank: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each axis, from one integer, one integer per axis, or one pair per axis."""
    is_sequence = isinstance(padding, Sequence) and not isinstance(padding, str)
    if is_sequence and padding and all(isinstance(pair, Sequence) for pair in padding):
        if len(padding) != rank or any(len(pair) != 2 for pair in padding):
            raise ValueError(
                f"{op}: padding in pairs must have the shape ({rank}, 2), a pair (before, after) for each axis, "
                f"but got {tuple(padding)}"
            )
        return tuple((before, after) for before, after in (check.sizes(op, "padding", pair, 2) for pair in padding))
    return tuple((n, n) for n in window_sizes(op, "padding", padding, rank))


def window_sizes(op: str, name: str, value: Any, rank: int, *, least: int = 0) -> Size:
    """One integer for each axis of a window; a single one, also in a tuple, stands for all axes, as in torch."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        value = value[0]
    return check.sizes(op, name, value, rank, least=least)


def pool_window(
    op: str, rank: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> tuple[Size, Window]:
    """The kernel and the window of a pooling; the stride is the kernel size by default."""
    options = (kernel_size, kernel_size if stride is None else stride, padding, dilation)
    return (_pool_window_cached if are_plain(options) else _pool_window)(op, rank, *options)


def _pool_window(
    op: str, rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Size, Window]:
    kernel = window_sizes(op, "kernel_size", kernel_size, rank, least=1)
    padding = window_sizes(op, "padding", padding, rank)
    if any(2 * before > k for before, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"{op}: padding must be at most half of the kernel {kernel}, but got {padding}")
    return kernel, make_window(op, rank, stride, padding, dilation)


_pool_window_cached = lru_cache(maxsize=4096)(_pool_window)


def window_padding(op: str, padding: Any, kernel: Size, stride: Any, dilation: Any) -> Any:
    """The padding that "valid" or "same" names, as pairs; any other padding unchanged. "same" requires stride 1."""
    if not isinstance(padding, str):
        return padding
    check.one_of(op, "padding", padding, ("valid", "same"))
    rank = len(kernel)
    if padding == "valid":
        return ((0, 0),) * rank
    if set(window_sizes(op, "stride", stride, rank, least=1)) != {1}:
        raise ValueError(
            f'{op}: padding="same" needs stride 1, but got stride={stride}; functional.same_padding computes the '
            "padding for ceil(size / stride) outputs"
        )
    return same_padding(kernel, kernel, (1,) * rank, window_sizes(op, "dilation", dilation, rank, least=1))


def check_sizes(op: str, x_shape: Size, kernel: Size) -> None:
    """Refuse an empty input or kernel; only batch and channels may be empty."""
    if min(x_shape[2:]) < 1:
        raise ValueError(f"{op}: the sizes of x must be at least 1, but got {x_shape}")
    if min(kernel) < 1:
        raise ValueError(f"{op}: kernel sizes must be at least 1, but got {kernel}")


def check_fit(op: str, x_shape: Size, kernel: Size, window: Window) -> None:
    """Refuse an empty input, and a kernel that is empty or larger than the padded input."""
    check_sizes(op, x_shape, kernel)
    if min(window.output(x_shape[2:], kernel)) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded input, but its extent is {window.extent(kernel)} "
            f"and the padded size of x {x_shape} is {window.padded(x_shape[2:])}"
        )


# ---- operands of a convolution ---------------------------------------------------------------------------------------


def conv_weight(op: str, x: Tensor, w: TensorLike, shapes: str) -> Tensor:
    """The weight of a convolution of x, with as many axes; `shapes` names the shapes of both in the error."""
    w = tensor(op, w)
    if w.ndim != x.ndim:
        raise ValueError(f"{op}: {shapes} must agree in rank, but got {x.shape} and {w.shape}")
    return w


def conv_operands(op: str, x: Tensor, w: Tensor, bias: TensorLike | None, channels: int) -> tuple[Tensor, ...]:
    """x, w and a bias for that many out-channels (if not None), of one floating dtype."""
    if bias is None:
        check.floats(op, x=x, weight=w)
        return x, w
    bias = tensor(op, bias)
    if bias.shape != (channels,):
        raise ValueError(f"{op}: bias must have the shape {(channels,)} of out-channels, but got {bias.shape}")
    check.floats(op, x=x, weight=w, bias=bias)
    return x, w, bias


def check_channels(op: str, x_shape: Size, w_shape: Size, groups: int) -> None:
    """Refuse a weight (O, C/G, *K) that does not read the channels of x, or does not divide into groups."""
    if w_shape[1] * groups != x_shape[1]:
        raise ValueError(
            f"{op}: weight {w_shape} reads {w_shape[1]} channels per group x groups={groups}, "
            f"but x {x_shape} has {x_shape[1]} channels"
        )
    if w_shape[0] % groups:
        raise ValueError(f"{op}: groups must divide the {w_shape[0]} out-channels of weight, but got {groups}")
    if not w_shape[0]:
        raise ValueError(f"{op}: weight must have at least 1 out-channel, but got {w_shape}")


def check_channels_transpose(op: str, x: Tensor, w: Tensor, groups: int) -> None:
    """Refuse a weight (C, O/G, *K) that does not read the channels of x, or does not divide into groups."""
    if w.shape[0] != x.shape[1]:
        raise ValueError(f"{op}: weight {w.shape} reads {w.shape[0]} channels, but x {x.shape} has {x.shape[1]}")
    if w.shape[0] % groups:
        raise ValueError(f"{op}: groups must divide the {w.shape[0]} in-channels of weight, but got {groups}")


def transpose_sizes(op: str, x: Tensor, kernel: Size, window: Window, output_padding: Any) -> tuple[Size, Size]:
    """The smallest sizes *S from which a convolution produces x (N, C, *P), and these with `output_padding` added."""
    extra = window_sizes(op, "output_padding", output_padding, len(kernel))
    if any(more >= max(s, d) for more, s, d in zip(extra, window.stride, window.dilation, strict=True)):
        raise ValueError(
            f"{op}: output_padding must be less than the larger of stride and dilation, but got {extra} for "
            f"stride {window.stride} and dilation {window.dilation}"
        )
    check_sizes(op, x.shape, kernel)
    least = window.input(x.shape[2:], kernel)
    size = tuple(n + more for n, more in zip(least, extra, strict=True))
    if min(size) < 1:
        raise ValueError(f"{op}: sizes of the output must be at least 1, but x {x.shape} and this window give {size}")
    return least, size


# ---- indices, ranges, shapes and dtypes of operands ------------------------------------------------------------------


def are_known(x: Tensor) -> bool:
    """Whether values of x may be checked: on the CPU, since elsewhere reading them waits, and not in an outline."""
    return x.device == cpu() and not mode.outlining


def as_indices(op: str, name: str, x: Tensor, size: int | None = None) -> Tensor:
    """The values of `x`, whole numbers of any dtype, as an int64 constant; in [0, size) unless `size` is None.

    Fractions, infinities, NaN and numbers out of range are refused on the CPU only: elsewhere reading values would wait
    for the device.
    """
    if mode.outlining and x.dtype.kind != "b":
        return Tensor._cast(x, cpu().xp.dtype("int64"))  # type: ignore[no-any-return]
    return Tensor.make_const(index_array(op, name, x.array, size))


def all_in_range(indices: Tensor, size: int) -> bool:
    """Whether all int64 indices lie in [0, size). Reading them waits for the device."""
    array = indices.array.view("uint64")  # negative indices become large ones
    return not array.size or bool(array.max() < size)


def without_index(indices: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """The int64 indices with 0 in place of `ignored`, and a mask of the others, both constants."""
    array = indices.array
    kept = array != ignored
    return Tensor.make_const(array * kept), Tensor.make_const(kept)


def check_range(op: str, name: str, x: Tensor, low: float, high: float) -> None:
    """Refuse values outside [low, high], and NaN, on the CPU only: elsewhere reading them would wait for the device."""
    if not mode.outlining:
        check_array_range(op, name, x.array, low, high)


def check_broadcast(op: str, name: str, x: Tensor, target: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not broadcast to `shape`, the shape of what the message calls `target`."""
    if len(x.shape) > len(shape) or broadcast_shape(op, x.shape, shape) != shape:
        raise ValueError(f"{op}: {name} must broadcast to the {target} {shape}, but got shape {x.shape}")
