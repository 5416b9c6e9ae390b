"""Base classes of ops that infer shape and dtype of their result in the same way.

An op without parameters is made once, as a constant of its file (`ADD`). Functions check their arguments and call ops;
a gradient calls ops directly.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from needle.autograd import Tensor, TensorOp
from needle.backend import cpu
from needle.graph import Array as Array  # what `compute` sees
from needle.graph import Op, Spec
from needle.kernels import Size
from needle.ops.operand import broadcast_shape
from needle.words import Axes as Axes

__all__ = ["Array", "Axes", "Elementwise", "FixedShape", "Gradients", "result_dtype"]

Gradients: TypeAlias = tuple[Tensor | None, ...]  # one per input, None where no gradient flows


def result_dtype(op: Op, *inputs: Any) -> Any:
    """The dtype of `op`'s result; without a floating input, found by computing on one element of each."""
    namespace, dtypes = cpu().xp, {x.dtype for x in inputs}
    if any(dtype.kind == "f" for dtype in dtypes):
        return namespace.result_type(*dtypes)
    return op.compute(*(namespace.ones((1,) * len(x.shape), x.dtype) for x in inputs)).dtype


class Elementwise(TensorOp):
    """An op that combines elements in the same place, of operands that broadcast."""

    is_elementwise = True

    def infer(self, *inputs: Any) -> Spec:
        shape = broadcast_shape(type(self).__name__, *(x.shape for x in inputs))
        return Spec(shape, result_dtype(self, *inputs))


class FixedShape(TensorOp):
    """An op with a result of the dtype of its input and of shape `self.shape`."""

    shape: Size

    def infer(self, x: Any, *_: Any) -> Spec:
        return Spec(self.shape, x.dtype)
