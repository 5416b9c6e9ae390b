// What CuPy's own kernels need beside the shim.
#pragma once
#include <cassert>
#define __noinline__ __attribute__((noinline))
class bfloat16;
inline unsigned short __float2half_rn(float value) {
  _Float16 half = (_Float16)value;
  unsigned short bits;
  memcpy(&bits, &half, 2);
  return bits;
}
inline float __half2float(unsigned short bits) {
  _Float16 half;
  memcpy(&half, &bits, 2);
  return (float)half;
}
struct half;  // CuPy's own, which it has where there is no cuda_fp16.h
inline unsigned short __half_as_ushort(const half&);
inline half __ushort_as_half(unsigned short);
#include <cupy/carray.cuh>
#include <cupy/float16.cuh>
inline unsigned short __half_as_ushort(const half& value) { return __half_raw(value).x; }
inline half __ushort_as_half(unsigned short bits) { return half(__half_raw{bits}); }
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
template <class T>
struct complex {
  T re, im;
};
using std::nextafter;
