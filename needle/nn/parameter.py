"""Parameters and buffers: the tensors of a module's state."""

from __future__ import annotations

from typing import Any, ClassVar

from needle import check
from needle.autograd import Tensor, TensorLike
from needle.backend import Device, DTypeLike

__all__ = ["Buffer", "Parameter"]


class Parameter(Tensor):
    """A tensor that a module learns.

    `Parameter(array, *, device=None, dtype=None)` copies its argument, as `Tensor` does, and requires a gradient.

    >>> import needle as ndl
    >>> Parameter(ndl.ones(2))
    Tensor([1. 1.], requires_grad=True)
    """

    __slots__ = ()


class Buffer(Tensor):
    """A tensor that belongs to a module's state, but is not learned: running statistics, masks, counts.

    `Buffer(array, *, device=None, dtype=None, persistent=True)` copies its argument, as `Tensor` does, and requires no
    gradient. `to` moves it; `state_dict` holds it unless `persistent=False`. A plain Tensor that is assigned to a
    module is neither moved nor saved.

    >>> import needle as ndl
    >>> Buffer(ndl.zeros(2))
    Tensor([0. 0.])
    """

    __slots__ = ()
    persistent: ClassVar[bool] = True

    def __new__(cls, *array: TensorLike, persistent: bool = True, **options: Any) -> Buffer:
        check.instance("Buffer", "persistent", persistent, bool)
        return object.__new__(cls if persistent else _TransientBuffer)

    def __init__(
        self, array: TensorLike, *, device: Device | None = None, dtype: DTypeLike | None = None,
        requires_grad: bool = False, persistent: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(array, device=device, dtype=dtype, requires_grad=requires_grad)


class _TransientBuffer(Buffer):
    """A buffer that is not saved; a class, so that copies and pickles keep it."""

    __slots__ = ()
    persistent = False
