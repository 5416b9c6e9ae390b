"""Dropout of elements and of whole channels, under torch's names.

Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014); for channels Tompson et
al., "Efficient Object Localization Using Convolutional Networks" (2015), section 3.2. Training divides the elements it
keeps by 1 - p, so evaluation needs no scaling.

A rank that computes a part of a batch draws for the whole batch, as one process would, and takes the numbers of its
items. They are the first axis of x (the second in recurrent networks), with one or several rows per item.
"""

from __future__ import annotations

import warnings

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import cpu, refuse
from needle.backend.communicator import current_communicator
from needle.kernels import Draws, Part, of_part
from needle.ops.arithmetic import MULTIPLY, DivScalar, MulScalar, as_dtype
from needle.ops.dropout import Drop
from needle.ops.operand import has_batch, tensor

__all__ = ["dropout", "dropout1d", "dropout2d", "dropout3d"]


def dropout(x: TensorLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each element of x (any shape) with probability p and divide the others by 1 - p; in evaluation x itself.

    In training, draws one uniform number in [0, 1) per element (even for p = 0) and keeps elements where it is at most
    1 - p. On the CPU that is `np.random.random_sample`; another device computes the numbers from one 64-bit draw of
    NumPy's stream, so that nothing is copied, and again for the gradient, so that nothing is kept.

    Raises `ValueError` if p is not in [0, 1], `TypeError` unless the dtype of x is floating.
    """
    x = tensor("dropout", x)
    return _drop("dropout", x, x.shape, p, training)


def dropout1d(x: TensorLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each channel of x (N, C, L) or (C, L) with probability p and divide the others by 1 - p.

    In training, draws N·C (or C) numbers as `dropout` does; in evaluation x itself.

    Raises `ValueError` if x has other axes or p is not in [0, 1], `TypeError` unless the dtype of x is floating.
    """
    return _drop_channels("dropout1d", 1, x, p, training)


def dropout2d(x: TensorLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each channel of x (N, C, H, W) with probability p and divide the others by 1 - p.

    Three axes are read as (N, C, L), with a warning, as in torch. Draws and errors as in `dropout1d`.
    """
    x = tensor("dropout2d", x)
    if x.ndim == 3:
        warnings.warn("dropout2d: x has 3 axes, read as (N, C, L); dropout1d does so without a warning", stacklevel=2)
        return _drop("dropout2d", x, (*x.shape[:2], 1), p, training)
    if x.ndim != 4:
        raise ValueError(f"dropout2d: x must have 4 axes, (N, C, H, W), but got shape {x.shape}")
    return _drop("dropout2d", x, (*x.shape[:2], 1, 1), p, training)


def dropout3d(x: TensorLike, p: float = 0.5, training: bool = True) -> Tensor:
    """Zero each channel of x (N, C, D, H, W) or (C, D, H, W) with probability p and divide the others by 1 - p.

    Draws and errors as in `dropout1d`.
    """
    return _drop_channels("dropout3d", 3, x, p, training)


def host_dropout(x: TensorLike, p: float = 0.5, training: bool = True, batch_axis: int = 0) -> Tensor:
    """`dropout` that draws one `np.random.rand(*x.shape)` on every device, as the course does."""
    x = tensor("dropout", x)
    return _drop("dropout", x, x.shape, p, training, True, batch_axis)


def _drop_channels(op: str, rank: int, x: TensorLike, p: float, training: bool) -> Tensor:
    x = tensor(op, x)
    has_batch(op, x, rank)
    return _drop(op, x, x.shape[:-rank] + (1,) * rank, p, training)


def _drop(
    op: str,
    x: Tensor,
    mask_shape: tuple[int, ...],
    p: float,
    training: bool,
    on_host: bool = False,
    batch_axis: int = 0,
) -> Tensor:
    """x times a mask of `mask_shape`, which broadcasts to x: where uniform draws are at most 1 - p."""
    p = check.number(op, "p", p, least=0, most=1)
    check.floats(op, x=x)
    if not training:
        return x
    shape, part = _of_batch(op, x, mask_shape, batch_axis)
    # Draw for p = 0 and p = 1 too: the random stream advances equally for every p.
    key = keep = None
    if not on_host:
        key = x.device.draw_key()
    elif x.device != cpu():
        refuse("Dropout", "draws of NumPy's stream, which nn.functional.dropout does not need")
    if key is None:
        keep = of_part(cpu().uniform(shape, "float64") if on_host else x.device.draws(shape), part) <= 1 - p
    if p == 0:
        return x
    if p == 1:
        return MulScalar(0)(x)
    if keep is None:
        return Drop(p, Draws(key, shape, part))(x)
    mask, by_share = as_dtype(x.make_const(x.device.asarray(keep)), x.dtype), DivScalar(1 - p)
    return by_share(MULTIPLY(x, mask)) if mask_shape == x.shape else MULTIPLY(x, by_share(mask))


def _of_batch(op: str, x: Tensor, shape: tuple[int, ...], batch_axis: int) -> tuple[tuple[int, ...], Part | None]:
    """The shape of the draws for the whole batch, and where `shape`, those for a part of it, lie in them."""
    part = current_communicator().part
    if part is None:
        return shape, None
    before, after = shape[:batch_axis], shape[batch_axis + 1 :]
    rows, rest = divmod(shape[batch_axis] if len(shape) > batch_axis else 0, part.items)
    if not rows or rest:
        raise ValueError(
            f"{op}: axis {batch_axis} of x must hold the {part.items} items of this rank, or as many rows of each, "
            f"but got shape {x.shape}"
        )
    return (*before, rows * part.total, *after), Part(batch_axis, rows * part.start, rows * part.stop)
