// CUDA C for a C++ compiler: what a kernel may use, on the host.
//
// The threads of a block are fibers of one thread of the host. They run one after another, each from one barrier to the
// next, in an order that `cpu_order` chooses; blocks run one after another, too. cpu.cpp has the scheduler, checks.cpp
// what is checked. A source that is compiled with this header
//   - has its kernels in `extern "C"`, and declares `__shared__` arrays of fixed sizes in kernels only (a device
//     function takes a pointer to them),
//   - uses no cooperative groups, and inline PTX only behind functions that cpu_mma.h has, too.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __CPU__ 1
#define __host__
#define __device__
#define __global__
#define __grid_constant__
#define __constant__ static
#define __shared__ static __attribute__((section("cpu_shared")))  // static suffices: one block runs at a time
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
#define UNCHECKED __attribute__((no_sanitize("thread")))  // code of this header, whose accesses are not a kernel's
#ifndef warpSize
constexpr int warpSize = 32;
#endif
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

// ---- vectors: copied whole, as one access, like a GPU's

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
template <class T, int N> struct alignas(sizeof(T) * N) Vector;
#define CPU_VECTOR(n, ...)                                                 \
  template <class T> struct alignas(sizeof(T) * n) Vector<T, n> {          \
    typedef T Whole __attribute__((vector_size(sizeof(T) * n)));           \
    union {                                                                \
      Whole whole;                                                         \
      struct {                                                             \
        T __VA_ARGS__;                                                     \
      };                                                                   \
    };                                                                     \
    Vector() = default;                                                    \
    Vector(const Vector& other) : whole(other.whole) {}                    \
    Vector& operator=(const Vector& other) {                               \
      whole = other.whole;                                                 \
      return *this;                                                        \
    }                                                                      \
    template <class... V> Vector(T first, V... rest) : whole{first, (T)rest...} {} \
  };
CPU_VECTOR(2, x, y)
CPU_VECTOR(4, x, y, z, w)
using char4 = Vector<signed char, 4>;
using uchar4 = Vector<unsigned char, 4>;
using int2 = Vector<int, 2>;
using int4 = Vector<int, 4>;
using uint2 = Vector<unsigned, 2>;
using uint4 = Vector<unsigned, 4>;
using longlong2 = Vector<long long, 2>;
using float2 = Vector<float, 2>;
using float4 = Vector<float, 4>;
using double2 = Vector<double, 2>;
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- the runtime, in cpu.cpp and checks.cpp

extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
void cpu_block_barrier(const char* file, int line);
// Lays `size` bytes out for the other lanes of the warp, waits for all lanes in `mask`, and returns what each laid out,
// 64 bytes a lane. Without bytes it orders memory, as __syncwarp does; a shuffle does not.
const char* cpu_warp_exchange(unsigned mask, const void* mine, int size);
void cpu_expect_lane(int lane);  // fails unless that lane took part in the last exchange
void cpu_atomic(const void* address, int size);
void cpu_copy_later(void* to, const void* from, int size, int zeros);
void cpu_copy_commit();
void cpu_copy_wait(int left);
void cpu_run(dim3 grid, dim3 block, void (*body)(void*), void* data, const char* name);
[[noreturn]] void cpu_trap(const char* what);
}

// ---- barriers, warps

