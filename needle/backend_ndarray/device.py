"""The course's devices: raw devices that also create NDArrays, and the CPU and the GPU among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from needle import backend, check
from needle.backend import Device, DTypeLike, register_device
from needle.backend_ndarray.buffer import Buffer
from needle.backend_ndarray.ndarray import NDArray

__all__ = ["BackendDevice", "all_devices", "cpu", "cpu_numpy", "cuda", "default_device", "register_device"]


class BackendDevice(Device):
    """A device that creates NDArrays, as the course names it: `BackendDevice(name, namespace)`.

    Random numbers come from NumPy's legacy global stream (`np.random.seed`), drawn on the host for every device.
    """

    def empty(self, shape: Any, dtype: DTypeLike = "float32") -> NDArray:
        """An uninitialized array."""
        with self.current():
            return NDArray.wrap(self.xp.empty(shape, dtype=backend.native(dtype)))

    def full(self, shape: Any, fill_value: float, dtype: DTypeLike = "float32") -> NDArray:
        """An array with every element `fill_value`. Raises `ValueError` if `dtype` does not hold it."""
        check.filling("full", "fill_value", fill_value, backend.native(dtype))
        return NDArray.wrap(self.filled(shape, fill_value, dtype))

    def zeros(self, *shape: int, dtype: DTypeLike = "float32") -> NDArray:
        """An array of zeros."""
        with self.current():
            return NDArray.wrap(self.xp.zeros(shape, dtype=backend.native(dtype)))

    def ones(self, *shape: int, dtype: DTypeLike = "float32") -> NDArray:
        """An array of ones."""
        with self.current():
            return NDArray.wrap(self.xp.ones(shape, dtype=backend.native(dtype)))

    def rand(self, *shape: int, dtype: DTypeLike = "float32") -> NDArray:
        """Uniform draws in [0, 1): one `np.random.rand(*shape)`. Raises `TypeError` unless `dtype` is floating."""
        return NDArray.wrap(self.uniform(shape, check.float_dtype("rand", backend.native(dtype))))

    def randn(self, *shape: int, dtype: DTypeLike = "float32") -> NDArray:
        """Standard normal draws: one `np.random.randn(*shape)`. Errors as in `rand`."""
        return NDArray.wrap(self.normal(shape, check.float_dtype("randn", backend.native(dtype))))

    def one_hot(self, n: int, i: Any, dtype: DTypeLike = "float32") -> NDArray:
        """Integers in [0, n) (\\*I) of any dtype -> (\\*I, n): one at each index, zero elsewhere.

        Raises `TypeError` for bools, `ValueError` for other numbers (checked on the CPU only).
        """
        n = check.integer("one_hot", "n", n, least=1)
        array = self.asarray(i.array if isinstance(i, NDArray) else i)
        with self.current():
            return NDArray.wrap(self.one_hot_array(n, backend.index_array("one_hot", "i", array, n), dtype))


class _Cpu(BackendDevice, backend.CpuDevice):
    """The CPU, with the tiled matrix product that the course asks of this device alone."""

    __tile_size__ = 8

    def matmul_tiled(self, a: Buffer, b: Buffer, out: Buffer, m: int, n: int, p: int) -> None:
        """Matrix product in t x t tiles, t = `__tile_size__`: writes (m, n) @ (n, p) into `out`.

        Each buffer is the memory of a row-major float32 array: a (m/t, n/t, t, t), b (n/t, p/t, t, t), out
        (m/t, p/t, t, t). Raises ValueError if t does not divide a size, if a buffer does not have its matrix's size, or
        if `out` is read-only.
        """
        t = self.__tile_size__
        m, n, p = (check.integer("matmul_tiled", "sizes", size, least=0) for size in (m, n, p))
        for name, buffer, rows, columns in (("a", a, m, n), ("b", b, n, p), ("out", out, m, p)):
            if rows % t or columns % t:
                raise ValueError(f"matmul_tiled: sizes must be multiples of {t}, but {name} has ({rows}, {columns})")
            check.same("matmul_tiled", "size", rows * columns, buffer.size, ("the matrix", f"the buffer of {name}"))
        target = out.flat
        if not target.flags.writeable:
            raise ValueError("matmul_tiled: the memory of out must be writable, but got a read-only array's")
        left, right = (
            buffer.flat.reshape(rows // t, columns // t, t, t).swapaxes(1, 2).reshape(rows, columns)
            for buffer, rows, columns in ((a, m, n), (b, n, p))
        )
        target.reshape(m // t, p // t, t, t)[...] = (left @ right).reshape(m // t, t, p // t, t).swapaxes(1, 2)


class _Cuda(BackendDevice, backend.CudaDevice):
    """A GPU."""


register_device(_Cpu())
register_device(_Cuda())

# The functions of `needle.backend`, typed: the devices above create NDArrays.
cpu = cast("Callable[[], BackendDevice]", backend.cpu)
cpu_numpy = cast("Callable[[], BackendDevice]", backend.cpu_numpy)
cuda = cast("Callable[..., BackendDevice]", backend.cuda)
default_device = cast("Callable[[], BackendDevice]", backend.default_device)
all_devices = cast("Callable[[], list[BackendDevice]]", backend.all_devices)
