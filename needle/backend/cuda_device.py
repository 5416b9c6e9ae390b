"""NVIDIA GPUs through CuPy, which is imported when a GPU is first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cached_property, partial
from typing import Any

from needle import check, tuning
from needle.backend import cublas, cuda_graph
from needle.backend.cuda_probe import EITHER, OLDEST, cuda_problem
from needle.backend.cuda_uploads import CudaUploads
from needle.backend.device import Device, DTypeLike, HostArray, register_device
from needle.backend.kernel_table import kernel_providers
from needle.backend.recording import Recording, drawn, refuse

__all__ = ["CudaDevice"]


class CudaDevice(Device):
    """One GPU. Its peers are the other GPUs: they share CuPy's array class, and `array.device.id` tells them apart.

    `CudaDevice()` is GPU 0, named `cuda`; `peer(i)` is GPU i, named `cuda:i`, created on first use. The numbers
    are CUDA's, after `CUDA_VISIBLE_DEVICES`.

    Array creation and transfers make their device current while they run. Operations on arrays do not: CuPy runs a
    kernel on the thread's current device and allocates the result there, wherever the operands lie. So make a GPU other
    than 0 current before computing on it: once per thread by `ndl.set_default_device(device)` or `device.use()`, or for
    a block by `with device.current():`. Needle does not switch around every operation, because a process that drives
    one GPU, the common case, would pay for it and gain nothing.
    """

    kind = "cuda"
    is_async = True
    chunk_scale = tuning.CUDA_CHUNK_SCALE
    keeps_order = False
    strided_gemm = False
    dlpack_type = 2  # kDLCUDA
    peers: dict[int, Device]

    def __init__(self, index: int = 0, peer: CudaDevice | None = None) -> None:
        super().__init__(f"{self.kind}:{index}" if index else self.kind)
        self.index = index
        self.peers = {} if peer is None else peer.peers
        self.peers[index] = self
        self._seed: int | None = None
        self._modules: dict[str, Any] = {}
        if peer is not None:
            self.kernels, self._seed, self._modules = peer.kernels, peer._seed, peer._modules

    @cached_property
    def xp(self) -> Any:
        """CuPy. Raises RuntimeError if it cannot be used, saying what to install or repair."""
        problem = cuda_problem(self.index, patience=None)
        if problem:
            raise RuntimeError(f"cuda: {problem}")
        try:
            import cupy

            major = int(cupy.__version__.partition(".")[0])
        except Exception as error:
            raise RuntimeError(
                f"cuda: CuPy must be intact; reinstall it by {EITHER}, but got {type(error).__name__}: {error}"
            ) from error
        if major < OLDEST:
            raise RuntimeError(
                f"cuda: CuPy must be {OLDEST} or newer; install it by {EITHER}, but got {cupy.__version__}"
            )
        if self._seed is not None:
            with cupy.cuda.Device(self.index):
                cupy.random.seed(self._seed)
        with suppress(ImportError):
            from cupyx.scipy.special import erf

            self.kernels.setdefault("erf", erf)
        for provide in kernel_providers:
            for name, kernel in provide().items():
                self.kernels.setdefault(name, kernel)
        return cupy

    def raw_module(self, text: str) -> Any:
        """The compiled kernels of a CUDA source, `cupy.RawModule`; compiled once for all GPUs of one architecture."""
        module = self._modules.get(text)
        if module is None:
            module = self._modules[text] = self.xp.RawModule(code=text, options=("--std=c++17",))
        return module

    def problem(self) -> str | None:
        """Why the GPU cannot be used, and how to fix it; None if it can, or if the driver has not answered yet."""
        return cuda_problem(self.index)

    def recognizes(self, array: Any) -> bool:
        return isinstance(array, getattr(sys.modules.get("cupy"), "ndarray", ()))  # without importing CuPy

    def peer(self, index: int) -> Device:
        """GPU `index`, whether or not the machine has it: `problem()` tells."""
        device = self.peers.get(index)
        if device is None:
            device = type(self)(check.integer(self.kind, "index", index, least=0), self)
            register_device(device)
        return device

    def current(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.xp.cuda.Device(self.index)
        return context

    def use(self) -> None:
        self.xp.cuda.Device(self.index).use()

    def array(self, data: Any, dtype: DTypeLike | None = None) -> Any:
        with self.current():
            return super().array(self._fetched("array", data), dtype)

    def real_array(self, op: str, data: Any, dtype: DTypeLike | None = None, copy: bool = True) -> Any:
        with self.current():
            return super().real_array(op, self._fetched(op, data), dtype, copy)

    def asarray(self, data: Any, dtype: DTypeLike | None = None) -> Any:
        with self.current():
            return super().asarray(self._fetched("asarray", data), dtype)

    def _fetched(self, op: str, data: Any) -> Any:
        """`data`; an array of a peer is copied to this device, which must be current."""
        if not self.recognizes(data):
            refuse(op, "data of the host, which would be sent once")
            return data
        return data if self.owns(data) else data.copy()

    def uniform(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Any:
        return drawn(partial(super().uniform, shape, dtype))

    def normal(self, shape: Sequence[int], dtype: DTypeLike = "float32") -> Any:
        return drawn(partial(super().normal, shape, dtype))

    def to_host(self, array: Any) -> HostArray:
        refuse("to_host", "values read on the host")
        with self.current():
            host: HostArray = self.xp.asnumpy(array)
        return host

    def seed(self, number: int) -> None:
        self._seed = number  # applied when CuPy is first used, if it is not loaded yet
        if "xp" in vars(self):
            with self.current():
                self.xp.random.seed(number)

    def sign(self, array: Any) -> Any:
        return self.xp.where(self.xp.isnan(array), array, self.xp.sign(array))  # cupy.sign(nan) is 0

    def add_at(self, array: Any, index: Any, values: Any) -> None:
        if array.dtype == "int64":  # CuPy has atomic additions of unsigned words only: the bits are the same
            array, values = array.view("uint64"), values.astype("int64").view("uint64")
        if array.dtype.kind == "f" or array.dtype.itemsize > 2:
            super().add_at(array, index, values)
        else:  # CuPy has no atomic additions of shorter integers
            total = self.xp.zeros(array.shape, "int32")
            self.xp.add.at(total, index, values.astype("int32"))
            array[...] = (array + total).astype(array.dtype)

    def address(self, array: Any) -> int:
        return int(array.data.ptr)

    @cached_property
    def blas(self) -> cublas.Blas | None:
        """cuBLAS, if CuPy has it."""
        return cublas.load(self.xp)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        return cublas.gemm(self, a, b, out)

    def uploads(self, slots: int) -> CudaUploads:
        return CudaUploads(self, slots)

    def record(self, function: Callable[[], object]) -> Recording:
        return cuda_graph.record(self, function)
