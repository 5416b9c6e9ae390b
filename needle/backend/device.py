"""The device class, and the table that finds the device of a raw array."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import reduce
from operator import iadd
from typing import Any, TypeAlias

import numpy as np

from needle import check, tuning
from needle.backend.polling import polling
from needle.backend.recording import CannotRecord, Recording, live
from needle.backend.splitmix import uniform_from

__all__ = [
    "DTypeLike",
    "Device",
    "HostArray",
    "HostScalar",
    "compute_dtype",
    "device_of",
    "lone_types",
    "native",
    "real_dtype",
    "register_device",
    "to_host",
    "without_warnings",
    "xp",
]

HostScalar = np.generic
HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
DTypeLike: TypeAlias = str | type | np.dtype[Any]
Array: TypeAlias = Any  # a raw array of NumPy, CuPy or another registered library
Index: TypeAlias = Any
Chunk: TypeAlias = Any

_NO_CONTEXT = nullcontext()


class Device:
    """A place where arrays live: its name, its array namespace `xp` (NumPy, CuPy), and the transfers to and from it.

    Methods take and return raw arrays. Devices with the same name are equal. A subclass overrides what its library does
    differently from NumPy, and sets the flags below.

    `kernels` maps the name of a kernel to the function that computes it on this device (`kernel_table.overridable`).
    """

    is_async = False  # True if reading an element synchronizes with queued work
    chunk_scale = 1  # size of scratch chunks, as a multiple of the CPU's
    keeps_order = True  # whether results of ufuncs have the memory order of their operands
    strided_gemm = True  # whether matmul accepts overlapping strided operands without copying
    dlpack_type = 1  # DLPack's code for this memory: kDLCPU
    index = 0  # the number of this device among its peers
    peers: dict[int, Device] | None = None  # index (`array.device.id`) -> device, if several share a class
    xp: Any = None
    kernels: MutableMapping[str, Callable[..., Any]] = {}  # noqa: RUF012 (empty; each device sets its own)

    def __init__(self, name: str, xp: Any = None) -> None:
        self.name = name
        self.kernels = {}
        if xp is not None:
            self.xp = xp

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        kind, _, index = self.name.partition(":")
        return f"{kind}({index})"

    def __reduce__(self) -> Any:  # copying and unpickling return the registered device of that name
        return device_named, (self.name,)

    # ---- identity ----------------------------------------------------------------------------------------------------

    def enabled(self) -> bool:
        """Whether arrays can be made here. Never raises."""
        return self.problem() is None

    def problem(self) -> str | None:
        """Why the device cannot be used, and how to fix it; None if nothing is known to be wrong."""
        return None if self.xp is not None else "an array library is needed, but got none"

    def array_type(self) -> type:
        """The class of this device's arrays."""
        array_type: type = self.xp.ndarray
        return array_type

    def recognizes(self, array: Array) -> bool:
        """Whether an array is of this device's library."""
        return self.xp is not None and isinstance(array, self.xp.ndarray)

    def owns(self, array: Array) -> bool:
        """Whether a raw array is on this device."""
        return self.recognizes(array) and (self.peers is None or bool(array.device.id == self.index))

    def peer(self, index: int) -> Device:
        """The device of this kind with that index; this one if it has no peers."""
        return self

    def current(self) -> AbstractContextManager[Any]:
        """A context in which array libraries with a current device, such as CuPy, compute on this one."""
        return _NO_CONTEXT

    def use(self) -> None:
        """Make this the current device of the calling thread, if the array library has a current device."""

    # ---- new arrays --------------------------------------------------------------------------------------------------

    def array(self, data: Any, dtype: DTypeLike | None = None) -> Array:
        """A new row-major array with the values of `data`: an array of any device, a nested list or a number."""
        if type(data) is not self.array_type():
            data = to_host(data)
        return self.xp.array(_in_native_order(data), dtype=None if dtype is None else native(dtype), order="C")

    def real_array(self, op: str, data: Any, dtype: DTypeLike | None = None, copy: bool = True) -> Array:
        """`array`, restricted to real numbers and bools; an object array of real numbers becomes float64.

        With `copy=False`, `asarray`.

        Raises ValueError if nested lists are ragged or hold a number that an integer `dtype` does not hold (arrays are
        cast), TypeError for any other dtype. Both name `op`.
        """
        is_array = hasattr(data, "dtype")
        if type(data) is not self.array_type():
            try:
                data = np.asarray(to_host(data))
            except ValueError as error:
                raise ValueError(f"{op}: elements must form an array, but NumPy says: {error}") from None
        if data.dtype.kind == "O" and all(isinstance(entry, numbers.Real) for entry in data.flat):
            data = data.astype("float64")
        if data.dtype.kind not in "fiub" or data.dtype.isbuiltin == 2:  # float8_e5m2 of ml_dtypes has the kind "f"
            raise TypeError(f"{op}: elements must be real numbers or bools, but got dtype {data.dtype}")
        result = native(data.dtype) if dtype is None else real_dtype(op, dtype)
        if result.kind in "iu" and not is_array and data.size:
            check.fits(op, "elements", data.min().item(), result, data.max().item())
        if not copy:
            return self.xp.asarray(_in_native_order(data), dtype=result)
        return self.xp.array(_in_native_order(data), dtype=result, order="C")

    def asarray(self, data: Any, dtype: DTypeLike | None = None) -> Array:
        """`data` as an array on this device; not copied if it is one already."""
        if type(data) is not self.array_type():
            data = to_host(data)
        return self.xp.asarray(_in_native_order(data), dtype=None if dtype is None else native(dtype))

    def filled(self, shape: Any, value: float, dtype: DTypeLike = "float32") -> Array:
        """An array with every element `value`."""
        with self.current():
            return self.xp.full(shape, value, dtype=native(dtype))

    def uniform(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Array:
        """Uniform draws in [0, 1) from NumPy's legacy global stream: `np.random.rand(*shape)`, copied here."""
        draws = np.asarray(np.random.rand(*shape), dtype=native(dtype))
        if draws.dtype.kind == "f":  # rounding may have reached 1
            np.minimum(draws, np.nextafter(draws.dtype.type(1), draws.dtype.type(0)), out=draws)
        return self.asarray(draws)

    def draws(self, shape: tuple[int, ...]) -> Array:
        """Uniform float64 draws in [0, 1), computed on this device from one `draw_key()`.

        The CPU draws `np.random.random_sample(shape)`.
        """
        key = self.draw_key()
        with self.current():
            return uniform_from(self.xp, key, shape)

    def draw_key(self) -> Any:
        """What random numbers are computed from on this device: one 64-bit draw of NumPy's global stream.

        Nothing is copied, and NumPy's stream is all the state there is. An integer; in a recording an array (1,) of
        uint64, which each replay draws anew. The CPU, which draws numbers themselves, has no keys: None.
        """
        cell = live(self, _draw_key, "uint64")
        return _draw_key()[0] if cell is None else cell

    def normal(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Array:
        """Standard normal draws from NumPy's legacy global stream: `np.random.randn(*shape)`, copied here."""
        return self.asarray(np.asarray(np.random.randn(*shape), dtype=native(dtype)))

    def one_hot_array(self, n: int, indices: Any, dtype: DTypeLike = "float32") -> Array:
        """Integers in [0, n) (*I) -> (*I, n): one at each index, zero elsewhere; never an n x n identity."""
        indices = self.asarray(indices)
        with self.current():
            return (indices[..., None] == self.xp.arange(n)).astype(native(dtype))

    # ---- what libraries do differently -------------------------------------------------------------------------------

    def to_host(self, array: Array) -> HostArray:
        """The values of an array of this device as a NumPy array; on the CPU the array itself."""
        return np.asarray(array)

    def add_at(self, array: Array, index: Index, values: Array) -> None:
        """Add values at an index, in place; repeated indices accumulate, those of float16 in float32."""
        total = array.astype(compute_dtype(array.dtype), copy=False)
        self.xp.add.at(total, index, values)
        if total is not array:
            array[...] = total

    def strided(self, array: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
        """A view of contiguous memory from its first element on, of any shape and strides (bytes); unchecked."""
        return self.xp.lib.stride_tricks.as_strided(array, shape, strides)

    def address(self, array: Array) -> int:
        """The address of the first element."""
        return int(array.ctypes.data)

    def matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """`a @ b`, by the rules of NumPy's matmul, into `out` if it is given; operands of any strides."""
        return self.xp.matmul(a, b, out=out)

    def uploads(self, slots: int) -> Any:
        """What sends batches here while the device computes, `slots` of them at a time (`CudaUploads`); else None."""
        return None

    def seed(self, number: int) -> None:
        """Seed this device's random stream; on the CPU that is NumPy's legacy global stream."""
        self.xp.random.seed(number)

    def sign(self, array: Array) -> Array:
        """-1, 0 or 1 for each element; NaN for NaN."""
        return self.xp.sign(array)

    def record(self, function: Callable[[], object]) -> Recording:
        """Run `function` and note its work on this device, so that it can be done again on the same memory.

        Raises `CannotRecord` for work that needs the host, and on devices that cannot record.
        """
        raise CannotRecord("record", f"work on {self!r}, which cannot record")

    # ---- work in chunks ----------------------------------------------------------------------------------------------

    def parallel_for(
        self, body: Callable[[Chunk], None], chunks: Iterable[Chunk], uses_blas: bool = True, shared: bool = True
    ) -> None:
        """Call `body` for each chunk; the CPU uses several threads, in no fixed order, if they are to be `shared`.

        `uses_blas`: whether `body` calls BLAS, which is limited to one thread meanwhile.
        """
        for chunk in chunks:
            body(chunk)

    def parallel_sum(self, term: Callable[[Chunk], Array], chunks: Sequence[Chunk]) -> Array:
        """The sum of `term(chunk)` over at least one chunk. Terms must be new arrays: sums are made in place.

        The order of the additions depends only on the number of threads.
        """
        count = max(1, min(len(chunks), self.worker_count()))
        partial_sums: list[Any] = [None] * count

        def body(worker: int) -> None:
            first, *others = chunks[worker * len(chunks) // count : (worker + 1) * len(chunks) // count]
            partial_sums[worker] = term(first)
            for chunk in others:
                polling.poll()
                partial_sums[worker] += term(chunk)

        self.parallel_for(body, range(count))
        return reduce(iadd, partial_sums)

    def chunks(self, length: int, row_bytes: int, split: bool | None = None) -> list[slice]:
        """Cut `length` rows of `row_bytes` each into equal slices of at most about `tuning.BLOCK_BYTES`.

        Each thread of `parallel_for` gets as many. `split` asks for at least one per thread; None: only if all rows
        together have `tuning.SPLIT_BYTES`.
        """
        count = -(-length * row_bytes // (tuning.BLOCK_BYTES * self.chunk_scale)) or 1
        if split is None:
            split = length * row_bytes >= tuning.SPLIT_BYTES
        if split or count > 1:  # no thread may be left with one slice more than the others
            count = -(-count // self.worker_count()) * self.worker_count()
        count = min(count, length)
        return [slice(length * i // count, length * (i + 1) // count) for i in range(count)]

    def worker_count(self) -> int:
        """The number of threads that `parallel_for` uses."""
        return 1


def _draw_key() -> list[int]:
    return [int(np.random.randint(0, 2**64, dtype="uint64"))]


def native(dtype: DTypeLike) -> Any:
    """The dtype of that name, in the byte order of this machine."""
    result = np.dtype(dtype)
    return result if result.isnative else result.newbyteorder("=")


def real_dtype(op: str, dtype: DTypeLike) -> Any:
    """`native`, restricted to real numbers and bools. Raises TypeError for anything else, and None."""
    with suppress(TypeError):
        result = native(dtype)
        if dtype is not None and result.kind in "fiub" and result.isbuiltin != 2:
            return result
    raise TypeError(f"{op}: dtype must be one of real numbers or bools, but got {dtype!r}")


def _in_native_order(data: Any) -> Any:
    """A NumPy array of foreign byte order as a copy in this machine's; anything else as it is."""
    return data.astype(native(data.dtype)) if isinstance(data, np.ndarray) and not data.dtype.isnative else data


FLOAT16, FLOAT32 = np.dtype("float16"), np.dtype("float32")  # made once: comparing with a string takes 10 times as long


def compute_dtype(dtype: Any) -> Any:
    """The dtype to compute in: float32 for float16, whose sums lose digits and whose squares overflow from 256 on."""
    return FLOAT32 if dtype == FLOAT16 else dtype


# ---- the device of an array ------------------------------------------------------------------------------------------

devices: dict[str, Device] = {}  # name -> registered device, in order of registration
_device_of_type: dict[type, Device] = {}  # cache: array class -> its device, or any of the peers that share the class
lone_types: set[type] = set()  # array classes known to belong to one device, whose ufuncs keep the memory order


def register_device(device: Device) -> None:
    """Add a device, or replace the one of that name: its arrays become data of tensors."""
    devices[device.name] = device
    _device_of_type.clear()  # an array class seen before may be this device's
    lone_types.clear()


def device_of(array: Array) -> Device:
    """The device of a raw array.

    Raises TypeError for anything that is not an array of a registered device.
    """
    try:
        device = _device_of_type[type(array)]
    except KeyError:
        device = _recognizing(array)
    return device if device.peers is None else device.peer(array.device.id)


def xp(array: Array) -> Any:
    """The namespace (NumPy, CuPy) that computes on a raw array."""
    try:
        return _device_of_type[type(array)].xp
    except KeyError:
        return _recognizing(array).xp


def find_device(data: Any) -> Device | None:
    """`device_of` without an error: None if `data` is not an array of a registered device."""
    device = _device_of_type.get(type(data)) or _search(data)
    return device if device is None or device.peers is None else device.peer(data.device.id)


def to_host(data: Any) -> Any:
    """An array of any device as a NumPy array; anything else (a list, a number) as it is."""
    device = find_device(data)
    return data if device is None else device.to_host(data)


def without_warnings() -> np.errstate:
    """A context in which NumPy does not warn of overflow, division by zero and NaN; CuPy never does."""
    return np.errstate(all="ignore")


def _recognizing(array: Array) -> Device:
    """The device, or any of its peers, that recognizes an array."""
    device = _search(array)
    if device is None:
        raise TypeError(f"device: arrays of a known device are needed, but got {type(array).__name__}") from None
    return device


def _search(data: Any) -> Device | None:
    """Find the device that recognizes an array of a class not cached yet; try the last registered first."""
    for device in reversed(tuple(devices.values())):
        if device.recognizes(data):
            _device_of_type[type(data)] = device
            if device.peers is None and device.keeps_order:
                lone_types.add(type(data))
            return device
    return None


def device_named(name: str) -> Device:
    """The registered device of that name; `kind:index` is created if `kind` has peers.

    Raises ValueError if no such device is registered.
    """
    kind, _, index = name.partition(":")
    device = devices.get(name) or devices.get(kind)
    if device is None or (index and not (device.peers is not None and index.isdecimal())):
        raise ValueError(f"device: the name must be one of {', '.join(devices)}, but got {name}")
    return device.peer(int(index)) if index else device
