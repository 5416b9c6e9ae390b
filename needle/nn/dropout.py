"""Dropout of elements and of whole channels.

In training values are zeroed with probability p and the others divided by 1 - p; in evaluation the result is x itself.

Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014); for channels Tompson et
al., "Efficient Object Localization Using Convolutional Networks" (2015), section 3.2.
"""

from __future__ import annotations

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.nn import functional
from needle.nn.functional.dropout import host_dropout
from needle.nn.module import Module

__all__ = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d"]


class _Dropout(Module):
    """The probability p with which values are zeroed."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check.number(type(self).__name__, "p", p, least=0, most=1)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training, zero each element of x with probability p and divide the others by 1 - p; any shape -> the same.

    In evaluation the result is x itself. Each call in training draws one `np.random.rand(*x.shape)`, on every device
    and even for p = 0, and keeps an element where its draw is at most 1 - p. Raises ValueError if p is not in [0, 1],
    TypeError if x is not floating-point.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting" (2014).

    >>> import needle as ndl
    >>> x = ndl.ones(3)
    >>> Dropout(0.5).eval()(x) is x
    True
    """

    def forward(self, x: TensorLike) -> Tensor:
        return host_dropout(x, self.p, self.training)


class Dropout1d(_Dropout):
    """In training, zero each channel of x (N, C, L) or (C, L) with probability p and divide the others by 1 - p.

    In evaluation the result is x itself. Draws come from the device of x, one number per channel. Raises ValueError if
    p is not in [0, 1] or x has other axes, TypeError if x is not floating-point.

    Tompson et al., "Efficient Object Localization Using Convolutional Networks" (2015), section 3.2.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.dropout1d(x, self.p, self.training)


class Dropout2d(_Dropout):
    """In training, zero each channel of x (N, C, H, W) with probability p and divide the others by 1 - p.

    An x of three axes is read as (N, C, L), with a warning, as in torch. Otherwise as `Dropout1d`.
    """

    def forward(self, x: TensorLike) -> Tensor:
        return functional.dropout2d(x, self.p, self.training)


class Dropout3d(_Dropout):
    """In training, zero each channel of x (N, C, D, H, W) or (C, D, H, W) with probability p; see `Dropout1d`."""

    def forward(self, x: TensorLike) -> Tensor:
        return functional.dropout3d(x, self.p, self.training)
