"""The stand-in's `xp`: CuPy's names with CuPy's signatures, computed by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.standin.array import Array, argument, call, counts, operand, quiet, wrap
from tests.standin.current import DEVICES, DeviceContext
from tests.standin.table import TABLE, VERSION, binder

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


class Ufunc:
    """An elementwise function with CuPy's keywords; its results are row-major, as CuPy's are."""

    def __init__(self, name: str) -> None:
        nin, nout, *keywords = TABLE["ufunc"][name].split()
        self.__name__ = name
        self.nin, self.nargs, self.keywords = int(nin), int(nin) + int(nout), frozenset(keywords)
        self._host = getattr(np, name)
        self._options = {"order": "C"} if isinstance(self._host, np.ufunc) else {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.__name__}: {len(args)}, not {self.nin}")
        if not self.keywords.issuperset(options):
            raise TypeError(f"Wrong arguments {options}")
        counts.calls += 1
        out = options.pop("out", None)
        if out is None and len(args) > self.nin:
            out = args[self.nin]
        with quiet():
            if out is None:
                return wrap(self._host(*map(operand, args), **self._options, **options))
            if not isinstance(out, Array):
                raise TypeError(f"Unsupported type {type(out)}")
            self._host(*map(operand, args[: self.nin]), out=out.here(), **options)
        return out

    def at(self, *args: Any, **options: Any) -> None:
        binder("ufunc_method", "at")(*args, **options)
        if self.__name__ not in TABLE["scatter"]:
            raise NotImplementedError(f"`{self.__name__}.at` is not supported")
        if self.__name__ != "add":
            raise NotImplementedError(f"the stand-in lacks {self.__name__}.at")
        self._scatter(*args, **options)

    @staticmethod
    def _scatter(a: Any, indices: Any, b: Any = None) -> None:
        if not isinstance(a, Array):
            raise TypeError(f"Unsupported type {type(a)}")
        a.scatter_add(indices, b)

    def _reduction(self, method: str, args: Any, options: Any) -> Any:
        binder("ufunc_method", method)(*args, **options)
        return call(getattr(self._host, method), args, options)

    def reduce(self, *args: Any, **options: Any) -> Any:
        return self._reduction("reduce", args, options)

    def accumulate(self, *args: Any, **options: Any) -> Any:
        return self._reduction("accumulate", args, options)

    def outer(self, *args: Any, **options: Any) -> Any:
        return self._reduction("outer", args, options)


class Function:
    """A function with CuPy's parameters, computed by NumPy's function of that name."""

    def __init__(self, name: str, host: Any) -> None:
        self.__name__ = name
        self._bind, self._host = binder("function", name), host
        self._takes_array, self._waits = name not in WITHOUT_ARRAYS, name in WAITING

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._bind(*args, **options)
        counts.waits += self._waits
        if self._takes_array:
            first = args[0] if args else next(iter(options.values()))
            entries = first if isinstance(first, (list, tuple)) else (first,)
            if not all(type(entry) is Array for entry in entries):
                raise TypeError(f"Unsupported type {type(first)}")
        result = call(self._host, args, options)
        return Array.of(np.asarray(result)) if self.__name__ in TRUTHS else result


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: Any = False, ndmin: int = 0, **options: Any
) -> Array:
    """A new array on the current device; data from the host counts as an upload."""
    binder("function", "array")(obj, dtype, copy, order, subok, ndmin, **options)
    if type(obj) is Array:
        if not copy and (dtype is None or dtype == obj.dtype) and order == "K" and obj.ndim >= ndmin:
            return obj
        with quiet():
            return Array.of(np.array(obj.here(), dtype, copy=copy or None, order=order, ndmin=ndmin))
    if isinstance(obj, (list, tuple)) and obj and all(type(entry) is Array for entry in obj):
        return Array.of(np.array(argument(obj), dtype, order=order, ndmin=ndmin))
    counts.uploads += 1
    return Array.of(np.array(obj, dtype, copy=True, order=order, ndmin=ndmin))


def asarray(a: Any, dtype: Any = None, order: Any = None, **options: Any) -> Array:
    """`a` itself if it is an array of the device with that dtype."""
    binder("function", "asarray")(a, dtype, order, **options)
    return array(a, dtype, bool(options.get("copy")), order or "K")


def asnumpy(a: Any, *args: Any, **options: Any) -> Any:
    """The values on the host; counts as a download."""
    binder("function", "asnumpy")(a, *args, **options)
    return a.get() if type(a) is Array else np.asarray(a)


class Generator:
    """A random generator that draws on the device."""

    def __init__(self, seed: Any = None) -> None:
        self._host = np.random.default_rng(seed)

    def __getattr__(self, name: str) -> Any:
        bind, draw = binder("generator", name), getattr(self._host, name)

        def drawn(*args: Any, dtype: Any = None, **options: Any) -> Array:
            bind(*args, **({} if dtype is None else {"dtype": dtype}), **options)
            values = np.asarray(draw(*args, **options))
            return Array.of(values if dtype is None else values.astype(dtype))

        return drawn


STREAMS = [np.random.RandomState(0) for _ in DEVICES]  # one per device, apart from the host's


def seed(*args: Any, **options: Any) -> None:
    """Seed the stream of the current device."""
    binder("function", "random.seed")(*args, **options)
    STREAMS[DeviceContext.current().id].seed(*args, **options)


def random_sample(*args: Any, **options: Any) -> Array:
    """Uniform draws from the stream of the current device."""
    binder("function", "random.random_sample")(*args, **options)
    counts.calls += 1
    return Array.of(np.asarray(STREAMS[DeviceContext.current().id].random_sample(*args, **options)))


def as_strided(*args: Any, **options: Any) -> Array:
    """A view without a base: CuPy builds it from the pointer alone."""
    binder("function", "lib.stride_tricks.as_strided")(*args, **options)
    counts.calls += 1
    view = np.lib.stride_tricks.as_strided(args[0]._host, *args[1:], **options)
    return Array.of(view, args[0].device).without_base()


def where(*args: Any, **options: Any) -> Any:
    """`where` of arrays of the device and numbers; with one argument it waits, as `nonzero` does."""
    binder("function", "where")(*args, **options)
    if len(args) == 1:
        counts.waits += 1
    return call(np.where, [value if type(value) is Array else operand(value) for value in args], options)


def from_dlpack(*args: Any, **options: Any) -> Array:
    """An array on the memory that an exporter's capsule holds."""
    binder("function", "from_dlpack")(*args, **options)
    capsule = args[0].__dlpack__()
    return Array.of(capsule.here().view())


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
    "random.default_rng": Generator,
    "random.Generator": Generator,
    "random.random_sample": random_sample,
    "random.seed": seed,
}


class Namespace:
    """CuPy's names below `prefix`, created when first used."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.__version__ = VERSION.removeprefix("cupy ")

    def __getattr__(self, name: str) -> Any:
        member = self._made(self._prefix + name)
        setattr(self, name, member)
        return member

    def _made(self, name: str) -> Any:
        if name in OWN:
            return OWN[name]
        if name in TABLE["scalar"]:
            return getattr(np, name)
        if name in TABLE["ufunc"]:
            return Ufunc(name)
        if name in TABLE["function"]:
            host: Any = np
            for part in name.split("."):
                host = getattr(host, part, None)
            if host is None or name.startswith("random."):
                raise AttributeError(f"the stand-in lacks cupy.{name}")
            return Function(name, host)
        if any(known.startswith(f"{name}.") for known in (*TABLE["function"], *OWN)):
            return Namespace(f"{name}.")
        raise AttributeError(f"module 'cupy' has no attribute {name!r}")


xp = Namespace()