#define __syncthreads() cpu_block_barrier(__FILE__, __LINE__)
inline void __syncwarp(unsigned mask = ~0u) { cpu_warp_exchange(mask, nullptr, 0); }
UNCHECKED inline int cpu_lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31; }
template <class T> UNCHECKED inline T cpu_from(unsigned mask, T value, int lane) {
  static_assert(sizeof(T) <= 64, "a lane lays out at most 64 bytes");
  const char* all = cpu_warp_exchange(mask, &value, sizeof(T));
  cpu_expect_lane(lane);
  T result;
  memcpy(&result, all + 64 * lane, sizeof(T));
  return result;
}
// The lane `other`, or this one where that is in another part of the warp.
UNCHECKED inline int cpu_partner(int other, int width) {
  int lane = cpu_lane();
  return other >= 0 && (other & ~(width - 1)) == (lane & ~(width - 1)) ? other : lane;
}
template <class T> UNCHECKED inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return cpu_from(mask, value, (cpu_lane() & ~(width - 1)) | (from & (width - 1)));
}
template <class T> UNCHECKED inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  return cpu_from(mask, value, cpu_partner(cpu_lane() ^ bits, width));
}
template <class T> UNCHECKED inline T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
  return cpu_from(mask, value, cpu_partner(cpu_lane() + by, width));
}
template <class T> UNCHECKED inline T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
  return cpu_from(mask, value, cpu_partner(cpu_lane() - by, width));
}
UNCHECKED inline unsigned __ballot_sync(unsigned mask, int predicate) {
  int mine = predicate != 0;
  const char* all = cpu_warp_exchange(mask, &mine, 4);
  unsigned bits = 0;
  for (int lane = 0; lane < 32; lane++) {
    int value;
    memcpy(&value, all + 64 * lane, 4);
    if (mask >> lane & 1) bits |= (unsigned)value << lane;
  }
  return bits;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline unsigned __activemask() { return ~0u; }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __trap() { cpu_trap("__trap"); }

// ---- atomics: threads take turns anyway

template <class T, class F> UNCHECKED inline T cpu_update(T* p, F f) {
  cpu_atomic(p, sizeof(T));
  T before = *p;
  *p = f(before);
  return before;
}
template <class T> UNCHECKED inline std::enable_if_t<std::is_arithmetic<T>::value, T> atomicAdd(T* p, T v) {
  return cpu_update(p, [=](T old) { return (T)(old + v); });
}
template <class T> UNCHECKED inline T atomicSub(T* p, T v) {
  return cpu_update(p, [=](T old) { return (T)(old - v); });
}
inline int atomicMax(int* p, int v) { return cpu_update(p, [=](int old) { return old < v ? v : old; }); }
inline int atomicMin(int* p, int v) { return cpu_update(p, [=](int old) { return old < v ? old : v; }); }
template <class T> UNCHECKED inline T atomicExch(T* p, T v) {
  return cpu_update(p, [=](T) { return v; });
}
template <class T> UNCHECKED inline T atomicCAS(T* p, T expected, T v) {
  return cpu_update(p, [=](T old) { return old == expected ? v : old; });
}

// ---- arithmetic: a GPU's approximations are exact here

template <class T> inline T __ldg(const T* p) { return *p; }
template <class A, class B> constexpr auto min(A a, B b) -> std::common_type_t<A, B> {
  using T = std::common_type_t<A, B>;
  return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> constexpr auto max(A a, B b) -> std::common_type_t<A, B> {
  using T = std::common_type_t<A, B>;
  return (T)a < (T)b ? (T)b : (T)a;
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
template <class To, class From> inline To cpu_bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To t;
  memcpy(&t, &v, sizeof t);
  return t;
}
inline int __float_as_int(float v) { return cpu_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return cpu_bits<unsigned>(v); }
inline float __int_as_float(int v) { return cpu_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return cpu_bits<float>(v); }
inline long long __double_as_longlong(double v) { return cpu_bits<long long>(v); }
inline double __longlong_as_double(long long v) { return cpu_bits<double>(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }

using __half = _Float16;
inline __half __float2half(float v) { return (__half)v; }
inline float __half2float(__half v) { return (float)v; }

// ---- launches, for ctypes: NAME_cpu(grid, block, shared memory, pointers to the arguments)

template <class... A, size_t... I>
inline void cpu_launch(void (*kernel)(A...), dim3 grid, dim3 block, void** args, const char* name,
                       std::index_sequence<I...>) {
  struct Call {
    void (*kernel)(A...);
    void** args;
  } call{kernel, args};
  auto body = [](void* data) UNCHECKED {
    auto* c = (Call*)data;
    c->kernel(*(std::remove_cv_t<std::remove_reference_t<A>>*)c->args[I]...);
  };
  cpu_run(grid, block, body, &call, name);
}
template <class... A>
inline void cpu_launch(void (*kernel)(A...), dim3 grid, dim3 block, void** args, const char* name) {
  cpu_launch(kernel, grid, block, args, name, std::index_sequence_for<A...>());
}
template <class F> struct cpu_sizes;
template <class... A> struct cpu_sizes<void(A...)> {
  static constexpr size_t of[] = {sizeof(A)..., 0};
};
#define CPU_KERNEL(name)                                                       \
  extern "C" UNCHECKED void name##_cpu(dim3 grid, dim3 block, size_t, void** args) { \
    cpu_launch(name, grid, block, args, #name);                                \
  }                                                                            \
  extern "C" const size_t* name##_sizes_of() { return cpu_sizes<decltype(name)>::of; }

// Where the shared memory of this library lies: the linker knows the ends of a section.
extern "C" {
extern char __start_cpu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_cpu_shared[] __attribute__((weak, visibility("hidden")));
UNCHECKED inline __attribute__((used)) void cpu_shared_memory(void** ends) {
  ends[0] = __start_cpu_shared;
  ends[1] = __stop_cpu_shared;
}
}
