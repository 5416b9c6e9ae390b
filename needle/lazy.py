"""LAZY_MODE: ops compute their results when these are first used.

A deferred value holds a thunk: its op and inputs. Reading its `array` computes it and turns it into a plain value. Its
shape and dtype are known before that if its op can infer them (`Op.infer`). A write into memory that deferred values
read computes them first, so results equal those of eager mode.

An outline is a forward pass of which nothing is computed: its inputs are deferred values of an op that refuses to run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from needle import autograd
from needle.autograd import Tensor, TensorTuple, TensorTupleOp
from needle.grad_mode import mode, no_grad
from needle.graph import Op, Spec, Value, check_one_device, run, run_gradient

__all__ = ["Deferred", "DeferredTensor", "DeferredTensorTuple", "outline", "spec_of"]


class Thunk:
    """A pending computation: op and inputs, plus the spec (for a tuple: a tuple of specs) once inferred."""

    __slots__ = ("device", "inputs", "op", "spec")

    def __init__(self, op: Op, inputs: Sequence[Value]) -> None:
        self.op, self.inputs, self.device = op, inputs, op.device or inputs[0].device
        self.spec: Any = None


class Identity(Op):
    """The op of a detached value: returns its input."""

    differentiable, is_view = False, True

    def compute(self, array: Any) -> Any:
        return array

    def infer(self, spec: Any) -> Any:
        return spec


class FusedGradient(TensorTupleOp):
    """The gradients that an op's `compute_gradient` returns for the inputs that need one, as a tuple."""

    differentiable = False

    def __init__(self, op: Op, needed: Sequence[bool]) -> None:
        self.op, self.needed = op, needed

    def compute(self, out_grad: Any, output: Any, *inputs: Any) -> Any:
        grads = run_gradient(self.op, out_grad, output, inputs, self.needed)
        pairs = [(grad, x) for grad, x in zip(grads, inputs, strict=True) if grad is not None]
        return tuple(grad.astype(x.dtype, copy=False) if x.dtype.kind == "f" else grad for grad, x in pairs)

    def infer(self, out_grad: Any, output: Any, *inputs: Any) -> Any:
        specs = [spec for spec, need in zip(inputs, self.needed, strict=True) if need]
        return tuple(specs) if all(spec.dtype.kind == "f" for spec in specs) else None  # of integers: of any floats


class Deferred:
    """Mixin of values that are not computed yet; `eager_class` is the class they turn into."""

    __slots__ = ()
    eager_class: ClassVar[type[Any]]
    thunk: Thunk

    @classmethod
    def defer(cls, op: Op, inputs: Sequence[Value]) -> Any:
        """A value to be computed by `op` later, registered with the memory that it reads."""
        check_one_device(type(op).__name__, inputs)
        self: Any = object.__new__(cls)
        self.thunk = Thunk(op, inputs)
        for x in inputs:
            x.version_counter().add_pending(self)
        return self

    @staticmethod
    def defer_gradients(node: Value, out_grad: Value, needed: Sequence[bool]) -> Sequence[Any]:
        """The gradients of the inputs of `node`, to be computed together when one is asked for."""
        assert node.op is not None
        if any(isinstance(x, TensorTuple) for x in node.inputs):  # a tuple holds no tuples
            return node.op.gradient_as_tuple(out_grad, node)
        grads = iter(FusedGradient(node.op, needed)(out_grad, node, *node.inputs))
        return [next(grads) if need else None for need in needed]

    def __getattr__(self, name: str) -> Any:
        if name != "array":  # Python asks here because the slot is unset until the value is computed
            raise AttributeError(f"{type(self).__name__}: the attribute must be defined, but got {name!r}")
        _resolve(self, _is_computed, _compute)
        return self.array

    @classmethod
    def make_leaf(cls, array: Any, requires_grad: bool = False) -> Any:
        return cls.eager_class.make_leaf(array, requires_grad)

    def detach(self) -> Any:
        return self.eager_class.make_from_op(Identity(), (self,))

    @property
    def device(self) -> Any:
        thunk = getattr(self, "thunk", None)  # None if another thread has computed this value meanwhile
        return self.device if thunk is None else thunk.device

    @property
    def spec(self) -> Any:
        return spec_of(self)


class DeferredTensor(Deferred, Tensor):
    """A tensor that is not computed yet."""

    __slots__ = ()
    eager_class = Tensor


class DeferredTensorTuple(Deferred, TensorTuple):
    """A tuple of tensors that is not computed yet."""

    __slots__ = ()
    eager_class = TensorTuple


Tensor.deferred, TensorTuple.deferred = DeferredTensor, DeferredTensorTuple


@contextmanager
def outline() -> Iterator[None]:
    """Defer all ops, record no graph for backward, and check no values, until the block ends; one block at a time."""
    with _outlining, no_grad():
        before = autograd.LAZY_MODE
        try:
            autograd.LAZY_MODE = mode.outlining = True
            yield
        finally:
            autograd.LAZY_MODE, mode.outlining = before, False


def spec_of(value: Any) -> Any:
    """The spec of a value, inferred if it is not computed."""
    with _resolving:
        if isinstance(value, Deferred):
            _resolve(value, _has_spec, _infer)
        return value.thunk.spec if isinstance(value, Deferred) else _spec_of_array(value.array)


def _spec_of_array(array: Any) -> Any:
    return tuple(map(_spec_of_array, array)) if isinstance(array, tuple) else Spec(array.shape, array.dtype)


_resolving = threading.RLock()  # several threads may ask for one value at once
_outlining = threading.RLock()  # LAZY_MODE is one for all threads


def _reset_after_fork() -> None:
    """Give a forked child new locks: the threads that held them may not exist there."""
    global _resolving, _outlining
    _resolving, _outlining = threading.RLock(), threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _resolve(value: Any, is_done: Callable[[Any], bool], do: Callable[[Any], None]) -> None:
    """Apply `do` to everything a deferred value depends on, then to the value, without recursion."""
    stack = [value]
    with _resolving:
        while stack:
            if is_done(stack[-1]):
                stack.pop()
            elif pending := [x for x in stack[-1].thunk.inputs if not is_done(x)]:
                stack += pending
            else:
                do(stack[-1])


def _is_computed(value: Any) -> bool:
    return not isinstance(value, Deferred)


def _compute(value: Any) -> None:
    """Compute a deferred value from computed inputs; it becomes an instance of its eager class."""
    try:
        array = run(value.thunk.op, value.thunk.inputs)
    except AttributeError as error:  # Python would take it for a missing attribute of the value
        raise RuntimeError(f"{type(value.thunk.op).__name__}: compute must not fail, but got {error!r}") from error
    value.array = array
    value.eager_class.spec.__set__(value, array)  # the slot that the property `spec` hides until now
    value.__class__ = value.eager_class
    del value.thunk


def _has_spec(value: Any) -> bool:
    return not isinstance(value, Deferred) or value.thunk.spec is not None


def _infer(value: Any) -> None:
    """Infer the spec of a value from its inputs' specs; compute the value if its op cannot infer it."""
    value.thunk.spec = value.thunk.op.infer(*map(spec_of, value.thunk.inputs))
    if value.thunk.spec is None:
        _resolve(value, _is_computed, _compute)
