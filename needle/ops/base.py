"""The specs (shape, dtype) of results, which LAZY_MODE knows before it computes them."""

from __future__ import annotations

from needle.autograd import TensorOp
from needle.backend import cpu
from needle.lazy import Spec
from needle.ops.operand import broadcast_shape


def dtype_of(op, *inputs):
    """The dtype of the result of arithmetic: where no input is of floats, that of a trial with one element of each."""
    namespace, dtypes = cpu().xp, {x.dtype for x in inputs}
    if any(dtype.kind == "f" for dtype in dtypes):
        return namespace.result_type(*dtypes)
    return op.compute(*(namespace.ones((1,) * len(x.shape), x.dtype) for x in inputs)).dtype


class Elementwise(TensorOp):
    """An op whose elements come from the elements in the same place, of operands that broadcast."""

    def infer(self, *inputs):
        return Spec(broadcast_shape(type(self).__name__, *(x.shape for x in inputs)), dtype_of(self, *inputs))


class Reshaping(TensorOp):
    """An op whose result has the elements of its input, or zeros, in `self.shape`."""

    def infer(self, x, *_):
        return Spec(self.shape, x.dtype)
