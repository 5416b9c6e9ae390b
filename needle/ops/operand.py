"""Operands: convert the arguments that users pass to tensors, and check that their shapes fit.

Functions check, ops trust. Each function coerces its arguments here once; the ops that it calls check nothing.
"""

from __future__ import annotations

import numbers
from functools import lru_cache
from typing import Any

from needle import check
from needle.autograd import Tensor
from needle.backend import cpu
from needle.grad_mode import mode
from needle.kernels import Size, Window, same_padding

PLAIN = (float, int)  # tested first: asking the abstract class takes a third of a microsecond


def is_number(value: Any) -> bool:
    """Whether `value` is a real number of Python or NumPy."""
    return type(value) in PLAIN or isinstance(value, numbers.Real)


def number(op: str, value: Any) -> Any:
    """A number, or a host array with one element, as a Python number, which never promotes an array's dtype."""
    scalar: Any = value
    if type(value) in PLAIN:
        return scalar
    if not is_number(scalar):
        is_host_array = type(scalar) is cpu().array_type()
        if not is_host_array or scalar.size != 1 or scalar.dtype.kind not in "fiub":
            raise TypeError(f"{op}: scalar must be a number, but got {type(value).__name__}")
        scalar = scalar.item()
    scalar = scalar.item() if hasattr(scalar, "item") else scalar
    return scalar if isinstance(scalar, (int, float)) else float(scalar)


def tensor(op: str, value: Any, like: Tensor | None = None) -> Tensor:
    """`value` itself if it is a tensor, else a constant; a number takes device and, if it fits, dtype of `like`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (str, bytes)) or value is None:
        raise TypeError(f"{op}: operands must be tensors, arrays or numbers, but got {type(value).__name__}")
    device = dtype = None
    if like is not None:
        device = like.device
        if is_number(value):
            value = number(op, value)
            dtype = like.dtype if _holds(like.dtype, value) else None
            if dtype is not None and (dtype.kind == "f" or 0 <= value < 128):  # fits every such dtype; no transfer
                return Tensor.make_const(device.xp.full((), value, dtype))
    try:
        return Tensor(value, device=device, dtype=dtype, requires_grad=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{op}: operands must be tensors, arrays or numbers, but got {type(value).__name__}") from error


def _holds(dtype: Any, value: Any) -> bool:
    """Whether `dtype` holds the kind of a Python number; the kinds rank bool, integer, float."""
    return dtype.kind == "f" or (not isinstance(value, float) and (dtype.kind != "b" or isinstance(value, bool)))


def pair(op: str, a: Any, b: Any, *, broadcast: bool = True) -> tuple[Tensor, Tensor]:
    """Two operands as tensors; their shapes must broadcast unless the op has its own rule."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        a = tensor(op, a, b if isinstance(b, Tensor) else None)
        b = tensor(op, b, a)
    if broadcast and a.spec.shape != b.spec.shape:
        broadcast_shape(op, a.shape, b.shape)
    return a, b


def scalar_like(value: float, x: Tensor) -> Tensor:
    """A number as a 0-d constant on the device of x, of its dtype if that can hold it; for gradients."""
    dtype = "float64" if isinstance(value, float) and x.dtype.kind != "f" else x.dtype
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


# ---- windows of convolution and pooling ------------------------------------------------------------------------------


def window_padding(op: str, padding: Any, kernel: Size, stride: Any, dilation: Any) -> Any:
    """The padding that "valid" or "same" names, as pairs; any other padding unchanged. "same" requires stride 1."""
    if not isinstance(padding, str):
        return padding
    check.one_of(op, "padding", padding, ("valid", "same"))
    rank = len(kernel)
    if padding == "valid":
        return ((0, 0),) * rank
    if set(check.sizes(op, "stride", stride, rank, least=1)) != {1}:
        raise ValueError(
            f'{op}: padding="same" needs stride 1, but got stride={stride}; functional.same_padding computes the '
            "padding for ceil(size / stride) outputs"
        )
    return same_padding(kernel, kernel, (1,) * rank, check.sizes(op, "dilation", dilation, rank, least=1))


def check_sizes(op: str, x: Tensor, kernel: Size) -> None:
    """Refuse an empty input or kernel; only batch and channels may be empty."""
    if min(x.shape[2:]) < 1:
        raise ValueError(f"{op}: the sizes of x must be at least 1, but got {x.shape}")
    if min(kernel) < 1:
        raise ValueError(f"{op}: kernel sizes must be at least 1, but got {kernel}")


def check_fit(op: str, x: Tensor, kernel: Size, window: Window) -> None:
    """Refuse an empty input, and a kernel that is empty or larger than the padded input."""
    check_sizes(op, x, kernel)
    if min(window.output(x.shape[2:], kernel)) < 1:
        raise ValueError(
            f"{op}: the kernel must fit into the padded input, but its extent is {window.extent(kernel)} "
            f"and the padded size of x {x.shape} is {window.padded(x.shape[2:])}"
        )


# ---- indices, ranges, shapes and dtypes of operands ------------------------------------------------------------------


def as_indices(op: str, name: str, x: Tensor) -> Tensor:
    """The values of `x`, of any integer or floating dtype, as an int64 constant.

    Fractions, infinities and NaN are refused on the CPU only: elsewhere reading values would wait for the device.
    """
    array = x.array
    kind = array.dtype.kind
    if kind == "b":
        raise TypeError(f"{op}: {name} must be integers, but got dtype bool")
    if kind == "f" and x.device == cpu():
        is_integer = x.device.xp.isfinite(array) & (x.device.xp.floor(array) == array)
        if not is_integer.all():
            raise ValueError(f"{op}: {name} must be integers, but got {array[~is_integer].flat[0]}")
    return Tensor.make_const(array.astype("int64"))


def all_in_range(indices: Tensor, size: int) -> bool:
    """Whether all int64 indices lie in [0, size). Reading them waits for the device."""
    array = indices.array.view("uint64")  # negative indices become large ones
    return not array.size or bool(array.max() < size)


def without_index(indices: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """The int64 indices with 0 in place of `ignored`, and a mask of the others; computed at once in LAZY_MODE too."""
    array = indices.array
    kept = array != ignored
    return Tensor.make_const(array * kept), Tensor.make_const(kept)


def check_range(op: str, name: str, x: Tensor, low: float, high: float) -> None:
    """Refuse values outside [low, high], and NaN, on the CPU only: elsewhere reading them would wait for the device."""
    if x.device == cpu() and x.size:
        least, most = x.array.min(), x.array.max()
        if not (low <= least and most <= high):
            raise ValueError(f"{op}: {name} must lie in [{low}, {high}], but got {least} to {most}")


def check_broadcast(op: str, name: str, x: Tensor, target: str, shape: tuple[int, ...]) -> None:
    """Refuse a tensor that does not broadcast to `shape`, the shape of what the message calls `target`."""
    if len(x.shape) > len(shape) or broadcast_shape(op, x.shape, shape) != shape:
        raise ValueError(f"{op}: {name} must broadcast to the {target} {shape}, but got shape {x.shape}")
