"""NDArray: a strided array with its device, as the course's API exposes data."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from needle import check
from needle.backend import (
    Device,
    DTypeLike,
    HostArray,
    HostScalar,
    check_writable,
    cpu,
    default_device,
    device_for,
    device_of,
    native,
    to_host,
    xp,
)
from needle.backend_ndarray.buffer import Buffer, Shape, reach, row_major, strided
from needle.backend_ndarray.operators import arithmetic, as_floats, comparison, matched

__all__ = ["NDArray"]


class Owner(Protocol):
    """The tensor that owns the memory of an NDArray: writes are reported to it."""

    def bump_version(self) -> None: ...
    def version_counter(self) -> Any: ...


class NDArray:
    """An n-dimensional array on a device.

    `NDArray(other, device=None)` copies; `NDArray.wrap(array)` shares the memory of a raw array. `array` is the raw
    NumPy or CuPy array. As a NumPy array (`np.asarray`) it is read-only.

    Indexing returns views, and an integer keeps its axis with length 1, like a slice of one element. A write through
    any view is reported to the tensor that owns the memory; a write into `array` is not. Operators take arrays that
    broadcast, and numbers; comparisons return ones and zeros in a floating dtype.

    >>> array = NDArray([[1, 2, 3], [4, 5, 6]])
    >>> array[:, 1:].fill(0)
    >>> array
    NDArray([[1 0 0]
             [4 0 0]], device=cpu())
    >>> array.strides
    (3, 1)
    >>> array[1, 0]
    NDArray([[4]], device=cpu())
    """

    __slots__ = ("_buffer", "_owner", "array")
    __array_priority__ = 1000  # NumPy's scalars and arrays leave operators to this class
    array: Any
    _owner: Owner | None
    _buffer: Buffer | None  # the memory, if `array.base` does not lead to it

    def __init__(self, other: Any, device: Device | None = None) -> None:
        data = other.array if isinstance(other, NDArray) else other
        if device is None:
            device = other.device if isinstance(other, NDArray) else device_for(data)
        self.array = device.array(data)
        self._owner = self._buffer = None

    @classmethod
    def wrap(cls, array: Any, owner: Owner | None = None, buffer: Buffer | None = None) -> NDArray:
        """An NDArray that shares the memory of a raw array."""
        self = cls.__new__(cls)
        self.array, self._owner, self._buffer = array, owner, buffer
        return self

    @staticmethod
    def make(
        shape: Sequence[int],
        strides: Sequence[int] | None = None,
        device: Device | None = None,
        handle: Buffer | None = None,
        offset: int = 0,
    ) -> NDArray:
        """An array in the memory `handle`, by default in new, uninitialized float32 memory.

        `strides` and `offset` count elements; strides are row-major by default. Raises ValueError if an element would
        lie outside of the memory.
        """
        shape = tuple(check.integer("make", "shape", n, least=0) for n in shape)
        strides = row_major(shape) if strides is None else tuple(check.integer("make", "strides", n) for n in strides)
        check.same("make", "rank", len(shape), len(strides), ("shape", "strides"))
        offset = check.integer("make", "offset", offset, least=0)
        if handle is None:
            device = device or default_device()
            with device.current():
                handle = Buffer(device.xp.empty(reach(shape, strides)[1] + offset, dtype="float32"))
        check.instance("make", "handle", handle, Buffer)
        return NDArray.wrap(strided("make", handle, shape, strides, offset), buffer=handle)

    # ---- properties --------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return tuple(self.array.shape)

    @property
    def strides(self) -> Shape:
        """The step of each axis in elements (not bytes)."""
        return tuple(step // self.array.itemsize for step in self.array.strides)

    @property
    def dtype(self) -> Any:
        return self.array.dtype

    @property
    def ndim(self) -> int:
        return int(self.array.ndim)

    @property
    def size(self) -> int:
        return int(self.array.size)

    @property
    def device(self) -> Device:
        return device_of(self.array)

    @property
    def _handle(self) -> Buffer:
        return self._buffer or Buffer(self.array)

    @property
    def _offset(self) -> int:
        """The offset of the first element in the memory, in elements."""
        return (self.device.address(self.array) - self._handle.ptr()) // int(self.array.itemsize)

    def is_compact(self) -> bool:
        """Whether the elements are row-major and fill their memory."""
        in_order = self.strides == row_major(self.shape) or not self.size
        return in_order and bool(self.array.flags.c_contiguous) and self._handle.size == self.size

    # ---- conversions -------------------------------------------------------------------------------------------------

    def numpy(self) -> HostArray:
        """A row-major copy on the host."""
        return np.array(self.device.to_host(self.array), order="C")

    def version_counter(self, owner: Owner) -> Any:
        """The version counter of the tensor that owns this memory; `owner` becomes the owner if there was none."""
        self._owner = owner if self._owner is None else self._owner
        return self._owner.version_counter()

    def to(self, device: Device) -> NDArray:
        """A copy on `device`; the array itself if it is there already."""
        return self if device == self.device else NDArray(self, device)

    def astype(self, dtype: DTypeLike) -> NDArray:
        """A copy with another dtype."""
        return NDArray.wrap(self.array.astype(native(dtype)))

    def compact(self) -> NDArray:
        """This array if it is compact, else a compact copy."""
        return self if self.is_compact() else NDArray(self)

    # ---- views -------------------------------------------------------------------------------------------------------

    @property
    def flat(self) -> NDArray:
        """A 1-d view. Raises ValueError unless the memory is row-major."""
        if not self.array.flags.c_contiguous:
            raise ValueError(f"flat: memory must be row-major, but got shape {self.shape} with strides {self.strides}")
        return self._view(self.array.reshape(-1))

    def as_strided(self, shape: Sequence[int], strides: Sequence[int]) -> NDArray:
        """A view that starts at the first element; strides count elements.

        Raises ValueError if an element would lie outside of the memory.
        """
        shape = tuple(check.integer("as_strided", "shape", n, least=0) for n in shape)
        strides = tuple(check.integer("as_strided", "strides", n) for n in strides)
        check.same("as_strided", "rank", len(shape), len(strides), ("shape", "strides"))
        view = strided("as_strided", self._handle, shape, strides, self._offset)
        return NDArray.wrap(view, self._owner, self._handle)  # CuPy's as_strided sets no base

    def reshape(self, new_shape: Sequence[int]) -> NDArray:
        """The elements in row-major order in another shape: a view if no copy is needed. One size may be -1."""
        shape = tuple(check.integer("reshape", "shape", n, least=-1) for n in new_shape)
        known = math.prod(n for n in shape if n != -1)
        if shape.count(-1) > 1 or (self.size % (known or 1) if -1 in shape else known != self.size):
            raise ValueError(f"reshape: shape must hold the {self.size} elements of {self.shape}, but got {shape}")
        reshaped = self.array.reshape(shape)
        return self._view(reshaped) if self.array.flags.c_contiguous else NDArray.wrap(reshaped, self._owner)

    def permute(self, axes: Sequence[int]) -> NDArray:
        """A view with the axes reordered: axis i of the result is axis `axes[i]`."""
        order = check.axes("permute", tuple(axes), self.ndim)
        check.same("permute", "number of axes", self.ndim, len(order), ("the array", "axes"))
        return self._view(self.array.transpose(order))

    def broadcast_to(self, shape: Sequence[int]) -> NDArray:
        """A view repeated up to `shape` by NumPy's rules; repeated axes have stride 0."""
        return self._view(xp(self.array).broadcast_to(self.array, tuple(shape)))

    def process_slice(self, entry: slice, dim: int) -> slice:
        """A slice of axis `dim` with None and negative bounds resolved to integers."""
        return slice(*entry.indices(self.shape[dim]))

    def __getitem__(self, index: Any) -> NDArray:
        """A view by integers, slices and an ellipsis; an integer keeps its axis with length 1."""
        return self._view(self.array[self._slices(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a number, or an array of as many elements, in place.

        Before anything is marked as changed it raises ValueError if the memory is read-only or repeated, or its dtype
        does not hold the number, and TypeError for an array of a dtype that it cannot hold (integers no floats).
        """
        index = self._slices(index)
        check_writable("NDArray", "an array that is written to", self.array)
        value = value.item() if isinstance(value, HostScalar) else value
        if isinstance(value, (int, float)):
            check.filling("NDArray", "a value", value, self.dtype)
        elif hasattr(value, "dtype") and not np.can_cast(value.dtype, self.dtype, "same_kind"):
            raise TypeError(f"NDArray: a value must fit dtype {self.dtype}, but got {value.dtype}")
        if isinstance(value, NDArray):
            value = self._operand(value).reshape(self.array[index].shape)
        if self._owner is not None:
            self._owner.bump_version()
        self.array[index] = value

    def fill(self, value: float) -> None:
        """Set every element to `value`, in place."""
        self[...] = value

    def __len__(self) -> int:
        return len(self.array)

    # ---- arithmetic --------------------------------------------------------------------------------------------------

    __add__ = arithmetic(operator.add)
    __radd__ = arithmetic(operator.add, reflected=True)
    __sub__ = arithmetic(operator.sub)
    __rsub__ = arithmetic(operator.sub, reflected=True)
    __mul__ = arithmetic(operator.mul)
    __rmul__ = arithmetic(operator.mul, reflected=True)
    __truediv__ = arithmetic(operator.truediv)
    __rtruediv__ = arithmetic(operator.truediv, reflected=True)
    __pow__ = arithmetic(operator.pow)
    __rpow__ = arithmetic(operator.pow, reflected=True)
    __matmul__ = arithmetic(operator.matmul)
    __rmatmul__ = arithmetic(operator.matmul, reflected=True)
    __eq__ = comparison(operator.eq)
    __ne__ = comparison(operator.ne)
    __lt__ = comparison(operator.lt)
    __le__ = comparison(operator.le)
    __gt__ = comparison(operator.gt)
    __ge__ = comparison(operator.ge)
    __hash__ = None  # type: ignore[assignment]  # __eq__ is elementwise

    def __neg__(self) -> NDArray:
        return self._new(-self.array)

    def maximum(self, other: Any) -> NDArray:
        """The elementwise maximum with another array, or with a number."""
        operand = self._operand(other)
        if operand is NotImplemented:
            raise TypeError(f"maximum: other must be an array or a number, but got {type(other).__name__}")
        return self._new(xp(self.array).maximum(*matched(self.array, operand)))

    def log(self) -> NDArray:
        return self._new(xp(self.array).log(as_floats(self.array)))

    def exp(self) -> NDArray:
        return self._new(xp(self.array).exp(as_floats(self.array)))

    def tanh(self) -> NDArray:
        return self._new(xp(self.array).tanh(as_floats(self.array)))

    def sum(self, axis: int | Sequence[int] | None = None, keepdims: bool = False, **nones: None) -> NDArray:
        """The sum over one axis, several, or all (None): the result then has shape (). Floats are summed in float64.

        `np.sum` passes `dtype` and `out`, which must be None; so for `max`.
        """
        _check_nones("sum", nones)
        dtype = self.array.dtype if self.array.dtype.kind == "f" else None
        axes = check.reduced_axes("sum", axis, self.ndim, keepdims)
        total = self.array.sum(axis=axes, keepdims=keepdims, dtype=dtype and "float64")
        return self._new(total if dtype is None else total.astype(dtype, copy=False))

    def max(self, axis: int | Sequence[int] | None = None, keepdims: bool = False, **nones: None) -> NDArray:
        """The maximum over one axis, several, or all (None): the result then has shape ()."""
        _check_nones("max", nones)
        axes = check.reduced_axes("max", axis, self.ndim, keepdims)
        return self._new(self.array.max(axis=axes, keepdims=keepdims))

    def flip(self, axes: int | Sequence[int] | None = None) -> NDArray:
        """A compact copy with the elements in reverse order along `axes`, by default all."""
        axes = check.axes("flip", axes, self.ndim)
        return NDArray(NDArray.wrap(xp(self.array).flip(self.array, axes)))

    def pad(self, axes: Sequence[tuple[int, int]]) -> NDArray:
        """The array with zeros around it; `axes` holds one pair (before, after) per axis."""
        pairs = tuple(check.sizes("pad", "pair", tuple(pair), 2) for pair in axes)
        check.same("pad", "number of axes", self.ndim, len(pairs), ("the array", "axes"))
        return self._new(xp(self.array).pad(self.array, pairs))

    # ---- as Python and NumPy see it ----------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> HostArray:
        if copy is False and self.device != cpu():
            raise ValueError(f"NDArray: an array on {self.device} must be copied to become NumPy's, but got copy=False")
        values = to_host(self.array)
        host = np.array(values, dtype=dtype, copy=copy)
        if copy is not True and values is self.array and np.may_share_memory(host, values):
            host = host.view()
            host.flags.writeable = False  # a write that needle does not see could make a gradient wrong
        return host

    def item(self) -> Any:
        """The only element, as a Python number. Raises ValueError unless there is exactly one."""
        if self.array.size != 1:
            raise ValueError(f"item: an array of one element is needed, but got shape {self.shape}")
        return to_host(self.array).item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        values = str(to_host(self.array)).replace("\n", "\n        ")
        return f"NDArray({values}, device={self.device})"

    # ---- helpers -----------------------------------------------------------------------------------------------------

    def _view(self, array: Any) -> NDArray:
        """A raw view of this array's memory as an NDArray with the same owner."""
        return NDArray.wrap(array, self._owner, self._buffer)

    def _new(self, array: Any) -> NDArray:
        """A result as an NDArray; NumPy returns scalars for 0-d arrays."""
        return NDArray.wrap(self.device.asarray(array) if isinstance(array, HostScalar) else array)

    def _operand(self, other: Any) -> Any:
        """The other operand as a raw array or a Python number; NotImplemented if it is neither.

        Raises TypeError if it is an array on another device.
        """
        is_ndarray = isinstance(other, NDArray)
        array = other.array if is_ndarray else other
        if is_ndarray or type(array) is type(self.array):
            here, there = device_of(self.array), device_of(array)
            if here is not there:
                raise TypeError(f"NDArray: operands must be on one device, but got {here} and {there}")
            return array
        number = other.item() if isinstance(other, HostScalar) else other
        return number if isinstance(number, (int, float)) else NotImplemented

    def _slices(self, index: Any) -> tuple[slice, ...]:
        """One slice for each axis."""
        index = index if isinstance(index, tuple) else (index,)
        if any(entry is Ellipsis for entry in index):
            position = next(i for i, entry in enumerate(index) if entry is Ellipsis)
            full_slices = (slice(None),) * (self.ndim - len(index) + 1)
            index = index[:position] + full_slices + index[position + 1 :]
        if len(index) > self.ndim:
            raise IndexError(f"NDArray: indices must be at most {self.ndim} for {self.shape}, but got {len(index)}")
        return tuple(
            entry if isinstance(entry, slice) else self._slice_of_one(entry, n)
            for entry, n in zip(index, self.shape, strict=False)
        )

    def _slice_of_one(self, entry: Any, size: int) -> slice:
        index = check.integer("NDArray", "an index other than a slice", entry)
        if not -size <= index < size:
            raise IndexError(f"NDArray: an index must lie in [{-size}, {size - 1}], but got {index} for {self.shape}")
        return slice(index % size, index % size + 1, 1)


def _check_nones(op: str, words: dict[str, Any]) -> None:
    """Refuse other arguments than those that NumPy's functions pass."""
    for word, value in words.items():
        if value is not None or word not in ("dtype", "out"):
            raise TypeError(f"{op}: arguments must be axis and keepdims, but got {word}={value!r}")
