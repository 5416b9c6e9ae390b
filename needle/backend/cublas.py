"""Matrix products on a GPU: cuBLAS itself, through the library and the handle that CuPy has loaded.

CuPy's own product copies operands of more than two axes to row-major order, takes no TF32 there, and refuses to be
captured into a graph, for a workspace that cuBLAS would allocate. Here operands are read where they lie
(`gemm_plan`), and cuBLAS gets its workspace from us, with every call: CuPy sets the stream of the handle with each of
its own, and that takes the workspace away.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from needle import tuning
from needle.backend.gemm_plan import Offsets, Sizes, plan
from needle.backend.tf32 import tf32_allowed

__all__ = ["Blas", "gemm", "load"]

Array = Any
Device = Any  # a CudaDevice

SINGLE = ctypes.c_float(1), ctypes.c_float(0)  # factors of a product and of what is there before
DOUBLE = ctypes.c_double(1), ctypes.c_double(0)
KINDS = {  # dtype -> cuBLAS's number of it, the type to compute in, factors of that type
    "e": (2, 68, SINGLE),  # CUDA_R_16F, CUBLAS_COMPUTE_32F
    "f": (0, 68, SINGLE),  # CUDA_R_32F, CUBLAS_COMPUTE_32F
    "d": (1, 70, DOUBLE),  # CUDA_R_64F, CUBLAS_COMPUTE_64F
}
COMPUTE_32F_FAST_TF32 = 77
DEFAULT_ALGORITHM = -1
ADDRESS, INT, LONG = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
HEAD = ADDRESS, INT, INT, INT, INT, INT, ADDRESS
MATRIX, STEPPED = (ADDRESS, INT, INT), (ADDRESS, INT, INT, LONG)
PRODUCTS = {
    "cublasGemmEx": (*HEAD, *MATRIX, *MATRIX, ADDRESS, *MATRIX, INT, INT),
    "cublasGemmStridedBatchedEx": (*HEAD, *STEPPED, *STEPPED, ADDRESS, *STEPPED, INT, INT, INT),
}


class Call(NamedTuple):
    """How to compute a product: `Plan`, in the arguments of cuBLAS. Those of matrices follow their addresses."""

    copies: tuple[bool, bool, bool]
    swapped: bool
    batched: bool
    head: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    zero: int
    out: tuple[int, ...]
    compute: int
    offsets: tuple[Offsets, ...]  # bytes


class Blas:
    """The functions of cuBLAS that needle calls, CuPy's handles for it, and a workspace for each stream of a GPU."""

    def __init__(self, library: Any, cuda: Any) -> None:
        """`library` has cuBLAS's functions, `cuda` is `cupy.cuda`. Raises AttributeError if a function is missing."""
        self.cuda = cuda
        self.workspaces: Any = WeakKeyDictionary()  # stream -> memory, which lives as long as the stream
        self.set_stream, self.set_workspace = library.cublasSetStream_v2, library.cublasSetWorkspace_v2
        self.set_stream.argtypes = ADDRESS, ADDRESS
        self.set_workspace.argtypes = ADDRESS, ADDRESS, ctypes.c_size_t
        self.single, self.batched = (getattr(library, name) for name in PRODUCTS)
        self.single.argtypes, self.batched.argtypes = PRODUCTS.values()

    def multiply(self, call: Call, a: int, b: int, out: int) -> None:
        """Make a call on the matrices at these addresses, on the current stream and with its workspace.

        With a workspace of ours cuBLAS may be captured, and computes the same bits on every stream.
        """
        handle, stream = self.cuda.device.get_cublas_handle(), self.cuda.get_current_stream()
        workspace = self.workspaces.get(stream)
        if workspace is None:
            workspace = self.workspaces[stream] = self.cuda.alloc(tuning.CUBLAS_WORKSPACE_BYTES)
        product, (first, second) = self.batched if call.batched else self.single, (b, a) if call.swapped else (a, b)
        is_float32 = call.first[0] == KINDS["f"][0]
        compute = COMPUTE_32F_FAST_TF32 if is_float32 and tf32_allowed() else call.compute
        status = (
            self.set_stream(handle, stream.ptr)
            or self.set_workspace(handle, workspace.ptr, tuning.CUBLAS_WORKSPACE_BYTES)  # after the stream
            or product(
                handle, *call.head, first, *call.first, second, *call.second, call.zero, out, *call.out,
                compute, DEFAULT_ALGORITHM,
            )
        )  # fmt: skip
        if status:
            raise RuntimeError(f"matmul: cuBLAS must succeed, but got its status {status}")


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
    char = a.dtype.char
    is_ours = char in KINDS and b.dtype.char == char and a.size and b.size and (out is None or out.dtype.char == char)
    blas: Blas | None = device.blas if is_ours else None
    if blas is None:
        return device.xp.matmul(a, b, out=out)
    if b.ndim == 1:
        return gemm(device, a, b[:, None])[..., 0]
    if a.ndim == 1:
        return gemm(device, a[None], b)[..., 0, :]
    if out is None:
        leading = a.shape[:-2] if b.ndim == 2 else device.xp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        out = device.xp.empty((*leading, a.shape[-2], b.shape[-1]), a.dtype)
    call = _call((a.shape, b.shape, out.shape), (a.strides, b.strides, out.strides), char)
    if call is None:
        return device.xp.matmul(a, b, out=out)
    target, address = out, device.address
    if any(call.copies):
        a, b = (x.copy(order="C") if copied else x for x, copied in zip((a, b), call.copies[:2], strict=True))
        target = device.xp.empty(out.shape, out.dtype) if call.copies[2] else out
    from_a, from_b, to = address(a), address(b), address(target)
    for a_offset, b_offset, offset in call.offsets:
        blas.multiply(call, from_a + a_offset, from_b + b_offset, to + offset)
    if target is not out:
        out[...] = target
    return out


@lru_cache(maxsize=4096)
def _call(shapes: tuple[Sizes, Sizes, Sizes], strides: tuple[Sizes, Sizes, Sizes], char: str) -> Call | None:
    """The call for arrays a, b and out of these shapes and strides (bytes); None if sizes are beyond cuBLAS."""
    data, compute, (one, zero) = KINDS[char]
    itemsize = {"e": 2, "f": 4, "d": 8}[char]
    found = plan(shapes, strides, itemsize)
    if found is None:
        return None
    gemm, batched = found.gemm, found.gemm.repeats > 1
    matrices = [(gemm.first_leading, gemm.first_step), (gemm.second_leading, gemm.second_step)]
    matrices.append((gemm.out_leading, gemm.out_step))
    first, second, out = ((data, leading, step) if batched else (data, leading) for leading, step in matrices)
    head = int(gemm.first_transposed), int(gemm.second_transposed), gemm.m, gemm.n, gemm.k, ctypes.addressof(one)
    offsets = tuple((itemsize * a, itemsize * b, itemsize * c) for a, b, c in found.offsets)
    out = (*out, gemm.repeats) if batched else out
    return Call(
        found.copies, gemm.swapped, batched, head, first, second, ctypes.addressof(zero), out, compute, offsets
    )
