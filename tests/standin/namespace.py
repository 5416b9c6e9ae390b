"""The stand-in's `xp`: NumPy's names without those that CuPy lacks, computed by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.standin.array import Array, argument, call, counts, operand, quiet, wrap
from tests.standin.current import DEVICES, DeviceContext
from tests.standin.missing import FUNCTIONS, UFUNC_KEYWORDS, refuse

# Functions whose first argument is not an array.
WITHOUT_ARRAYS = {
    "arange", "base_repr", "binary_repr", "broadcast_shapes", "can_cast", "diag_indices", "einsum", "empty", "eye",
    "full", "identity", "indices", "isscalar", "issubdtype", "iterable", "linspace", "logspace", "min_scalar_type",
    "ones", "promote_types", "result_type", "tri", "tril_indices", "triu_indices", "where", "zeros",
}  # fmt: skip
# Functions that wait: only the device knows the size of their result, or its value on the host.
WAITING = {
    "argwhere", "bincount", "compress", "extract", "flatnonzero", "histogram", "in1d", "intersect1d", "isin", "nonzero",
    "piecewise", "setdiff1d", "setxor1d", "trim_zeros", "union1d", "unique", "unique_all", "unique_counts",
    "unique_inverse", "unique_values",
}  # fmt: skip
TRUTHS = {"allclose", "array_equal", "array_equiv"}  # CuPy returns these truth values as 0-d arrays

MODULES = {"cuda", "fft", "lib", "lib.stride_tricks", "linalg", "random"}


class Ufunc:
    """An elementwise function with CuPy's keywords; its results are row-major, as CuPy's are."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._host = getattr(np, name)
        self.nin, self.nargs = self._host.nin, self._host.nargs

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.__name__}: {len(args)}, not {self.nin}")
        if not UFUNC_KEYWORDS.issuperset(options):
            raise TypeError(f"Wrong arguments {options}")
        counts.calls += 1
        out = options.pop("out", None)
        if out is None and len(args) > self.nin:
            out = args[self.nin]
        with quiet():
            if out is None:
                return wrap(self._host(*map(operand, args), order="C", **options))
            if not isinstance(out, Array):
                raise TypeError(f"Unsupported type {type(out)}")
            self._host(*map(operand, args[: self.nin]), out=out.here(), **options)
        return out

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.__name__ != "add":
            raise NotImplementedError(f"the stand-in lacks {self.__name__}.at, and CuPy has few of its kind")
        if not isinstance(a, Array):
            raise TypeError(f"Unsupported type {type(a)}")
        a.scatter_add(indices, b)

    def _reduction(self, method: str, args: Any, options: Any) -> Any:
        refuse("sum", options)  # CuPy's reductions lack the same keywords
        return call(getattr(self._host, method), args, options)

    def reduce(self, *args: Any, **options: Any) -> Any:
        return self._reduction("reduce", args, options)

    def accumulate(self, *args: Any, **options: Any) -> Any:
        return self._reduction("accumulate", args, options)

    def outer(self, *args: Any, **options: Any) -> Any:
        return self._reduction("outer", args, options)


class Function:
    """NumPy's function without the keywords that CuPy lacks."""

    def __init__(self, name: str, host: Any) -> None:
        self.__name__ = name
        self._host = host
        self._takes_array, self._waits = name not in WITHOUT_ARRAYS, name in WAITING

    def __call__(self, *args: Any, **options: Any) -> Any:
        refuse(self.__name__, options)
        counts.waits += self._waits
        if self._takes_array:
            first = args[0] if args else next(iter(options.values()))
            entries = first if isinstance(first, (list, tuple)) else (first,)
            if not all(type(entry) is Array for entry in entries):
                raise TypeError(f"Unsupported type {type(first)}")
        result = call(self._host, args, options)
        return Array.of(np.asarray(result)) if self.__name__ in TRUTHS else result


def array(
    obj: Any,
    dtype: Any = None,
    copy: Any = True,
    order: Any = "K",
    subok: Any = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Array:
    """A new array on the current device; data from the host counts as an upload."""
    if type(obj) is Array:
        if not copy and (dtype is None or dtype == obj.dtype) and order == "K" and obj.ndim >= ndmin:
            return obj
        with quiet():
            return Array.of(np.array(obj.here(), dtype, copy=copy or None, order=order, ndmin=ndmin))
    if isinstance(obj, (list, tuple)) and obj and all(type(entry) is Array for entry in obj):
        return Array.of(np.array(argument(obj), dtype, order=order, ndmin=ndmin))
    counts.uploads += 1
    return Array.of(np.array(obj, dtype, copy=True, order=order, ndmin=ndmin))


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Array:
    """`a` itself if it is an array of the device with that dtype."""
    return array(a, dtype, bool(copy), order or "K")


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: None = None, *, blocking: bool = True) -> Any:
    """The values on the host; counts as a download."""
    return a.get() if type(a) is Array else np.asarray(a)


STREAMS = [np.random.RandomState(0) for _ in DEVICES]  # one per device, apart from the host's


def seed(seed: Any = None) -> None:
    """Seed the stream of the current device."""
    STREAMS[DeviceContext.current().id].seed(seed)


def random_sample(size: Any = None, dtype: Any = float) -> Array:
    """Uniform draws from the stream of the current device."""
    counts.calls += 1
    return Array.of(np.asarray(STREAMS[DeviceContext.current().id].random_sample(size), dtype))


def as_strided(x: Array, shape: Any = None, strides: Any = None) -> Array:
    """A view without a base: CuPy builds it from the pointer alone."""
    counts.calls += 1
    return Array.of(np.lib.stride_tricks.as_strided(x._host, shape, strides), x.device).without_base()


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """`where` of arrays of the device and numbers; with one argument it waits, as `nonzero` does."""
    counts.waits += x is None
    parts = (condition,) if x is None else (condition, x, y)
    return call(np.where, [part if type(part) is Array else operand(part) for part in parts], {})


def from_dlpack(array: Any) -> Array:
    """An array on the memory that an exporter's capsule holds."""
    return Array.of(array.__dlpack__().here().view())


OWN = {
    "ndarray": Array,
    "array": array,
    "asarray": asarray,
    "asanyarray": asarray,
    "asnumpy": asnumpy,
    "cuda.Device": DeviceContext,
    "from_dlpack": from_dlpack,
    "lib.stride_tricks.as_strided": as_strided,
    "where": where,
    "random.random_sample": random_sample,
    "random.seed": seed,
}


class Namespace:
    """CuPy's names below `prefix`, created when first used."""

    def __init__(self, prefix: str = "", host: Any = np) -> None:
        self._prefix, self._numpy = prefix, host

    def __getattr__(self, name: str) -> Any:
        member = self._made(self._prefix + name, getattr(self._numpy, name, None))
        setattr(self, name, member)
        return member

    @staticmethod
    def _made(name: str, host: Any) -> Any:
        if name in OWN:
            return OWN[name]
        if name in MODULES:
            return Namespace(f"{name}.", host)
        known = callable(host) or isinstance(host, float)
        if not known or name in FUNCTIONS or name.startswith("random."):
            raise AttributeError(f"the stand-in's module 'cupy' has no attribute {name!r}")
        if isinstance(host, (type, float)):
            return host
        if isinstance(host, np.ufunc) and host.signature is None:
            return Ufunc(name)
        return Function(name, host)


xp = Namespace()
