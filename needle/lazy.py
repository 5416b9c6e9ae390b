"""Values that are computed when they are asked for, as the course's LAZY_MODE has it.

A deferred value knows the op and the inputs that it will come from. Asking for its `array` computes it, and it becomes
a plain value; its shape and dtype are known before that where its op can tell them (`Op.infer`). A write into memory
that deferred values read computes them first, so that results are those of eager mode.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from needle.backend import HostScalar, device_of
from needle.backend_ndarray import BackendDevice

if TYPE_CHECKING:
    from needle.autograd import Op, Value


class Spec(NamedTuple):
    """What can be known of a tensor before it is computed."""

    shape: tuple[int, ...]
    dtype: Any


class Source:
    """What a deferred value will come from, and its spec (for a tuple: a tuple of them) once that is asked for."""

    __slots__ = ("device", "inputs", "op", "spec")

    def __init__(self, op: Op | Same, inputs: Sequence[Value]) -> None:
        self.op, self.inputs, self.device = op, inputs, op.device or inputs[0].device
        self.spec: Any = None


class Same:
    """The op of a detached value: it is its input."""

    differentiable, is_view, device = False, True, None

    def compute(self, array: Any) -> Any:
        return array

    def infer(self, spec: Any) -> Any:
        return spec


class Deferred:
    """The part of a value that is not computed yet; `plain` is the class that it will be of then."""

    __slots__ = ()

    if TYPE_CHECKING:
        plain: type[Value]
        source: Source

    def __getattr__(self, name: str) -> Any:
        if name != "array":  # which is unset, until now
            raise AttributeError(f"{type(self).__name__}: the attribute must be defined, but got {name!r}")
        _settle(self, lambda value: not isinstance(value, Deferred), _compute)
        return self.array

    @classmethod
    def make_leaf(cls, array: Any, requires_grad: bool = False) -> Any:
        return cls.plain.make_leaf(array, requires_grad)

    def detach(self) -> Any:
        return self.plain.make_from_op(Same(), (self,))  # type: ignore[arg-type]

    @property
    def device(self) -> BackendDevice:
        return self.source.device

    @property
    def spec(self) -> Any:
        return spec_of(self)


def run(op: Any, inputs: Sequence[Value]) -> Any:
    """The raw array that `op` computes of its inputs."""
    if len(inputs) == 2:  # as below, without the lists: most ops have two inputs or one
        first, second = inputs[0].array, inputs[1].array
        if type(first) is not type(second):
            check_one_device(type(op).__name__, inputs)
        array = op.compute(first, second)
    elif len(inputs) == 1:
        array = op.compute(inputs[0].array)
    else:
        arrays = [x.array for x in inputs]
        if len(set(map(type, arrays))) > 1:
            check_one_device(type(op).__name__, inputs)
        array = op.compute(*arrays)
    return whole(array) if isinstance(array, HostScalar) else array


def whole(array: Any) -> Any:
    """An array, also where NumPy's ufuncs made a scalar of it because it has no axes."""
    return device_of(array).asarray(array) if isinstance(array, HostScalar) else array


def check_one_device(op: str, inputs: Sequence[Value]) -> None:
    """Refuse inputs on different devices, naming both."""
    device = inputs[0].device
    for x in inputs[1:]:
        if x.device is not device and x.device != device:
            raise TypeError(f"{op}: inputs must be on one device, but got {device} and {x.device}")


def spec_of(value: Any) -> Any:
    """The spec of a value, inferred where it is not computed."""
    if isinstance(value, Deferred):
        _settle(value, _has_outline, _infer)
    return value.source.spec if isinstance(value, Deferred) else _drawn(value.array)


def _drawn(array: Any) -> Any:
    return tuple(map(_drawn, array)) if isinstance(array, tuple) else Spec(array.shape, array.dtype)


_settling = threading.RLock()  # threads may ask for one value at one time


def _settle(value: Any, settled: Callable[[Any], bool], settle: Callable[[Any], None]) -> None:
    """Settle a deferred value after all that it depends on, without recursion."""
    waiting = [value]
    with _settling:
        while waiting:
            if settled(waiting[-1]):
                waiting.pop()
            elif needed := [x for x in waiting[-1].source.inputs if not settled(x)]:
                waiting += needed
            else:
                settle(waiting[-1])


def _compute(value: Any) -> None:
    try:
        array = run(value.source.op, value.source.inputs)
    except AttributeError as error:  # which Python would take for a missing attribute of the value
        raise RuntimeError(f"{type(value.source.op).__name__}: compute must not fail, but got {error!r}") from error
    value.array = array
    value.plain.spec.__set__(value, array)  # the slot that the property covers until now
    value.__class__ = value.plain
    del value.source


def _has_outline(value: Any) -> bool:
    return not isinstance(value, Deferred) or value.source.spec is not None


def _infer(value: Any) -> None:
    """Find the spec of a value from those of its inputs; where its op cannot tell, compute it."""
    value.source.spec = value.source.op.infer(*map(spec_of, value.source.inputs))
    if value.source.spec is None:
        _settle(value, lambda x: not isinstance(x, Deferred), _compute)
