"""The operators and methods of tensors, declared for type checkers and readers.

Each is the function of that name in `needle.ops`, attached by `needle/ops/methods.py`, where operators have the words
of Python. Names in one line share a signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeAlias, TypeVar, Unpack

from needle.backend import Device, DTypeLike, HostArray, HostScalar
from needle.backend_ndarray import NDArray
from needle.words import Axes, AxesWords, AxisWords, BoundWords, DeviationWords, IndexWords, ReductionWords

__all__ = ["Ordered", "TensorMethods"]

Operand: TypeAlias = "TensorMethods | NDArray | HostArray | HostScalar | float | Sequence[Any]"


T = TypeVar("T")


class Ordered(NamedTuple, Generic[T]):
    """What `sort` and `topk` return: elements in order, and their int64 indices."""

    values: T
    indices: T


class TensorMethods:
    """Base of Tensor, which is empty at run time."""

    __slots__ = ()

    if TYPE_CHECKING:
        # fmt: off
        def _binary(self, other: Operand) -> Self: ...
        def _function(self, b: Operand) -> Self: ...
        def _unary(self) -> Self: ...
        def _reduction(self, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]) -> Self: ...
        def _along(self, axis: int = -1, **words: Unpack[AxisWords]) -> Self: ...
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _binary
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __lt__ = __le__ = __gt__ = __ge__ = _binary
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _binary
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = _binary
        __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = _binary
        __neg__ = __pos__ = __abs__ = __invert__ = _unary
        abs = erf = exp = log = relu = sigmoid = sign = sqrt = tanh = _unary
        log1p = log2 = log10 = reciprocal = rsqrt = square = ceil = floor = trunc = _unary
        acos = acosh = asin = asinh = atan = atanh = cos = cosh = sin = sinh = tan = _unary
        isfinite = isinf = isnan = bitwise_not = logical_not = _unary
        atan2 = hypot = floor_divide = fmod = matmul = remainder = _function
        bitwise_and = bitwise_or = bitwise_xor = logical_and = logical_or = logical_xor = _function
        sum = mean = max = min = prod = logsumexp = _reduction
        softmax = log_softmax = logsoftmax = _along
        def _deviation(
            self, axes: Axes = None, keepdims: bool = False, correction: float = 1, unbiased: bool | None = None,
            **words: Unpack[DeviationWords],
        ) -> Self: ...
        std = var = _deviation
        def __eq__(self, other: object) -> Self: ...  # type: ignore[override]
        def __ne__(self, other: object) -> Self: ...  # type: ignore[override]
        def __hash__(self) -> int: ...
        def __contains__(self, element: object) -> bool: ...
        def __getitem__(self, index: Any) -> Self: ...
        def __setitem__(self, index: Any, value: Operand) -> None: ...
        def argmax(
            self, axis: int | None = None, keepdims: bool = False, **words: Unpack[IndexWords]
        ) -> Self: ...
        argmin = argmax
        def astype(self, dtype: DTypeLike) -> Self: ...
        def broadcast_to(self, shape: int | Sequence[int], *sizes: int) -> Self: ...
        def clip(
            self, low: float | None = None, high: float | None = None, **words: Unpack[BoundWords]
        ) -> Self: ...
        clamp = clip
        def flip(self, axes: Axes = None, **words: Unpack[AxesWords]) -> Self: ...
        def permute(self, axes: int | Sequence[int] = (), *others: int, **words: Unpack[AxesWords]) -> Self: ...
        def round(self, decimals: int = 0) -> Self: ...
        def reshape(self, shape: int | Sequence[int], *sizes: int) -> Self: ...
        def argsort(self, axis: int = -1, descending: bool = False, **words: Unpack[AxisWords]) -> Self: ...
        def sort(
            self, axis: int = -1, descending: bool = False, **words: Unpack[AxisWords]
        ) -> Ordered[Self]: ...
        def topk(
            self, k: int, axis: int = -1, largest: bool = True, **words: Unpack[AxisWords]
        ) -> Ordered[Self]: ...
        def cumsum(self, axis: int | None = None, **words: Unpack[AxisWords]) -> Self: ...
        def gather(
            self, axis: int | None = None, index: Operand | None = None, **words: Unpack[AxisWords]
        ) -> Self: ...
        index_select = gather
        def scatter(
            self, axis: int | None = None, index: Operand | None = None, src: Operand | None = None,
            **words: Unpack[AxisWords],
        ) -> Self: ...
        scatter_add = scatter
        def take(self, index: Operand) -> Self: ...
        def masked_fill(self, mask: Operand, value: Operand) -> Self: ...
        def norm(
            self, p: float | str = 2, axes: Axes = None, keepdims: bool = False, **words: Unpack[ReductionWords]
        ) -> Self: ...
        def repeat(self, *sizes: int | Sequence[int]) -> Self: ...
        def repeat_interleave(
            self, repeats: int | Operand, axis: int | None = None, **words: Unpack[AxisWords]
        ) -> Self: ...
        def tile(self, *reps: int | Sequence[int]) -> Self: ...
        def tril(self, diagonal: int = 0) -> Self: ...
        triu = tril
        def to(self, device: Device) -> Self: ...
        def transpose(self, axes: Axes = None, *others: int, **words: Unpack[AxesWords]) -> Self: ...
        # fmt: on
