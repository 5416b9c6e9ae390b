"""Matrix products on a GPU: cuBLAS itself, through the library and the handle that CuPy has loaded.

CuPy's own product copies operands of more than two axes to row-major order, takes no TF32 there, and refuses to be
captured into a graph, for a workspace that cuBLAS would allocate. Here operands are read where they lie
(`gemm_plan`), and cuBLAS gets its workspace from us, with every call: CuPy sets the stream of the handle with each of
its own, and that takes the workspace away.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from needle import tuning
from needle.backend.gemm_plan import Gemm, plan
from needle.backend.tf32 import tf32_allowed

__all__ = ["Blas", "gemm", "load"]

Array = Any
Device = Any  # a CudaDevice


class Kind(NamedTuple):
    """What cuBLAS calls a dtype, the type to compute in, and the factors 1 and 0 of that type."""

    data: int
    compute: int
    one: Any
    zero: Any


KINDS = {
    "e": Kind(2, 68, ctypes.c_float(1), ctypes.c_float(0)),  # CUDA_R_16F, CUBLAS_COMPUTE_32F
    "f": Kind(0, 68, ctypes.c_float(1), ctypes.c_float(0)),  # CUDA_R_32F
    "d": Kind(1, 70, ctypes.c_double(1), ctypes.c_double(0)),  # CUDA_R_64F, CUBLAS_COMPUTE_64F
}
COMPUTE_32F_FAST_TF32 = 77
DEFAULT_ALGORITHM = -1
ADDRESS, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
MATRICES = {  # the arguments of a product, up to the type to compute in
    "cublasGemmEx": (
        *(ADDRESS, INT, INT, INT, INT, INT, ADDRESS),
        *(ADDRESS, INT, INT),
        *(ADDRESS, INT, INT, ADDRESS),
        *(ADDRESS, INT, INT),
    ),
    "cublasGemmStridedBatchedEx": (
        *(ADDRESS, INT, INT, INT, INT, INT, ADDRESS),
        *(ADDRESS, INT, INT, LONG),
        *(ADDRESS, INT, INT, LONG, ADDRESS),
        *(ADDRESS, INT, INT, LONG, INT),
    ),
}


class Blas:
    """The functions of cuBLAS that needle calls, CuPy's handles for it, and a workspace for each stream of a GPU."""

    def __init__(self, library: Any, cuda: Any) -> None:
        """`library` has cuBLAS's functions, `cuda` is `cupy.cuda`. Raises AttributeError if a function is missing."""
        self.cuda = cuda
        self.workspaces: Any = WeakKeyDictionary()  # stream -> memory, which lives as long as the stream
        self.set_stream, self.set_workspace = library.cublasSetStream_v2, library.cublasSetWorkspace_v2
        self.set_stream.argtypes = ADDRESS, ADDRESS
        self.set_workspace.argtypes = ADDRESS, ADDRESS, ctypes.c_size_t
        self.single, self.batched = (getattr(library, name) for name in MATRICES)
        for function, arguments in zip((self.single, self.batched), MATRICES.values(), strict=True):
            function.argtypes = *arguments, INT, INT

    def handle(self) -> int:
        """CuPy's handle of this thread and GPU, on the current stream, with a workspace of ours.

        cuBLAS may then be captured, and computes the same bits on every stream.
        """
        handle, stream = self.cuda.device.get_cublas_handle(), self.cuda.get_current_stream()
        workspace = self.workspaces.get(stream)
        if workspace is None:
            workspace = self.workspaces[stream] = self.cuda.alloc(tuning.CUBLAS_WORKSPACE_BYTES)
        _check(self.set_stream(handle, stream.ptr))
        _check(self.set_workspace(handle, workspace.ptr, tuning.CUBLAS_WORKSPACE_BYTES))  # after the stream
        return int(handle)

    def multiply(self, call: Gemm, kind: Kind, a: int, b: int, out: int) -> None:
        """Make one call on the matrices at these addresses."""
        first, second = (b, a) if call.swapped else (a, b)
        head = self.handle(), int(call.first_transposed), int(call.second_transposed), call.m, call.n, call.k
        compute = COMPUTE_32F_FAST_TF32 if kind.data == 0 and tf32_allowed() else kind.compute
        one, zero, tail = ctypes.addressof(kind.one), ctypes.addressof(kind.zero), (compute, DEFAULT_ALGORITHM)
        matrices = (
            (first, kind.data, call.first_leading),
            (second, kind.data, call.second_leading),
            (out, kind.data, call.out_leading),
        )
        if call.repeats == 1:
            _check(self.single(*head, one, *matrices[0], *matrices[1], zero, *matrices[2], *tail))
            return
        first_step, second_step, out_step = call.first_step, call.second_step, call.out_step
        _check(
            self.batched(
                *head, one, *matrices[0], first_step, *matrices[1], second_step, zero, *matrices[2], out_step,
                call.repeats, *tail,
            )
        )  # fmt: skip


def load(cupy: Any) -> Blas | None:
    """cuBLAS as CuPy has loaded it; None if its functions cannot be found there, as on a GPU that is not NVIDIA's."""
    try:
        return Blas(ctypes.CDLL(cupy.cuda.cublas.__file__), cupy.cuda)  # what a module is linked to is found through it
    except (AttributeError, ImportError, OSError):
        return None


def gemm(device: Device, a: Array, b: Array, out: Array | None = None) -> Array:
    """(*B, n, k), (*B, k, m) -> (*B, n, m), into `out` if it is given, else row-major; as NumPy's matmul.

    One call of cuBLAS reads operands and writes results of nearly any strides: transposes, arrays with the batch
    innermost, slices; a broadcast axis is a step of 0. Copied to row-major order before the call (after it, the result)
    are: matrices without an axis along which elements lie side by side, or repeated along an axis of theirs by
    broadcasting; and batches of several axes, which one step cannot pass, if a copy is cheaper than a call for each
    matrix of an axis. float16 is added in float32. Integers, mixed dtypes and empty arrays are CuPy's.

    Raises RuntimeError if cuBLAS fails.
    """
    kind = KINDS.get(a.dtype.char) if a.dtype == b.dtype and (out is None or out.dtype == a.dtype) else None
    blas: Blas | None = device.blas if kind is not None and a.size and b.size else None
    if blas is None or kind is None:
        return device.xp.matmul(a, b, out=out)
    if b.ndim == 1:
        return gemm(device, a, b[:, None])[..., 0]
    if a.ndim == 1:
        return gemm(device, a[None], b)[..., 0, :]
    if out is None:
        leading = a.shape[:-2] if b.ndim == 2 else device.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = device.xp.empty((*leading, a.shape[-2], b.shape[-1]), a.dtype)
    found = plan((a.shape, b.shape, out.shape), (a.strides, b.strides, out.strides), a.itemsize)
    if found is None:
        return device.xp.matmul(a, b, out=out)
    copy_a, copy_b, copy_out = found.copies
    a, b = (x.copy(order="C") if copied else x for x, copied in ((a, copy_a), (b, copy_b)))
    target = device.xp.empty(out.shape, out.dtype) if copy_out else out
    addresses, size = [device.address(x) for x in (a, b, target)], a.itemsize
    for offsets in found.offsets:
        at = (address + size * offset for address, offset in zip(addresses, offsets, strict=True))
        blas.multiply(found.gemm, kind, *at)
    if copy_out:
        out[...] = target
    return out


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"matmul: cuBLAS must succeed, but got its status {status}")
