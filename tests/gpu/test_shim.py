"""The shim runs CUDA C as a GPU does, and its checks find what a kernel must not do, with its place."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.gpu.kernels import KernelError, Module, allocate, missing, running

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
SOURCE = Module(r"""
struct Pair { float* pointer; int place; };
extern "C" __global__ void store(float* x, int i) { x[i + (int)threadIdx.x] = 1; }
extern "C" __global__ void load4(const float* x, float* y, int i) { *(float4*)y = *(const float4*)(x + i); }
extern "C" __global__ void sum(const float* x, float* y) {
  __shared__ float scratch[32];
  float v = x[blockIdx.x * blockDim.x + threadIdx.x];
  for (int step = 16; step; step >>= 1) v += __shfl_xor_sync(~0u, v, step);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) total += scratch[warp];
    y[blockIdx.x] = total;
  }
}
extern "C" __global__ void no_barrier(float* y) {
  __shared__ float shared[64];
  shared[threadIdx.x] = threadIdx.x;
  y[threadIdx.x] = shared[threadIdx.x ^ 32];
}
extern "C" __global__ void shuffle_only(float* y) {
  __shared__ float shared[32];
  shared[threadIdx.x] = threadIdx.x;
  __shfl_sync(~0u, 0, 0);
  y[threadIdx.x] = shared[threadIdx.x ^ 1];
}
extern "C" __global__ void warp_barrier(float* y) {
  __shared__ float shared[32];
  shared[threadIdx.x] = threadIdx.x;
  __syncwarp();
  y[threadIdx.x] = shared[threadIdx.x ^ 1];
}
extern "C" __global__ void add(float* y) { *y += 1; }
extern "C" __global__ void add_atomic(float* y) { atomicAdd(y, 1.0f); }
extern "C" __global__ void divergent(float* y) {
  if (threadIdx.x < 32) __syncthreads();
  else
    __syncthreads();
}
extern "C" __global__ void leave(float* y) {
  if (threadIdx.x < 32) return;
  __syncthreads();
}
extern "C" __global__ void deadlock() { __syncwarp(threadIdx.x < 16 ? ~0u >> 1 : ~0u); }
extern "C" __global__ void half_warp(float* y) { y[threadIdx.x] = __shfl_sync(0xffffu, threadIdx.x, threadIdx.x + 16); }
extern "C" __global__ void quarters(int* y) {
  int v = threadIdx.x;
  if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffu, v, 1);
  y[threadIdx.x] = __shfl_down_sync(~0u, v, 1);
  if (threadIdx.x == 0) y[32] = __popc(0xf0u);
  unsigned votes = __ballot_sync(~0u, threadIdx.x % 3 == 0);
  if (threadIdx.x == 0) y[33] = votes;
}
extern "C" __global__ void by_pointer(Pair pair) { pair.pointer[pair.place] = 1; }
extern "C" __global__ void unwaited(const float* x) {
  __shared__ __align__(16) float shared[4];
  copy16(shared, x, true);
  copy_commit();
}
extern "C" __global__ void vote(int* y, unsigned* z) {
  y[threadIdx.x] = __any_sync(~0u, threadIdx.x == 7) + __all_sync(~0u, threadIdx.x < 31);
  z[threadIdx.x] = atomicAdd(z + 32, 1u);
}
""")
PAIR = np.dtype([("pointer", "u8"), ("place", "i4"), ("gap", "i4")])


def zeros(*shape, dtype="float32"):
    x = allocate(shape, dtype)
    x[...] = 0
    return x


def launch(name, *arguments, grid=(1,), block=(32,), checked=True, order=0):
    with running(checked=checked, order=order):
        SOURCE.get_function(name)(grid, block, arguments)


# ---- what works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("checked", "order"), [(False, 0), (False, 1), (False, 7), (True, 0), (True, 3)])
def test_blocks_warps_and_barriers(checked, order):
    x, y = zeros(3 * 96), allocate(3)
    x[...] = np.arange(3 * 96)
    launch("sum", x, y, grid=(3,), block=(96,), checked=checked, order=order)
    assert y.tolist() == x.reshape(3, 96).sum(1).tolist()


@pytest.mark.parametrize("order", [0, 1, 5])
def test_parts_of_a_warp_exchange(order):
    y = zeros(34, dtype="int32")
    launch("quarters", y, order=order)
    lanes = [lane ^ 1 if lane < 16 else lane for lane in range(32)]
    assert y[:32].tolist() == [*lanes[1:], 31]
    assert y[32:].view("uint32").tolist() == [4, sum(1 << lane for lane in range(0, 32, 3))]


def test_votes_and_atomics():
    y, z = zeros(32, dtype="int32"), zeros(33, dtype="uint32")
    launch("vote", y, z)
    assert y.tolist() == [1] * 32
    assert sorted(z[:32].tolist()) == [*range(32)]


def test_what_a_barrier_or_an_atomic_orders_is_no_race():
    launch("warp_barrier", zeros(32))
    y = zeros(1)
    launch("add_atomic", y, grid=(2,))
    assert y[0] == 64
    launch("sum", zeros(64), allocate(2), grid=(2,))


def test_a_structure_may_hold_a_pointer():
    x = zeros(8)
    launch("by_pointer", np.array([(x.ctypes.data, 7, 0)], PAIR)[0], block=(1,))
    assert x[7] == 1


# ---- what is found ---------------------------------------------------------------------------------------------------

X = zeros(8)
PAST_END = np.array([(X.ctypes.data, 8, 0)], PAIR)[0]
GRID = "the grid must have 1 to 2**31 - 1, 65535, 65535 blocks, but got "
FOUND = {  # kernel, arguments, grid, block, report
    "before the array": (
        *("store", (X, np.int32(-23)), (1,), (32,)),
        "write of 4 bytes out of bounds: argument 0 float32(8,) - 92 [store, block (0, 0, 0), thread (0, 0, 0)]",
    ),
    "by a pointer": (
        *("by_pointer", (PAST_END,), (1,), (1,)),
        "write of 4 bytes out of bounds: argument 0, pointer at 0 + 32 [by_pointer, block (0, 0, 0), thread (0, 0, 0)]",
    ),
    "unwritten memory": (
        *("load4", (allocate(8), X, np.int32(4)), (1,), (1,)),
        "read of what nothing wrote: argument 0 float32(8,) + 16 [load4",
    ),
    "misaligned": (
        *("load4", (X, zeros(4), np.int32(2)), (1,), (1,)),
        "misaligned read of 16 bytes: argument 0 float32(8,) + 8 [load4",
    ),
    "no barrier": ("no_barrier", (zeros(64),), (1,), (64,), "read of what nothing wrote: shared memory + "),
    "a shuffle is no barrier": (
        "shuffle_only",
        (zeros(32),),
        (1,),
        (32,),
        ", which thread 1 of block 0 wrote [shuffle",
    ),
    "a race in a block": (
        *("add", (zeros(1),), (1,), (32,)),
        "race: read of argument 0 float32(1,) + 0, which thread 0 of block 0 wrote [add, block (0, 0, 0), thread (1, 0",
    ),
    "a race of blocks": (
        *("add", (zeros(1),), (2,), (1,)),
        "race: read of argument 0 float32(1,) + 0, which thread 0 of block 0 wrote [add, block (1, 0, 0), thread (0, 0",
    ),
    "divergence": ("divergent", (X,), (1,), (64,), "divergent __syncthreads: lines "),
    "threads that left": ("leave", (X,), (1,), (64,), ": 32 threads have left the kernel"),
    "a deadlock": (
        *("deadlock", (), (1,), (32,)),
        "deadlock: 32 threads wait for their warp (thread 31 for the lanes ffffffff), 0 for the block, 0 have left",
    ),
    "not in the mask": ("half_warp", (zeros(32),), (1,), (32,), "warp: lane 16 is not in its own mask 0000ffff"),
    "not of the mask": ("half_warp", (zeros(32),), (1,), (16,), "warp: lane 16 is read, which did not take part"),
    "a copy": ("unwaited", (X,), (1,), (1,), "cp.async: a copy was never waited for [unwaited"),
    "a tall grid": ("add", (X,), (1, 65536), (1,), f"{GRID}(1, 65536, 1)"),
    "an empty grid": ("add", (X,), (0,), (1,), f"{GRID}(0, 1, 1)"),
    "a block": ("add", (X,), (1,), (64, 17), "a block must have 1 to 1024 threads, but got (1, 1, 1) of (64, 17, 1)"),
    "no tuple": ("add", (X,), 3, (1,), "grid and block must be tuples of at most three sizes, but got 3"),
    "too few": ("store", (X,), (1,), (1,), "store: 2 arguments are needed, but got 1"),
    "a number": ("store", (X, 3), (1,), (1,), "store: argument 1 must be an array or a scalar of NumPy, but got 3"),
    "a size": ("store", (X, np.int64(3)), (1,), (1,), "store: argument 1 takes 4 bytes, but int64 has 8"),
}


@pytest.mark.parametrize("name", FOUND)
def test_errors_are_found_with_their_place(name):
    kernel, arguments, grid, block, report = FOUND[name]
    with pytest.raises(KernelError, match=re.escape(report)):
        launch(kernel, *arguments, grid=grid, block=block)
    launch("warp_barrier", zeros(32))  # the next launch is not concerned


def test_a_race_is_no_error_in_a_plain_run():
    launch("add", zeros(1), checked=False)


def test_what_does_not_compile_and_what_is_not_there():
    with pytest.raises(KernelError, match="was not declared in this scope"):
        Module('extern "C" __global__ void f(float* x) { x[0] = y; }').get_function("f")((1,), (1,), (X,))
    with pytest.raises(KernelError, match=r"^g: the source has no such kernel, but f$"):
        Module('extern "C" __global__ void f(float* x) {}').get_function("g")
