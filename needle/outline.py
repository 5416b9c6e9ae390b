"""Outlines: forward passes whose inputs have a shape and a dtype but no values.

The result of an op on an outlined value is outlined, too: it has the device, the shape and the dtype that the op infers
(`Op.infer`), and no array; whoever asks for one is refused. Ops on other values compute as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, Self

from needle.autograd import Tensor, TensorTuple
from needle.backend import Device
from needle.grad_mode import mode, no_grad
from needle.graph import Op, Spec, Unknown, Value, check_one_device
from needle.version_counter import VersionCounter

__all__ = ["Outlined", "outline", "outlined", "spec_of"]


class Outlined:
    """Mixin of values without an array; `refusal` is the message of the error for those who ask for it."""

    __slots__ = ()
    refusal: str

    @classmethod
    def infer(cls, op: Op, inputs: Sequence[Value]) -> Self:
        """The result of `op`, some of whose inputs are outlined; `make_from_op` gives it a place in the graph."""
        check_one_device(type(op).__name__, inputs)
        source: Any = next(x for x in inputs if isinstance(x, Outlined))
        spec = op.infer(*map(spec_of, inputs))
        if spec is None:
            source._refuse()
        return cls._make(spec, op.device or source.device, source.refusal)

    @classmethod
    def _make(cls, spec: Any, device: Device, refusal: str) -> Self:
        self: Any = object.__new__(cls)
        self.spec, self.device, self.refusal = spec, device, refusal
        return self  # type: ignore[no-any-return]

    def _refuse(self, *_: Any) -> NoReturn:
        raise Unknown(self.refusal)

    array = property(_refuse, _refuse)

    def detach(self) -> Self:
        return self  # an outline records no graph


class OutlinedTensor(Outlined, Tensor):
    """A tensor without values."""

    __slots__ = ("device", "refusal")


class OutlinedTensorTuple(Outlined, TensorTuple):
    """A tuple of tensors without values."""

    __slots__ = ("device", "refusal")


Tensor.outlined, TensorTuple.outlined = OutlinedTensor, OutlinedTensorTuple


def outlined(shape: tuple[int, ...], dtype: Any, device: Device, refusal: str) -> Tensor:
    """An input of an outline. `refusal` tells those who read values that depend on it what is wrong."""
    x = OutlinedTensor._make(Spec(shape, dtype), device, refusal)
    x.op, x.inputs, x.grad, x.requires_grad, x.version = None, (), None, False, VersionCounter.clock
    return x


@contextmanager
def outline() -> Iterator[None]:
    """Record no graph in this thread, and check no values, until the block ends."""
    with no_grad():
        before = mode.outlining
        try:
            mode.outlining = True
            yield
        finally:
            mode.outlining = before


def spec_of(value: Value) -> Any:
    """Shape and dtype of a value; of a tuple, a tuple of them."""
    return _spec(value.spec)


def _spec(known: Any) -> Any:
    if isinstance(known, tuple) and not isinstance(known, Spec):
        return tuple(map(_spec, known))
    return Spec(known.shape, known.dtype)
