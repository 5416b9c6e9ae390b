"""A search for the op that first makes a NaN or an infinity, in forward or in backward."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from needle.backend import without_warnings, xp
from needle.grad_mode import watch
from needle.graph import Op, Value
from needle.nn import Parameter

__all__ = ["detect_anomaly"]

SOURCES = os.path.dirname(__file__) + os.sep
GRADIENTS = {"gradient_as_tuple", "fused_gradients"}  # the methods through which backward asks ops for gradients


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Raise RuntimeError at the op that makes the first NaN or infinity; also a decorator.

    That is an op whose result has an infinity although its inputs are finite, or a NaN although they have none. The
    error names the op and the line outside of needle that called it. In backward it comes where an op makes such a
    gradient for one of its inputs, and the line is the one that called the op in forward; that is unknown for ops that
    ran before the block. A Parameter that is not finite, as an optimizer's step may leave it, is reported by the first
    op whose result it spoils.

    Values that are not finite from the start are no anomaly, such as the -inf of a mask or NaNs of a data set, nor are
    infinities that are asked for, as by `x.masked_fill(mask, -math.inf)`. The mode holds for this thread until the
    block ends. Each op costs a pass over its result meanwhile; on a GPU, each op waits for the device. NumPy's warnings
    are silent.

    >>> import needle as ndl
    >>> x = ndl.Tensor([1.0, 0.0])
    >>> with detect_anomaly():
    ...     y = ndl.log(x)
    Traceback (most recent call last):
    RuntimeError: Log: results must be finite, but got 1 infinity in shape (2,), not from its inputs
      at <doctest needle.anomaly.detect_anomaly[2]>:2 in <module>: y = ndl.log(x)
    """
    with watch(_Search()), without_warnings():  # the errors say more than NumPy's warnings
        yield


class Place(NamedTuple):
    """A line of the user's code that called an op, and whether backward called it for a gradient."""

    file: str
    line: int
    function: str
    in_gradient: bool

    def __str__(self) -> str:
        import linecache

        source = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line} in {self.function}{source and f': {source}'}"


class _Search:
    def made(self, value: Value, op: Op, inputs: Sequence[Value]) -> None:
        value.place = place = _calling_place()
        if place.in_gradient or _is_finite(value.array):  # `passed` looks at gradients
            return
        name = type(op).__name__
        for i, x in enumerate(inputs):
            if isinstance(x, Parameter) and not _is_finite(x.array):
                found = f"{_found(x.array)}, input {i}"
                raise RuntimeError(f"{name}: parameters must be finite, but got {found}\n  at {place}")
        if _adds(value.array, inputs) and not _asks_for_infinity(op):
            found = _found(value.array)
            raise RuntimeError(f"{name}: results must be finite, but got {found}, not from its inputs\n  at {place}")

    def passed(self, node: Value, grad: Value, x_grads: Sequence[Any]) -> None:
        for i, (x, x_grad) in enumerate(zip(node.inputs, x_grads, strict=True)):
            if not x.requires_grad or x_grad is None:
                continue
            for part in x_grad.values() if isinstance(x_grad, dict) else [x_grad]:
                if not _is_finite(part.array) and _adds(part.array, (grad, node, *node.inputs)):
                    place = getattr(node, "place", "an unknown line: it ran before the block")
                    raise RuntimeError(
                        f"backward: gradients must be finite, but {type(node.op).__name__} made {_found(part.array)} "
                        f"for its input {i}\n  at {place}"
                    )


def _calling_place() -> Place:
    """The innermost line outside of needle."""
    frame, in_gradient = sys._getframe(2), False
    while frame.f_back is not None and frame.f_code.co_filename.startswith(SOURCES):
        in_gradient = in_gradient or frame.f_code.co_name in GRADIENTS
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, in_gradient)


def _is_finite(array: Any) -> bool:
    """Whether a raw array, or a tuple of them, has finite elements only."""
    if isinstance(array, tuple):
        return all(map(_is_finite, array))
    return array.dtype.kind != "f" or bool(xp(array).isfinite(array).all().item())


def _adds(made: Any, sources: Sequence[Value]) -> bool:
    """Whether an array that is not finite has a NaN and no source has one, or an infinity and all are finite."""
    arrays = [source.array for source in sources]
    return all(map(_is_finite, arrays)) or (_has_nan(made) and not any(map(_has_nan, arrays)))


def _has_nan(array: Any) -> bool:
    if isinstance(array, tuple):
        return any(map(_has_nan, array))
    return array.dtype.kind == "f" and bool(xp(array).isnan(array).any().item())


def _asks_for_infinity(op: Op) -> bool:
    """Whether a parameter of the op is not finite, such as the value that it fills in."""
    return any(isinstance(value, float) and not math.isfinite(value) for value in vars(op).values())


def _found(array: Any) -> str:
    """How many NaNs and infinities there are, and the shape in which."""
    if isinstance(array, tuple):
        array = next(part for part in array if not _is_finite(part))
    counts = [f(array).sum().item() for f in (xp(array).isnan, xp(array).isinf)]
    words = zip(counts, ("NaN", "infinity"), ("NaNs", "infinities"), strict=True)
    found = " and ".join(f"{n} {one if n == 1 else several}" for n, one, several in words if n)
    return f"{found} in shape {array.shape}"
