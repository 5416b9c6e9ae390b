"""The shim device: needle's CUDA device with NumPy arrays for CuPy's, and raw kernels compiled by g++.

needle's own launchers run on it, so a test of a kernel is a test of its Python, too. Whole ops and training steps run,
with NumPy for all that CuPy would do; its results are row-major, as CuPy's are.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from needle.backend import CudaDevice, Device, register_device
from needle.backend_ndarray import BackendDevice
from needle.kernels.gpu import LAUNCHERS
from needle.kernels.layout import batch_first
from tests.gpu.kernels import Memory, Module, allocate


class Array(np.ndarray[Any, Any]):
    """An array on aligned memory, as all results of functions and methods on it are."""

    __array_priority__ = 100

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.get("out")
        if out is not None:
            options["out"] = tuple(_plain(each) for each in out)
        elif method == "__call__" and ufunc is not np.matmul:
            options["order"] = "C"  # as CuPy's ufuncs
        with np.errstate(all="ignore"):
            result = getattr(ufunc, method)(*map(_plain, inputs), **{k: _plain(v) for k, v in options.items()})
        return _placed(result) if out is None else out[0] if len(out) == 1 else out

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        out = options.get("out")
        with np.errstate(all="ignore"):
            result = function(*map(_plain, arguments), **{k: _plain(v) for k, v in options.items()})
        return _placed(result) if out is None else out

    def __getitem__(self, index: Any) -> Any:
        entries = index if isinstance(index, tuple) else (index,)
        if not all(each is None or each is Ellipsis or isinstance(each, (slice, int, np.integer)) for each in entries):
            return _placed(self.view(np.ndarray)[_plain(index)])
        # A view; a single element is one, too, as on a GPU.
        return super().__getitem__(entries if any(each is Ellipsis for each in entries) else (*entries, Ellipsis))

    def argmax(self, *arguments: Any, **options: Any) -> Any:
        return _placed(self.view(np.ndarray).argmax(*arguments, **options))

    def argmin(self, *arguments: Any, **options: Any) -> Any:
        return _placed(self.view(np.ndarray).argmin(*arguments, **options))


def _plain(value: Any) -> Any:
    if isinstance(value, Array):
        return value.view(np.ndarray)
    if isinstance(value, (tuple, list)):
        return type(value)(map(_plain, value))
    return value


def _placed(value: Any) -> Any:
    """A result of NumPy as an array of the device: a view of what is there already, else a copy in aligned memory."""
    if type(value) is tuple or type(value) is list:
        return type(value)(map(_placed, value))
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return value
    return value.view(Array) if _is_placed(value) else on_device(value)


def _is_placed(value: np.ndarray[Any, Any]) -> bool:
    """Whether an array lies in memory of the device."""
    base: Any = value
    while base is not None:
        if isinstance(base, Memory):
            return True
        base = getattr(base, "base", None)  # `as_strided` has an object of its own between
    return False


def on_device(value: Any, dtype: Any = None, order: str = "K") -> Array:
    """A copy in memory of the device, in the same memory order unless another is asked for."""
    value = np.asarray(value, dtype)
    axes = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis])) if order == "K" else range(value.ndim)
    axes = list(axes)
    memory = allocate([value.shape[axis] for axis in axes], value.dtype)
    result = memory.transpose(np.argsort(axes)) if axes else memory
    result[...] = value
    return result.view(Array)


class Namespace:
    """NumPy's names; what makes arrays makes them on the device."""

    ndarray = Array
    lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=partial(as_strided, subok=True)))
    MAKERS = ("arange", "eye", "full", "identity", "indices", "linspace", "ones", "tri", "zeros")

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = "float64", order: str = "C") -> Any:
        return allocate(shape, dtype).view(Array)

    def array(self, value: Any, dtype: Any = None, copy: bool = True, order: str = "K", ndmin: int = 0) -> Array:
        return on_device(np.array(_plain(value), dtype, ndmin=ndmin), order=order)

    def asarray(self, value: Any, dtype: Any = None, order: str = "K") -> Array:
        is_one = isinstance(value, Array) and (dtype is None or value.dtype == dtype)
        return value if is_one and order == "K" else on_device(_plain(value), dtype, order)

    def ascontiguousarray(self, value: Any, dtype: Any = None) -> Array:
        is_one = value.flags.c_contiguous and (dtype is None or value.dtype == dtype)
        return value if is_one else on_device(value, dtype, "C")

    def asnumpy(self, value: Any) -> Any:
        return np.array(_plain(value), order="C")


def _maker(name: str) -> Any:
    function = getattr(np, name)
    return lambda self, *arguments, **options: on_device(function(*map(_plain, arguments), **options))


for _name in Namespace.MAKERS:
    setattr(Namespace, _name, _maker(_name))


class ShimDevice(BackendDevice, CudaDevice):
    """The device `shim`, whose kernels are those of a GPU."""

    kind = "shim"
    xp = Namespace()
    dlpack_type = 98  # not one of DLPack's
    recognizes = Device.recognizes
    uploads, record = Device.uploads, Device.record  # it has no streams

    def __init__(self, index: int = 0, peer: Any = None) -> None:
        super().__init__(index, peer)
        self.peers = None  # type: ignore[assignment]
        self.kernels = LAUNCHERS
        self._modules: dict[str, Module] = {}

    def raw_module(self, text: str) -> Module:
        module = self._modules.get(text)
        if module is None:
            module = self._modules[text] = Module(text)
        return module

    def problem(self) -> None:
        return None

    def current(self) -> Any:
        return Device.current(self)

    def use(self) -> None: ...

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def seed(self, number: int) -> None: ...


SHIM = ShimDevice()
register_device(SHIM)


def placed(x: np.ndarray[Any, Any], is_batch_last: bool = True) -> Array:
    """x (N, C, *S) on the device, batch-last in memory or row-major."""
    return batch_first(SHIM.array(np.moveaxis(x, 0, -1))) if is_batch_last else SHIM.array(x)
