"""Devices: where arrays live, and the namespace (`xp`) that computes on them."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from needle import check
from needle.backend import parallel
from needle.backend.cuda_probe import EITHER, OLDEST, cuda_problem

if TYPE_CHECKING:
    from needle.backend_ndarray.buffer import Buffer
    from needle.backend_ndarray.ndarray import NDArray

HostScalar = np.generic
HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]
DTypeLike: TypeAlias = str | type | np.dtype[Any]
BLOCK_BYTES = 1 << 21  # of arrays that one thread works on at a time: about what stays in a core's share of the cache


class BackendDevice:
    """A place where arrays live: its name, its namespace `xp` (NumPy or CuPy), the transfers from and to the host.

    Two devices are equal if they have one name. `creation.py` gives it the functions that make new arrays.
    """

    if TYPE_CHECKING:

        def empty(self, shape: Any, dtype: Any = "float32") -> NDArray: ...
        def full(self, shape: Any, fill_value: Any, dtype: Any = "float32") -> NDArray: ...
        def zeros(self, *shape: int, dtype: Any = "float32") -> NDArray: ...
        def ones(self, *shape: int, dtype: Any = "float32") -> NDArray: ...
        def rand(self, *shape: int, dtype: Any = "float32") -> NDArray: ...
        def randn(self, *shape: int, dtype: Any = "float32") -> NDArray: ...
        def one_hot(self, n: int, i: Any, dtype: Any = "float32") -> NDArray: ...

    is_async = False  # whether asking for an element waits for work that was handed in before
    chunk_scale = 1  # how many times larger than on the CPU a block of scratch memory should be
    strided_gemm = True  # whether a product of matrices reads them where they lie, even if they overlap
    dlpack_type = 1  # kDLCPU: how DLPack calls such memory

    def __init__(self, name: str, xp: Any) -> None:
        self.name = name
        self.xp = xp
        self.kernels: dict[str, Callable[..., Any]] = {}  # name -> what is called instead of needle's kernel

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BackendDevice) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"{self.name}()"

    def __reduce__(self) -> Any:  # copies and what was pickled are the device of that name
        return _device_named, (self.name,)

    def enabled(self) -> bool:
        """Whether arrays can be made here; asking never raises."""
        return self.xp is not None

    def array_type(self) -> type:
        """The class of this device's arrays."""
        array_type: type = self.xp.ndarray
        return array_type

    def array(self, data: Any, dtype: Any = None) -> Any:
        """A new row-major array here with the values of `data`: an array of any device, a nested list or a number."""
        if type(data) is not self.array_type():
            data = to_host(data)
        return self.xp.array(data, dtype=dtype, order="C")

    def real_array(self, op: str, data: Any, dtype: Any = None) -> Any:
        """`array` for real numbers and bools; an object array of numbers becomes float64, and the rest is refused."""
        if type(data) is not self.array_type():
            try:
                data = np.asarray(to_host(data))
            except ValueError as error:
                raise ValueError(f"{op}: elements must form an array, but NumPy says: {error}") from None
        if data.dtype.kind == "O" and all(isinstance(entry, numbers.Real) for entry in data.flat):
            data = data.astype("float64")
        found = data.dtype if data.dtype.kind not in "fiub" or dtype is None else np.dtype(dtype)
        if found.kind not in "fiub":
            raise TypeError(f"{op}: elements must be real numbers or bools, but got dtype {found}")
        return self.xp.array(data, dtype=dtype, order="C")

    def asarray(self, data: Any, dtype: Any = None) -> Any:
        """`data` as an array here, without a copy where it is one already."""
        if type(data) is not self.array_type():
            data = to_host(data)
        return self.xp.asarray(data, dtype=dtype)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """The values of an array of this device as a NumPy array (for the CPU: that very array)."""
        return np.asarray(array)

    def add_at(self, array: Any, index: Any, values: Any) -> None:
        """Add values at an index of an array of this device, in place; at a place that comes twice both are added."""
        self.xp.add.at(array, index, values)

    def address(self, array: Any) -> int:
        """Where in memory the first element of an array of this device lies."""
        return int(array.ctypes.data)

    def seed(self, number: int) -> None:
        """Start this device's stream of random numbers, on the CPU NumPy's legacy global one."""
        self.xp.random.seed(number)

    def sign(self, array: Any) -> Any:
        """-1, 0 or 1 for each element of an array of this device, and NaN for NaN."""
        return self.xp.sign(array)

    def parallel_for(self, work: Callable[[Any], None], pieces: Iterable[Any], uses_blas: bool = True) -> None:
        """Call `work` for each piece of work on arrays of this device; on the CPU threads share the pieces.

        `uses_blas` tells whether work multiplies matrices, during which BLAS is to keep to its thread.
        """
        for piece in pieces:
            work(piece)

    def parallel_sum(self, term: Callable[[Any], Any], pieces: Sequence[Any]) -> Any:
        """The sum of the new arrays `term(piece)`; in the same order every time, for one number of threads."""
        count = max(1, min(len(pieces), self.worker_count()))
        totals: list[Any] = [None] * count

        def work(part: int) -> None:
            first, *rest = pieces[part * len(pieces) // count : (part + 1) * len(pieces) // count]
            totals[part] = term(first)
            for piece in rest:
                totals[part] += term(piece)

        self.parallel_for(work, range(count))
        for total in totals[1:]:
            totals[0] += total
        return totals[0]

    def chunks(self, length: int, row: int, split: bool | None = None) -> list[slice]:
        """`length` rows of `row` bytes each cut into stretches of about `BLOCK_BYTES`: pieces for `share`.

        With `split` (None: where all rows together take 4 MiB) there are enough of them for all threads.
        """
        size = max(1, BLOCK_BYTES * self.chunk_scale // max(1, row))
        if split or (split is None and length * row >= 1 << 22):
            size = max(1, min(size, -(-length // self.worker_count())))
        return [slice(start, min(start + size, length)) for start in range(0, length, size)]

    def worker_count(self) -> int:
        """How many threads share work."""
        return 1


Device = BackendDevice


class CpuDevice(BackendDevice):
    """The CPU, through NumPy; its product of tiled matrices is what the course asks of this device alone."""

    __tile_size__ = 8

    def parallel_for(self, work: Callable[[Any], None], pieces: Iterable[Any], uses_blas: bool = True) -> None:
        parallel.parallel_for(work, pieces, uses_blas)

    def worker_count(self) -> int:
        return parallel.worker_count()

    def matmul_tiled(self, a: Buffer, b: Buffer, out: Buffer, m: int, n: int, p: int) -> None:
        """A product of matrices in tiles of t x t, t = `__tile_size__`: writes (m, n) @ (n, p) into `out`.

        Each buffer is the memory of a row-major float32 array: a (m/t, n/t, t, t), b (n/t, p/t, t, t), out
        (m/t, p/t, t, t). Raises ValueError where t does not divide a size, or a buffer is not of its matrix's size.
        """
        t = self.__tile_size__
        for name, buffer, rows, columns in (("a", a, m, n), ("b", b, n, p), ("out", out, m, p)):
            if rows % t or columns % t:
                raise ValueError(f"matmul_tiled: sizes must be multiples of {t}, but {name} has ({rows}, {columns})")
            check.same("matmul_tiled", "size", rows * columns, buffer.size, ("the matrix", f"the buffer of {name}"))
        left, right = (
            buffer.flat.reshape(rows // t, columns // t, t, t).swapaxes(1, 2).reshape(rows, columns)
            for buffer, rows, columns in ((a, m, n), (b, n, p))
        )
        out.flat.reshape(m // t, p // t, t, t)[...] = (left @ right).reshape(m // t, t, p // t, t).swapaxes(1, 2)


class CudaDevice(BackendDevice):
    """The GPU, through CuPy: imported when the device is first used, never before."""

    is_async = True
    chunk_scale = 256  # a launch costs more than what a cache saves
    strided_gemm = False
    dlpack_type = 2  # kDLCUDA

    def __init__(self) -> None:
        self.name = "cuda"
        self.kernels = {}
        self._seed: int | None = None

    @cached_property
    def xp(self) -> Any:
        problem = cuda_problem(patience=None)
        if problem:
            raise RuntimeError(f"cuda: {problem}")
        try:
            import cupy

            major = int(cupy.__version__.partition(".")[0])
        except Exception as error:
            raise RuntimeError(
                f"cuda: CuPy must be whole; install it again by {EITHER}, but got {type(error).__name__}: {error}"
            ) from error
        if major < OLDEST:
            raise RuntimeError(
                f"cuda: CuPy must be {OLDEST} or newer; install it by {EITHER}, but got {cupy.__version__}"
            )
        if self._seed is not None:
            cupy.random.seed(self._seed)
        return cupy

    def enabled(self) -> bool:
        return self.problem() is None

    def problem(self) -> str | None:
        """Why the GPU cannot be used, with what mends it; None where it can, or where the driver is still at work."""
        return cuda_problem()

    def seed(self, number: int) -> None:
        self._seed = number  # CuPy is told when it is first used
        if "xp" in vars(self):
            self.xp.random.seed(number)

    def sign(self, array: Any) -> Any:
        return self.xp.where(self.xp.isnan(array), array, self.xp.sign(array))  # CuPy's own is 0 for NaN

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        host: np.ndarray[Any, Any] = self.xp.asnumpy(array)
        return host

    def add_at(self, array: Any, index: Any, values: Any) -> None:
        if array.dtype == "int64":  # CuPy adds in unsigned words, which are the same bits
            array, values = array.view("uint64"), values.astype("int64").view("uint64")
        if array.dtype.kind == "f" or array.dtype.itemsize > 2:
            self.xp.add.at(array, index, values)
        else:  # CuPy has no additions in shorter integers
            total = self.xp.zeros(array.shape, "int32")
            self.xp.add.at(total, index, values.astype("int32"))
            array[...] = (array + total).astype(array.dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)


_CPU = CpuDevice("cpu", np)
_CUDA = CudaDevice()
_known: list[BackendDevice] = [_CPU, _CUDA]
_default: BackendDevice = _CPU


class _DeviceOfType(dict[type, BackendDevice]):
    """Array class -> its device; a class met for the first time is looked up once."""

    def __missing__(self, array_type: type) -> BackendDevice:
        if issubclass(array_type, (np.ndarray, np.generic)):
            device: BackendDevice = _CPU
        elif array_type.__module__.partition(".")[0] == "cupy":
            device = _CUDA
        else:
            raise TypeError(f"device: arrays of a known device are needed, but got {array_type.__name__}")
        self[array_type] = device
        return device


_devices = _DeviceOfType()


def device_of(array: Any) -> BackendDevice:
    """The device on which a raw array lives."""
    return _devices[type(array)]


def xp(array: Any) -> Any:
    """The namespace (NumPy or CuPy) that computes on a raw array."""
    return _devices[type(array)].xp


def serialize(array: Any) -> Any:
    """A raw array, or a tuple of them, as pickles hold it: the name of its device, and a NumPy array."""
    if isinstance(array, tuple):
        return tuple(map(serialize, array))
    return device_of(array).name, to_host(array)


def deserialize(form: Any) -> Any:
    """The raw array of what `serialize` gave: on its device, or on the CPU where that one is not there."""
    if not form or not isinstance(form[0], str):
        return tuple(map(deserialize, form))
    name, host = form
    there = [device for device in _known if device.name == name and device.enabled()]
    return (there[0] if there else _CPU).asarray(host)


def to_host(data: Any) -> Any:
    """The values of an array of any device as a NumPy array; what is no array (a list, a number) as it is."""
    try:
        device = _devices[type(data)]
    except TypeError:
        return data
    return device.to_host(data)


def register_device(device: BackendDevice) -> None:
    """Make a device of another array library known: its arrays become data of tensors."""
    _devices[device.array_type()] = device
    if device not in _known:
        _known.append(device)


def cpu() -> BackendDevice:
    """The CPU, computed on by NumPy."""
    return _CPU


def cpu_numpy() -> BackendDevice:
    """The CPU, under the name that the course gives to computing on it by NumPy."""
    return _CPU


def cuda() -> CudaDevice:
    """The GPU, computed on by CuPy; `.enabled()` tells whether there is one, using it without says what is missing."""
    return _CUDA


def all_devices() -> list[BackendDevice]:
    """Every device that needle knows, enabled or not."""
    return list(_known)


def device_for(data: Any) -> BackendDevice:
    """The device on which a tensor of `data` is made when none is named: where an array is, else the default one.

    NumPy's arrays are data of the host wherever the tensors live, as lists and numbers are.
    """
    try:
        device = _devices[type(data)]
    except TypeError:
        return _default
    return _default if device is _CPU else device


def _device_named(name: str) -> BackendDevice:
    for device in _known:
        if device.name == name:
            return device
    raise ValueError(f"device: the name must be one of {', '.join(device.name for device in _known)}, but got {name}")


def seed(number: int) -> None:
    """Start the random numbers of every device, NumPy's legacy global stream among them, at `number`.

    Initialisers, `nn.Dropout` and shuffling draw from NumPy's stream on every device, `functional.dropout` from that of
    the device of its input.
    """
    number = check.integer("seed", "number", number, least=0)
    if number >= 2**32:
        raise ValueError(f"seed: number must be below 2 ** 32, but got {number}")
    for device in _known:
        device.seed(number)


def default_device() -> BackendDevice:
    """The device of tensors for which none is named."""
    return _default


def set_default_device(device: BackendDevice) -> None:
    """Make `device` the one on which tensors are made when none is named."""
    global _default
    if not isinstance(device, BackendDevice):
        raise TypeError(f"set_default_device: device must be a BackendDevice, but got {type(device).__name__}")
    device.array_type()  # says what is missing where the device cannot be used
    _default = device
