"""Dropout of elements and of whole channels, under torch's names.

Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014); for channels Tompson et
al., "Efficient Object Localization Using Convolutional Networks" (2015), section 3.2. What is kept is scaled up while
training, so that evaluation changes nothing.
"""

from __future__ import annotations

import warnings

from needle import check
from needle.backend import cpu
from needle.ops.conv import check_floats
from needle.ops.operand import tensor


def dropout(x, p=0.5, training=True):
    """Each element zeroed with probability p, the others divided by 1 - p; in evaluation x itself.

    In training numbers of the shape of x are drawn from the stream of its device, uniformly from [0, 1) and whatever p
    is, and what is at most 1 - p is kept. On the CPU that is NumPy's global stream; `needle.seed` starts it on every
    device. Raises ValueError where p is not in [0, 1], TypeError where x is of no floating dtype.
    """
    x = tensor("dropout", x)
    return _drop("dropout", x, x.shape, p, training)


def dropout1d(x, p=0.5, training=True):
    """Each channel of x (N, C, L) or (C, L) zeroed with probability p, the others divided by 1 - p.

    In training (N, C, 1) numbers are drawn as `dropout` draws them, without N where x lacks it; in evaluation x itself.
    Raises ValueError where x has other axes or p is not in [0, 1].
    """
    return _drop_channels("dropout1d", 1, x, p, training)


def dropout2d(x, p=0.5, training=True):
    """Each channel of x (N, C, H, W) zeroed with probability p, the others divided by 1 - p.

    Draws and errors as in `dropout1d`. Three axes are read as (N, C, L), with a warning, as torch reads them.
    """
    x = tensor("dropout2d", x)
    if x.ndim == 3:
        warnings.warn("dropout2d: x has 3 axes, read as (N, C, L); dropout1d says so without a warning", stacklevel=2)
        return _drop("dropout2d", x, (*x.shape[:2], 1), p, training)
    if x.ndim != 4:
        raise ValueError(f"dropout2d: x must have 4 axes, (N, C, H, W), but got shape {x.shape}")
    return _drop_channels("dropout2d", 2, x, p, training)


def dropout3d(x, p=0.5, training=True):
    """Each channel of x (N, C, D, H, W) or (C, D, H, W) zeroed with probability p, the others divided by 1 - p.

    Draws and errors as in `dropout1d`.
    """
    return _drop_channels("dropout3d", 3, x, p, training)


def host_dropout(x, p=0.5, training=True):
    """`dropout` whose numbers are one `np.random.rand(*x.shape)` on every device, as the course has it."""
    x = tensor("dropout", x)
    return _drop("dropout", x, x.shape, p, training, _drawn_on_host)


def _drop_channels(op, rank, x, p, training):
    x = tensor(op, x)
    if x.ndim not in (rank + 1, rank + 2):
        raise ValueError(f"{op}: x must have {rank + 1} or {rank + 2} axes, ([N,] C, *S), but got shape {x.shape}")
    return _drop(op, x, x.shape[:-rank] + (1,) * rank, p, training)


def _drawn_on_device(x, shape):
    return x.device.xp.random.random_sample(shape)


def _drawn_on_host(x, shape):
    return cpu().rand(*shape, dtype="float64").array


def _drop(op, x, shape, p, training, drawn=_drawn_on_device):
    """x times a mask in `shape`, which broadcasts with x: where the numbers that `drawn` gives are at most 1 - p."""
    p = check.number(op, "p", p, least=0, most=1)
    check_floats(op, x=x)
    if not training:
        return x
    keep = drawn(x, shape) <= 1 - p  # moves the random stream for p = 0 and 1 too
    if p == 0:
        return x
    if p == 1:
        return x * 0
    keep = x.make_const(x.device.asarray(keep)).astype(x.dtype)
    return x * keep / (1 - p) if shape == x.shape else x * (keep / (1 - p))
