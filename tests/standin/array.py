"""The arrays of the stand-in device: NumPy's inside, CuPy's outside.

An array here is not a NumPy array, and never becomes one implicitly. It refuses what CuPy refuses (host arrays as
operands, `np.asarray`), and operations with hidden costs: waiting for the device in `float(x)` or `if x`, copying
the host's data in `x[np.array([1])]`, moving work in `np.exp(x)`, and computing on an array of another device than the
current one, whose result would land on the current one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tests.standin.current import DeviceContext
from tests.standin.missing import METHODS, refuse

SCALARS = (bool, int, float, complex, np.generic)
DLPACK_TYPE = 99  # not one of DLPack's, so that real GPUs and the stand-in are told apart
quiet = partial(np.errstate, all="ignore")  # a GPU raises no floating-point warnings


@dataclass
class Counts:
    """How often the host sent data, fetched data, and waited for a size or a value from the device.

    `calls` counts how often the device was given work: one kernel, or several.
    """

    uploads: int = 0
    downloads: int = 0
    waits: int = 0
    calls: int = field(default=0, compare=False)


counts = Counts()


@contextmanager
def counting() -> Iterator[Counts]:
    """Counts within the block, complete when it ends."""
    before, since = dict(vars(counts)), Counts()
    yield since
    for name, then in before.items():
        setattr(since, name, getattr(counts, name) - then)


_owners: WeakValueDictionary[int, Array] = WeakValueDictionary()  # by the id of the NumPy array inside


class Array:
    """An array of a stand-in device. `Array.of(host)` holds a NumPy array; its memory stands for the device's.

    It is on `device`, by default the current one.
    """

    __slots__ = ("__weakref__", "_host", "_rootless", "device")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    _host: np.ndarray[Any, Any]
    device: DeviceContext

    @classmethod
    def of(cls, host: Any, device: DeviceContext | None = None) -> Array:
        self = cls.__new__(cls)
        self._host, self._rootless, self.device = host, False, device or DeviceContext.current()
        if host.base is None:
            _owners[id(host)] = self
        return self

    def here(self) -> np.ndarray[Any, Any]:
        """The NumPy array inside, for a kernel on the current device."""
        if self.device.id != DeviceContext.current().id:
            raise TypeError(
                f"an array of device {self.device.id} was used on device {DeviceContext.current().id} in silence: the "
                "result would lie there"
            )
        return self._host

    def view(self, *args: Any, **options: Any) -> Array:
        return self._view(self._host.view(*args, **options))

    def _view(self, host: np.ndarray[Any, Any]) -> Array:
        """A view of this array's memory, which stays on its device."""
        return Array.of(host, self.device)

    def without_base(self) -> Array:
        """This array without its base, which would identify the owner of the memory."""
        self._rootless = True
        return self

    # ---- refused ----

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` instead.")

    def __array_ufunc__(self, ufunc: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array; ask xp(array) for the namespace")

    def __array_function__(self, function: Any, *_: Any, **__: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array; ask xp(array) for the namespace")

    def _waits(self, *_: Any) -> Any:
        raise TypeError("the value of a device array was asked for in silence: that waits; say .item() or to_host")

    __bool__ = __float__ = __int__ = __complex__ = __index__ = __contains__ = _waits

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the stand-in's 'ndarray' object has no attribute {name!r}")

    # ---- counted ----

    def get(self, stream: Any = None, order: Any = "C", out: None = None, blocking: bool = True) -> Any:
        counts.downloads += 1
        return self._host.copy(order="C")

    def item(self) -> Any:
        counts.downloads += 1
        return self._host.item()

    def tolist(self) -> Any:
        counts.downloads += 1
        return self._host.tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        counts.downloads += 1
        return self._host.tobytes(order)

    def __str__(self) -> str:
        counts.downloads += 1
        return str(self._host)

    def __repr__(self) -> str:
        counts.downloads += 1
        return repr(self._host)

    def __reduce__(self) -> Any:
        counts.downloads += 1
        return _uploaded, (self._host,)

    # ---- attributes ----

    shape = property(lambda self: self._host.shape)
    strides = property(lambda self: self._host.strides)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: self._view(self._host.T))
    mT = property(lambda self: self._view(self._host.mT))
    real = property(lambda self: self._view(self._host.real))
    imag = property(lambda self: self._view(self._host.imag))

    @property
    def base(self) -> Array | None:
        host = self._host.base
        if self._rootless or host is None:
            return None
        owner = _owners.get(id(host))
        return owner if owner is not None and owner._host is host else self._view(host)

    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data))

    @property
    def flags(self) -> Any:
        flags = self._host.flags
        return SimpleNamespace(
            c_contiguous=flags.c_contiguous, f_contiguous=flags.f_contiguous, owndata=flags.owndata
        )

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[Array]:
        if not self._host.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self._host)))

    # ---- elements ----

    def __getitem__(self, index: Any) -> Array:
        entries, masked = self._index(index)
        counts.waits += masked  # the size of the result is the mask's count
        return self._view(np.asarray(self._host[entries]))

    def __setitem__(self, index: Any, value: Any) -> None:
        entries, _ = self._index(index)
        counts.calls += 1
        self.here()[entries] = operand(value)

    def _index(self, index: Any) -> tuple[tuple[Any, ...], bool]:
        """The index for the host, and whether it holds a mask. Integers out of range wrap around, as on a GPU."""
        entries: list[Any] = []
        masked = is_array = False  # whether the result is an array in any case, or could be a scalar of NumPy
        for entry in index if type(index) is tuple else (index,):
            kind = type(entry)
            if kind is Array:
                masked = masked or entry.here().dtype.kind == "b"
                is_array = True
            elif entry is Ellipsis:
                is_array = True
            elif not (entry is None or kind is slice or isinstance(entry, (int, np.integer, np.bool_))):
                raise TypeError(f"an index of {kind} would be copied from the host in silence")
            entries.append(entry)
        if not is_array:
            return (*entries, Ellipsis), masked  # a single element is a 0-d view
        return tuple(self._wrapped(entries)), masked

    def _wrapped(self, entries: list[Any]) -> Iterator[Any]:
        """The entries of an index with NumPy arrays, whose integers wrap around the axis that they index."""
        consumed = [
            0 if e is None or e is Ellipsis else e._host.ndim if type(e) is Array and e._host.dtype.kind == "b" else 1
            for e in entries
        ]
        axis = 0
        for entry, n in zip(entries, consumed, strict=True):
            if entry is Ellipsis:
                axis += self._host.ndim - sum(consumed)
            elif type(entry) is Array:
                host = entry._host
                size = self._host.shape[axis] if axis < self._host.ndim else 0
                yield host if host.dtype.kind == "b" or not size else host.astype(np.intp) % size
                axis += n
                continue
            yield entry
            axis += n

    def scatter_add(self, slices: Any, value: Any) -> None:
        """Add `value` at an index, repeatedly where the index repeats. CuPy has atomic additions for some dtypes."""
        entries, masked = self._index(slices)
        arrays = any(type(entry) is np.ndarray for entry in entries)
        if arrays and not masked and self._host.dtype.name not in SCATTERED:
            raise TypeError(f"cupyx.scatter_add only supports {', '.join(SCATTERED)}, as data type")
        np.add.at(self.here(), entries, operand(value))

    def fill(self, value: Any) -> None:
        self.here().fill(operand(value))

    def copy(self, order: Any = "C") -> Array:
        return Array.of(self._host.copy(order))  # on the current device, from any: as CuPy's

    def __copy__(self) -> Array:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    def __dlpack__(self, **_: Any) -> Array:
        return self  # instead of a capsule: only the stand-in's `from_dlpack` reads it

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK_TYPE, self.device.id


# `_scatter_op_default` in cupy/_core/_routines_indexing.pyx, version 14.
SCATTERED = ("int32", "float16", "float32", "float64", "uint32", "uint64")


def _uploaded(host: Any) -> Array:
    counts.uploads += 1
    return Array.of(host)


def wrap(value: Any) -> Any:
    """A result of NumPy as CuPy returns it: arrays and scalars become arrays of the current device."""
    kind = type(value)
    if kind is np.ndarray:
        return Array.of(value)
    if kind is list or isinstance(value, tuple):  # NumPy's decompositions are named tuples, CuPy's plain ones
        return (list if kind is list else tuple)(wrap(entry) for entry in value)
    return Array.of(np.asarray(value)) if isinstance(value, np.generic) else value


def operand(value: Any) -> Any:
    """An operand for NumPy: an array of the current device, or a number."""
    if type(value) is Array:
        return value.here()
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def argument(value: Any) -> Any:
    """An argument for NumPy: an operand, a sequence of operands, or not data at all (an axis, a dtype, a name)."""
    kind = type(value)
    if kind is Array:
        return value.here()
    if kind is list and value and not any(type(entry) is Array for entry in value) and not _are_integers(value):
        raise TypeError(f"Unsupported type {kind}")
    if kind is tuple or kind is list:
        return kind(argument(entry) for entry in value)
    if hasattr(value, "__array__") and not isinstance(value, (np.generic, type)):
        raise TypeError(f"Unsupported type {kind}")
    return value


def _are_integers(value: list[Any]) -> bool:
    """Whether a list may be axes or a shape."""
    return all(isinstance(entry, (int, np.integer)) for entry in value)


def call(function: Callable[..., Any], args: Any, options: dict[str, Any]) -> Any:
    """NumPy's result for arrays of the device, or `out` if that is passed."""
    counts.calls += 1
    with quiet():
        result = function(*[argument(value) for value in args], **{k: argument(v) for k, v in options.items()})
    if type(result) is np.ndarray:
        for out in (options.get("out"), *args[::-1]):  # return `out` itself, not another array on its memory
            if type(out) is Array and out._host is result:
                return out
    return wrap(result)


VIEWS = {"diagonal", "ravel", "reshape", "squeeze", "swapaxes", "transpose"}  # views, or copies on the current device


def _method(name: str) -> Any:
    """NumPy's method without the keywords that CuPy lacks."""
    host_method = getattr(np.ndarray, name)
    waits = name in ("nonzero", "compress")

    def method(self: Array, *args: Any, **options: Any) -> Any:
        refuse(name, options, method=True)
        counts.waits += waits
        if name in VIEWS and np.may_share_memory(host := host_method(self._host, *args, **options), self._host):
            counts.calls += 1
            return self._view(host)
        return call(host_method, (self, *args), options)

    method.__name__ = name
    return method


def _binary(ufunc: np.ufunc, *, reflected: bool = False) -> Any:
    order = {} if ufunc is np.matmul else {"order": "C"}  # results of CuPy's ufuncs are row-major

    def method(self: Array, other: Any) -> Any:
        if type(other) is Array:
            other = other.here()
        elif isinstance(other, np.ndarray):
            raise TypeError(f"Unsupported type {type(other)}")
        elif not isinstance(other, SCALARS):
            return NotImplemented
        counts.calls += 1
        pair = (other, self.here()) if reflected else (self.here(), other)
        with quiet():
            return wrap(ufunc(*pair, **order))

    return method


def _in_place(ufunc: np.ufunc) -> Any:
    def method(self: Array, other: Any) -> Array:
        counts.calls += 1
        with quiet():
            ufunc(self.here(), operand(other), out=self._host)
        return self

    return method


def _unary(ufunc: np.ufunc) -> Any:
    def method(self: Array) -> Any:
        counts.calls += 1
        with quiet():
            return wrap(ufunc(self.here(), order="C"))

    return method


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
}
for _name, _ufunc in BINARY.items():
    setattr(Array, f"__{_name}__", _binary(_ufunc))
    setattr(Array, f"__r{_name}__", _binary(_ufunc, reflected=True))
    if _name != "matmul":
        setattr(Array, f"__i{_name}__", _in_place(_ufunc))
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
for _name, _method_name in zip(COMPARISONS, ("lt", "le", "gt", "ge", "eq", "ne"), strict=True):
    setattr(Array, f"__{_method_name}__", _binary(getattr(np, _name)))
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
    setattr(Array, f"__{_name}__", _unary(_ufunc))
for _name in {*dir(np.ndarray)} - {*vars(Array)} - METHODS:
    if callable(getattr(np.ndarray, _name)) and not _name.startswith(("_", "dump", "to")):
        setattr(Array, _name, _method(_name))
